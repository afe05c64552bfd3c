"""Charts of measures on given axes, a look for each method."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from fidlib.palette import OTHERS, SERIES, method_style

Numbers = Sequence[float] | np.ndarray


def curves(ax: Axes, lines: Mapping[str, pd.Series], *, log: bool = False) -> Axes:
    """One line a method against the share of its training that is done.

    Args:
        ax: The axes to draw on.
        lines: Method -> `(E,)` values, indexed by epoch. One method may take one epoch
            and another fifty; all end at the right.
        log: A logarithmic axis; zeros, as at the start, have no place on it.
    """
    for name, line in lines.items():
        done = line.set_axis(line.index / (line.index[-1] or 1))
        shown = done.loc[done > 0] if log else done
        style = method_style(name)
        ax.plot(shown.index, shown, markersize=2.5, label=name, **style)
    if log:
        ax.set_yscale("log")
    ax.set(xlabel="share of training", xticks=[0, 0.5, 1])
    ax.margins(x=0.02)
    return ax


def by_strength(ax: Axes, lines: pd.DataFrame) -> Axes:
    """One line a method against the strength of a shift.

    Args:
        ax: The axes to draw on.
        lines: Indexed by strength, 0 where nothing is shifted; a column a method.
    """
    for name, line in lines.items():
        ax.plot(line.index, line, markersize=2.5, label=name, **method_style(str(name)))
    ax.set_xticks(lines.index)
    ax.margins(x=0.03)
    return ax


def legend_below(figure: Figure, ax: Axes, columns: int) -> None:
    """One legend, of one of its axes, for a whole figure."""
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=columns)


def against(ax: Axes, x: Numbers, y: Numbers, names: Sequence[str]) -> Axes:
    """One measure against another on logarithmic axes, a named marker a method.

    A value of 0 has no place on such an axis: its marker is hollow, at the lower end,
    and a 0 stands beside it.

    Args:
        ax: The axes to draw on.
        x: `(M,)` values, 0 or more.
        y: `(M,)` values, 0 or more.
        names: M methods.
    """
    columns = [np.asarray(v, float) for v in (x, y)]
    floors = [v[v > 0].min() / 4 if (v > 0).any() else 1e-6 for v in columns]
    for a, b, name in zip(*columns, names, strict=True):
        style = method_style(name)
        look = {"color": style["color"], "marker": style["marker"], "linestyle": ""}
        place = max(a, floors[0]), max(b, floors[1])
        half = (style["color"], 0.5)  # where two methods meet, both are seen
        # In the legend filled, whatever this panel shows.
        ax.plot([], [], label=name, markerfacecolor=half, **look)
        ax.plot(*place, markerfacecolor=half if a and b else "none", **look)
        if not (a and b):
            beside = {"xytext": (6, 0), "textcoords": "offset points", "va": "center"}
            ax.annotate("0", place, fontsize="small", **beside)
    ax.set(xscale="log", yscale="log")
    ax.margins(0.12)
    # Over less than half a decade every tick is labelled, one over the next.
    low, high = np.asarray(ax.dataLim.min), np.asarray(ax.dataLim.max)
    spare = np.maximum(1, 10**0.25 * np.sqrt(low / high))
    ax.update_datalim([low / spare, high * spare])
    return ax


def ranges(
    ax: Axes,
    x: Sequence[Sequence[float]] | np.ndarray,
    y: Sequence[Sequence[float]] | np.ndarray,
    names: Sequence[str],
) -> Axes:
    """How far two measures of each method range over seeds: a cross round the mean.

    What the hollow marker is goes to the legend.

    Args:
        ax: The axes to draw on.
        x: `(M, S)` values of S seeds.
        y: `(M, S)` values.
        names: M methods.
    """
    for across, up, name in zip(np.asarray(x), np.asarray(y), names, strict=True):
        style = method_style(name)
        look = {"color": style["color"], "linewidth": 1.2, "zorder": 1}
        ax.plot([across.min(), across.max()], [up.mean()] * 2, **look)
        ax.plot([across.mean()] * 2, [up.min(), up.max()], **look)
        look |= {"marker": style["marker"], "markerfacecolor": "white", "zorder": 1.5}
        ax.plot(across.mean(), up.mean(), **look)
    ax.plot([], [], "o", c="0.4", mfc="white", label="mean and range of seeds")
    return ax


def floors(ax: Axes, x: Numbers, y: Numbers, names: Sequence[str]) -> Axes:
    """How far honest training goes: a level each, marked where it lies.

    Args:
        ax: Where, on logarithmic axes.
        x: `(F,)` values.
        y: `(F,)` values, the levels; one of 0 has no place and is left out.
        names: F trainings without a watermark.
    """
    for across, level, name in zip(x, y, names, strict=True):
        look = {"color": method_style(name)["color"], "label": name}
        if level > 0:
            line = ":" if name == "fine-tuned" else "--"
            ax.axhline(level, linewidth=0.7, linestyle=line, color=look["color"])
        at = ([across], [level]) if level > 0 else ([], [])
        ax.plot(*at, "*", markersize=6, **look)
    return ax


def span(ax: Axes, values: Sequence[float], name: str) -> Axes:
    """The range of some values as a band across, with a line at their mean.

    Args:
        ax: The axes to draw on.
        values: `(V,)`, V at least 1.
        name: What they are.
    """
    grey = method_style("retrained")["color"]
    ax.axhspan(min(values), max(values), color=grey, alpha=0.25, linewidth=0)
    dashed = {"color": grey, "linewidth": 0.7, "linestyle": "--", "label": name}
    ax.axhline(float(np.mean(values)), **dashed)
    return ax


def yardstick(
    ax: Axes, changed: Sequence[float], values: Sequence[float], kinds: Sequence[str]
) -> Axes:
    """A measure against changed answers, a marker for each kind of change.

    Both axes are logarithmic, that of the answers down to .01 and from there straight
    to 0; a measure of 0 is drawn at its axis' lower end, hollow.

    Args:
        ax: The axes to draw on.
        changed: `(M,)` shares of answers that change, in [0, 1].
        values: `(M,)` of the measure, 0 or more.
        kinds: M kinds; equal ones share colour and marker, in order of appearance.
    """
    frame = pd.DataFrame({"x": changed, "y": values, "kind": kinds})
    floor = frame.y[frame.y > 0].min() / 4 if (frame.y > 0).any() else 1e-6
    groups = frame.groupby("kind", sort=False)
    colors = itertools.cycle((*SERIES, *OTHERS))
    markers = itertools.cycle("os^Dv*XP<>")  # no pair twice among forty
    for (kind, rows), color, marker in zip(groups, colors, markers, strict=False):
        look = {"s": 16, "marker": marker, "linewidths": 0.8, "edgecolors": color}
        look["facecolors"] = [color if y else "none" for y in rows.y]
        ax.scatter(rows.x, rows.y.clip(lower=floor), label=kind, **look)
    ax.set_yscale("log")
    if frame.y.max() < 200 * floor:  # two decades: numbers between them, too, in plain
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.set_xscale("symlog", linthresh=0.01)
    ax.set_xticks([0, 0.01, 0.1, 1], ["0", ".01", ".1", "1"])
    ax.tick_params(labelbottom=True)
    ax.margins(0.1)
    return ax


def bars(ax: Axes, lengths: pd.DataFrame, *, stacked: bool = False) -> Axes:
    """Horizontal bars, a group a row from the top, a colour a column.

    Args:
        ax: The axes to draw on.
        lengths: Indexed by name, a column a series.
        stacked: Each row's bars end to end rather than below each other.
    """
    colors = [*SERIES, *OTHERS][: lengths.shape[1]]
    lengths.plot.barh(ax=ax, stacked=stacked, color=colors, width=0.75, legend=False)
    ax.invert_yaxis()
    ax.set_ylabel("")
    return ax


def correlations(ax: Axes, values: np.ndarray, names: Sequence[str]) -> Axes:
    """A square of rank correlations, blue for -1 over white to red for 1.

    Args:
        ax: The axes to draw on.
        values: `(M, M)`.
        names: M measures.
    """
    import seaborn as sns

    ax.set_anchor("E")  # room for the names at the left
    look = {"cmap": "vlag", "vmin": -1, "vmax": 1, "square": True, "cbar": False}
    look |= {"annot": True, "fmt": ".2f", "annot_kws": {"fontsize": 6.5}}
    look |= {"xticklabels": list(names), "yticklabels": list(names)}
    return sns.heatmap(values, linewidths=0.5, ax=ax, **look)


def tradeoff(
    ax: Axes, x: Sequence[np.ndarray], y: Sequence[np.ndarray], name: str
) -> Axes:
    """A method's path as one setting is turned: means, with the range over seeds.

    Args:
        ax: The axes to draw on.
        x: A setting after another, `(S,)` values of its S seeds.
        y: Values up, in the same settings and seeds.
        name: The method.
    """
    look = method_style(name)
    across, up = ([np.asarray(v, float) for v in values] for values in (x, y))
    means = [np.array([v.mean() for v in values]) for values in (across, up)]
    spread = [
        np.array([[abs(v.min() - v.mean()), v.max() - v.mean()] for v in values]).T
        for values in (across, up)
    ]
    thin = {"elinewidth": 0.6, "linewidth": 0.8, "markersize": 4}
    ax.errorbar(*means, xerr=spread[0], yerr=spread[1], label=name, **thin, **look)
    # The last setting is filled, so that a path has a direction.
    ax.plot(means[0][:-1], means[1][:-1], "o", color="w", markersize=2, zorder=3)
    return ax


def intervals(ax: Axes, table: pd.DataFrame) -> Axes:
    """Values with their intervals, one below the other.

    Args:
        ax: The axes to draw on.
        table: A row each; columns value, low and high.
    """
    rows = np.arange(len(table))[::-1]
    value, low, high = table.to_numpy(float).T
    ax.axvline(0, color="0.7", linewidth=0.6)
    ax.errorbar(value, rows, xerr=[value - low, high - value], fmt="ko", markersize=3)
    ax.set(yticks=rows, yticklabels=list(table.index))
    return ax


def forest(ax: Axes, table: pd.DataFrame) -> Axes:
    """Contrasts with their intervals, over the region that is claimed of them.

    Filled where the interval lies on one side of the region's edge.

    Args:
        ax: Where; on it a region without end goes to the edge.
        table: A row each, from the top; columns value, low, high, least, most.
    """
    rows = np.arange(len(table))[::-1]
    value, low, high, least, most = (
        table[n].to_numpy(float) for n in ("value", "low", "high", "least", "most")
    )
    decided = (low > least) & (high < most) | (high < least) | (low > most)
    ax.errorbar(value, rows, xerr=[value - low, high - value], fmt="none", ecolor="k")
    ax.scatter(value, rows, 16, np.where(decided, "k", "w"), edgecolors="k", zorder=3)
    edges = [edge for edge in (least[0], most[0]) if np.isfinite(edge)]
    ax.update_datalim([(edge, 0) for edge in edges])
    ax.set(yticks=rows, yticklabels=list(table.index), ylim=(-0.6, len(rows) - 0.4))
    ax.margins(x=0.1)
    ax.autoscale_view()
    ends = ax.get_xlim()
    claimed = max(least[0], ends[0]), min(most[0], ends[1])
    ax.axvspan(*claimed, color=SERIES[3], alpha=0.2, linewidth=0)
    ax.set_xlim(ends)
    return ax
