"""What removal attacks leave of a watermark, and what they cost."""

import math
from collections.abc import Iterable
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator

from fidlib.palette import method_style
from fidlib.plots.style import DOUBLE

_MARKERS = "o^sX*Dv<>P"


def attack_paths(ax: Axes, curve: pd.DataFrame, cost: str) -> Axes:
    """Triggers matched against a cost: a path a model and attack, mild to strong.

    Paths start where the model is not attacked; an attack of one strength is a marker
    alone. A dash is what a claim needs of that suspect, a line what it needs of all.

    Args:
        ax: The axes to draw on.
        curve: As `robustness.attack_curve`: columns model, attack, kind, `cost`,
            matches, triggers, threshold.
        cost: A column that costs.
    """
    styles = _styles(curve.model)
    for name, rows in curve.groupby("model", sort=False):
        style: dict[str, Any] = {**styles[str(name)], "marker": ""}
        start = rows[rows.attack == "none"]
        attacked = rows[rows.attack != "none"]
        for _, part in attacked.groupby(["attack", "kind"], sort=False):
            kind = part.kind.iloc[0]
            path = pd.concat([start, part])
            if len(part) > 1:
                share = path.matches / path.triggers
                ax.plot(path[cost], share, linewidth=0.6, alpha=0.55, **style)
            dots = {
                "color": style["color"],
                "linestyle": "",
                "marker": _kinds(curve)[kind],
            }
            dots |= {"mfc": "w"} if name == "host" else {"alpha": 0.8}
            ax.plot(
                part[cost], part.matches / part.triggers, markersize=3, mew=0.6, **dots
            )
        ax.plot(start[cost], start.matches / start.triggers, "k.", zorder=4)
    known = curve[curve.threshold.notna()]
    needed = known.threshold / known.triggers
    if needed.nunique() == 1:
        ax.axhline(needed.iloc[0], **_NEEDED)
    else:
        ax.plot(known[cost], needed, "_", color="k", markersize=4, mew=0.5, alpha=0.5)
    ax.set_ylim(-0.03, 1.05)
    return ax


_NEEDED: dict[str, Any] = {"color": "k", "linewidth": 0.7, "linestyle": ":"}


def _styles(names: Iterable[Any]) -> dict[str, dict[str, Any]]:
    """Of each model, as elsewhere; where markers are taken, one whose colour another
    has is paler.
    """
    styles: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(map(str, names)):
        style, taken = method_style(name), [s["color"] for s in styles.values()]
        if style["color"] in taken:
            red, green, blue = ((1 + part) / 2 for part in to_rgb(style["color"]))
            style["color"] = to_hex((red, green, blue))
        styles[name] = style
    return styles


def _kinds(curve: pd.DataFrame) -> dict[str, str]:
    """A marker for each kind of attack."""
    kinds = [kind for kind in curve.kind.unique() if kind != "none"]
    return dict(zip(kinds, _MARKERS * len(kinds), strict=False))


CROWDED = 0.2
"""Labels of neighbours lean apart that are nearer than this share of the axis."""


def prices(ax: Axes, given: pd.DataFrame) -> Axes:
    """What the cheapest removal costs against how far a model is from its host.

    Hollow: what the same attack costs the host. An arrow: no attack removed it.

    Args:
        ax: The axes to draw on.
        given: As `robustness.given_up`: a row a model; columns attack, strength, lost,
            host_lost, distance.
    """
    finite = given.lost[np.isfinite(given.lost)]
    top = 1.25 * max([0.01, *finite, *given.host_lost.dropna()])
    ordered, styles = given.sort_values("distance"), _styles(given.index)
    places = np.log(ordered.distance.to_numpy())
    gaps = np.diff(places, prepend=-np.inf, append=np.inf)
    crowded = gaps[1:] < np.minimum(gaps[:-1], CROWDED * np.ptp(places))
    for (name, row), leans_left in zip(ordered.iterrows(), crowded, strict=True):
        style = styles[str(name)]
        dot = {"color": style["color"], "linestyle": "", "markersize": 5}
        fallen = math.isfinite(row.lost)
        marker = style["marker"] if fallen else r"$\uparrow$"
        ax.plot(row.distance, row.lost if fallen else top, marker=marker, **dot)
        if fallen:
            ax.plot(row.distance, row.host_lost, marker=style["marker"], mfc="w", **dot)
        number = "" if math.isnan(row.strength) else f":{row.strength:g}"
        text = f"{row.attack}{number}" if fallen else "none"
        place = row.distance, np.nanmax([min(row.lost, top), row.host_lost])
        beside = {"xytext": (0, 5), "textcoords": "offset points", "fontsize": 6}
        beside |= {"rotation": 60, "ha": "left", "rotation_mode": "anchor"}
        beside |= {"rotation": -60, "ha": "right"} if leans_left else {}
        ax.annotate(text, place, color=style["color"], **beside)
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter("{x:g}")
    low = min(0, *given.host_lost.fillna(0))
    ax.set_ylim(low - 0.05 * top, 1.1 * top)
    ax.margins(x=0.25)
    return ax


def robustness_panels(curve: pd.DataFrame, given: pd.DataFrame) -> Figure:
    """Matches against accuracy lost and against SPL; the price of each model's mark.

    Args:
        curve: As for `attack_paths`, with columns `lost` and `spl`.
        given: As for `prices`.
    """
    figure, axs = plt.subplots(1, 3, figsize=(DOUBLE, 3.1))
    shown = curve.assign(lost=100 * curve.lost)
    attack_paths(axs[0], shown, "lost")
    axs[0].set_xscale("symlog", linthresh=1)
    axs[0].set_xticks([0, 1, 10, 100], ["0", "1", "10", "100"])
    axs[0].set(xlabel="accuracy lost, points", ylabel="share of triggers matched")
    attack_paths(axs[1], shown, "spl")
    axs[1].set_xscale("symlog", linthresh=0.01)
    axs[1].set_xlim(left=-0.001)
    axs[1].set_xticks([0, 0.01, 0.1, 1, 10], ["0", ".01", ".1", "1", "10"])
    axs[1].set(xlabel="SPL(marked, attacked), nats")
    points = given.assign(lost=100 * given.lost, host_lost=100 * given.host_lost)
    prices(axs[2], points)
    axs[2].set_yscale("symlog", linthresh=1)
    axs[2].set_yticks([0, 1, 10, 100], ["0", "1", "10", "100"])
    axs[2].set_ylim(-0.2, 200)
    axs[2].set(xlabel="SPL(host, marked), nats", ylabel="points the cheapest gives up")
    for ax, title in zip(axs, ("paths", "the same, by function", "price"), strict=True):
        ax.set_title(title)
        ax.minorticks_off()
    _legend(figure, curve)
    return figure


def _legend(figure: Figure, curve: pd.DataFrame) -> None:
    """Models by line, kinds of attack by marker."""
    looks: list[tuple[str, dict[str, Any]]]
    styles = _styles(curve.model)
    looks = [(name, style | {"marker": ""}) for name, style in styles.items()]
    looks.append(("needed by the claim", _NEEDED))
    looks += [
        (kind, {"color": "0.3", "marker": marker, "linestyle": ""})
        for kind, marker in _kinds(curve).items()
    ]
    handles = [Line2D([], [], label=name, **look) for name, look in looks]
    figure.legend(handles=handles, loc="outside lower center", ncols=6)
