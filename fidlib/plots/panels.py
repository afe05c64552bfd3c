"""Whole figures of several panels; of models, the host is the first."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from fidlib.palette import OTHERS, SERIES
from fidlib.plots import charts, spaces
from fidlib.plots.spaces import Extent
from fidlib.plots.style import DOUBLE

Places = Mapping[str, np.ndarray]
"""Model -> `(N + T, 2)`: where it puts N images, then T triggers."""


def feature_panels(
    places: Places,
    labels: np.ndarray,
    heads: Mapping[str, np.ndarray],
    *,
    classes: Sequence[str],
    titles: Mapping[str, str],
    captions: pd.DataFrame,
    arrows: Iterable[str] = (),
) -> Figure:
    """Two-dimensional features, a model a panel, four a row, on the same axes.

    Where some models keep them in a small part, each of those enlarges it in a corner.

    Args:
        places: The features.
        labels: `(N,)` class indices of the images.
        heads: Model -> `(K, 2)` prototypes.
        classes: Names of all K classes.
        titles: Model -> what stands above its panel.
        captions: A row a model: the numbers below its panel, a column each.
        arrows: Four models at most, whose prototypes fill a first row.
    """
    host, count = next(iter(heads.values())), len(labels)
    figure, axs = _grid(1 + -(-len(places) // 4), 4, DOUBLE, 0.29)
    for ax, name in zip(axs[0], arrows, strict=False):
        reach = spaces.square_extent(heads.values())
        spaces.prototypes(ax, heads[name], host, extent=reach)
        ax.set_title(f"prototypes: {name}")
    seen = spaces.square_extent(places.values())
    small = {n: m for n, m in places.items() if 2.5 * np.ptp(m) < seen[1] - seen[0]}
    part = spaces.square_extent(small.values())
    for ax, (name, xy) in zip(axs[1:].flat, places.items(), strict=False):
        look: dict[str, Any] = {"labels": labels, "num_classes": len(classes)}
        look |= {"prototypes": heads[name], "triggers": xy[count:]}
        spaces.features(ax, xy[:count], extent=seen, **look)
        if name in small:
            inset = spaces.close_up(ax, part)
            spaces.features(inset, xy[:count], extent=part, **look)
        ax.set_title(titles[name])
        spaces.caption(ax, captions.loc[name].dropna())
    for ax in axs[:, 1:].flat:
        ax.tick_params(labelleft=False)
    for ax in axs.flat:
        ax.axis("on" if ax.get_title() else "off")
    spaces.classes_below(figure, classes, triggers=True)
    return figure


def map_panels(
    maps: Mapping[str, Places],
    labels: np.ndarray,
    moved: Mapping[str, np.ndarray],
    *,
    classes: Sequence[str],
    titles: Mapping[str, str],
    captions: pd.DataFrame,
    sides: Mapping[str, str],
) -> Figure:
    """Features on common maps, a map a row, a model a column.

    Args:
        maps: Map -> where it puts every model's features.
        labels: `(N,)` class indices of the images.
        moved: Model -> images from which an arrow leads; its triggers have one each.
        classes: Names of all K classes.
        titles: Model -> what stands above its panels.
        captions: A row a map and model: the numbers below, a column each.
        sides: Map -> what stands at its left.
    """
    count, models = len(labels), list(next(iter(maps.values())))
    figure, axs = _grid(len(maps), len(models), DOUBLE * max(len(models) / 4, 1), 0.31)
    look: dict[str, Any] = {"labels": labels, "num_classes": len(classes)}
    for row, (kind, places) in zip(axs, maps.items(), strict=True):
        seen, before = spaces.square_extent(places.values()), places[models[0]]
        for ax, (name, xy) in zip(row, places.items(), strict=True):
            spaces.features(ax, xy[:count], extent=seen, triggers=xy[count:], **look)
            if name in moved:
                far = moved[name]
                color = {"labels": labels[far], "num_classes": len(classes)}
                spaces.displacements(ax, before[count:], xy[count:])
                spaces.displacements(ax, before[far], xy[far], **color)
            ax.set_title(titles[name])
            ax.tick_params(labelleft=ax is row[0])
            spaces.caption(ax, captions.loc[(kind, name)].dropna())
            if kind == "umap":
                ax.set(xticks=[], yticks=[])  # its units mean nothing
        row[0].set_ylabel(sides[kind])
    spaces.classes_below(figure, classes, triggers=True, arrows=True)
    return figure


def boundary_panels(
    regions: Mapping[str, np.ndarray],
    shares: Mapping[str, float],
    extents: Mapping[str, Extent],
    *,
    classes: Sequence[str],
    points: tuple[Mapping[str, np.ndarray], np.ndarray] | None = None,
    heads: Mapping[str, np.ndarray] | None = None,
    anchors: tuple[np.ndarray, np.ndarray] | None = None,
) -> Figure:
    """A row a marked model: the host's regions, its own, and where the two differ.

    Args:
        regions: Marked model -> `(2, R, R)` the classes that the host and it name on
            one grid; below 0 nobody was asked.
        shares: Marked model -> the share of the points on which they differ.
        extents: Marked model -> that of its grid.
        classes: Names of all K classes.
        points: Images to draw on the regions: model, `host` too -> `(N, 2)`, and their
            `(N,)` class indices.
        heads: Model, `host` too -> `(K, 2)` prototypes to draw with the points.
        anchors: `(A, 2)` and `(A, C, H, W)`: images that the plane goes through.
    """
    size = (DOUBLE * 0.8, 1.9 * len(regions) + 0.4)
    figure, axs = plt.subplots(len(regions), 3, figsize=size, squeeze=False)
    pad, count = (6 if anchors is None else 27), len(classes)  # room for thumbnails
    for row, (name, both) in zip(axs, regions.items(), strict=True):
        for ax, model, grid in zip(row, ("host", name), both, strict=False):
            spaces.regions(ax, grid, extents[name], num_classes=count)
            if points is not None:
                look: dict[str, Any] = {"num_classes": count, "extent": extents[name]}
                look["prototypes"] = heads and heads[model]
                spaces.features(ax, points[0][model], points[1], **look)
            if anchors is not None:
                spaces.anchors(ax, *anchors)
            ax.set_title(model, pad=pad)
        spaces.disagreement(row[2], both[0] != both[1], both[0], extents[name])
        row[2].set_title(f"differ: {shares[name]:.1%}", pad=pad)
    for ax in axs.flat:
        ax.set(xticks=[], yticks=[], frame_on=anchors is None)
    present = [np.unique(both) for both in regions.values()]
    present += [] if points is None else [points[1]]
    named = np.unique(np.concatenate(present)).astype(int)
    spaces.classes_below(figure, classes, present=named[named >= 0])
    return figure


def contact_sheet(
    rows: Mapping[str, np.ndarray], labels: Mapping[str, Sequence[int]]
) -> Figure:
    """Some images of several sets, a set a row, each below its label.

    Args:
        rows: Set -> `(N, C, H, W)`; what is beyond [0, 1] is drawn black or white.
        labels: Set -> N of them, or more.
    """
    count = max(map(len, rows.values()))
    side = DOUBLE / (count + 1.5)
    size = (DOUBLE, 1.25 * side * len(rows))
    figure, axs = plt.subplots(len(rows), count, figsize=size, squeeze=False)
    for row, (name, images) in zip(axs, rows.items(), strict=True):
        row[0].set_ylabel(name, rotation=0, ha="right", va="center")
        for ax, image, label in zip(row, images, labels[name], strict=False):
            shown = image.transpose(1, 2, 0).clip(0, 1)
            ax.imshow(shown, cmap="gray", vmin=0, vmax=1)
            ax.set_title(str(label), pad=2)
    for ax in axs.flat:
        ax.set(xticks=[], yticks=[], frame_on=False)
    return figure


def tradeoff_panels(
    models: pd.DataFrame,
    sweeps: Mapping[str, Sequence[tuple]],
    floor: pd.DataFrame,
    *,
    methods: Iterable[str],
) -> Figure:
    """PFL and SPL against trigger accuracy, a row each; a column for what is turned.

    Args:
        models: Indexed by method, the settings and seed, sorted; columns
            `trigger_accuracy`, `pfl` and `spl`.
        sweeps: What is turned, a level of the settings -> one setting after another, a
            tuple of a value a level.
        floor: `pfl` and `spl` of honest training, a row each; may have none.
        methods: Whose paths to draw.
    """
    costs = {"pfl": "PFL", "spl": "SPL, nats"}
    size, levels = (DOUBLE, 2.2 * len(costs)), models.index.names[1:-1]
    shared: dict[str, Any] = {"sharex": True, "sharey": "row", "squeeze": False}
    figure, axs = plt.subplots(len(costs), len(sweeps), figsize=size, **shared)
    for row, (cost, title) in zip(axs, costs.items(), strict=True):
        for ax, sweep in zip(row, sweeps.values(), strict=True):
            if len(floor):
                charts.span(ax, [*floor[cost]], "hosts of other seeds")
            for name in methods:
                points = [models.loc[(name, *setting)] for setting in sweep]
                accuracies = [point.trigger_accuracy for point in points]
                charts.tradeoff(ax, accuracies, [point[cost] for point in points], name)
            ax.set_yscale("log")
        row[0].set_ylabel(title)
    for ax, (turned, sweep) in zip(axs[0], sweeps.items(), strict=True):
        values = [str(setting[levels.index(turned)]) for setting in sweep]
        ax.set_title(f"{turned} {', '.join(values)}")
    for ax in axs[-1]:
        ax.set_xlabel("trigger accuracy")
    charts.legend_below(figure, axs[0, 0], columns=3)
    return figure


def evidence_panels(
    claims: pd.DataFrame, thresholds: Mapping[str, float], units: Mapping[str, str]
) -> Figure:
    """How unlikely claims are by chance, against what they took; a panel a unit.

    Args:
        claims: Indexed by claim, several rows each; columns `unit`, `effort`, 1 or
            more, and `p`. One of a single row is drawn as a star, one that is called
            `computed` is dotted.
        thresholds: What is written beside a line across -> its p.
        units: Of the effort -> what stands above its panel.
    """
    size, count = (DOUBLE, 3.2), len(units)
    figure, axs = plt.subplots(1, count, figsize=size, sharey=True, squeeze=False)
    colors = dict(zip(claims.index.unique(), (*SERIES, *OTHERS), strict=False))
    for ax, (unit, title) in zip(axs[0], units.items(), strict=True):
        for text, p in thresholds.items():
            ax.axhline(-np.log10(p), color="0.7", linewidth=0.6, zorder=0)
            if ax is axs[0, -1]:
                beside: dict[str, Any] = {"xycoords": ("axes fraction", "data")}
                beside |= {"fontsize": 7, "color": "0.4", "va": "center"}
                ax.annotate(f" {text}", (1, -np.log10(p)), **beside)
        for name, rows in claims[claims.unit == unit].groupby(level=0, sort=False):
            look: dict[str, Any] = {"color": colors[name], "label": name}
            if len(rows) == 1:
                look |= {"marker": "*", "markersize": 9, "linestyle": ""}
            elif str(name).endswith("computed"):
                look |= {"linestyle": ":"}
            ax.step(rows.effort, -np.log10(rows.p), where="post", **look)
        ax.set(xscale="log", xlabel=unit, title=title)
        ax.legend(loc="best")
    axs[0, 0].set_yscale("symlog", linthresh=1, linscale=0.4)
    axs[0, 0].set_yticks([0, 1, 3, 10, 30, 100], ["0", "1", "3", "10", "30", "100"])
    axs[0, 0].set(ylabel=r"$-\log_{10}$ p", ylim=(-0.1, 150))
    return figure


def against_panels(
    measures: pd.DataFrame,
    titles: Mapping[str, str],
    ranges: Mapping[str, tuple[pd.DataFrame, pd.DataFrame]],
    *,
    floors: Iterable[str],
) -> Figure:
    """Measures against TWL, a panel each, two a row; a marker a method.

    Args:
        measures: A row a method; columns `TWL` and others.
        titles: Measure -> what stands above its panel.
        ranges: Measure -> TWL and the measure over seeds, a row a method, a column a
            seed; of all measures, some or none.
        floors: Methods without a watermark.
    """
    rows, honest = -(-len(titles) // 2), list(floors)
    figure, axs = plt.subplots(rows, 2, figsize=(DOUBLE, 2.6 * rows), squeeze=False)
    for ax, (measure, title) in zip(axs.flat, titles.items(), strict=False):
        pair = measures[["TWL", measure]]
        twl, values = pair.loc[honest].to_numpy().T
        charts.floors(ax, twl, values, honest)
        marked = pair.drop(index=honest)
        twl, values = marked.to_numpy().T
        charts.against(ax, twl, values, list(marked.index))
        if measure in ranges:
            across, up = ranges[measure]
            charts.ranges(ax, across.to_numpy(), up.to_numpy(), list(up.index))
        ax.set(xlabel="TWL", ylabel=measure, title=title)
    charts.legend_below(figure, axs[0, 0], columns=5)
    return figure


def shift_panels(values: pd.DataFrame, accuracy: pd.Series, title: str) -> Figure:
    """A measure against the strength of shifts, a panel each, four a row; below each
    the host's own accuracy.

    Args:
        values: Indexed by kind and strength; a column a method.
        accuracy: Of the host, indexed likewise.
        title: Of the measure.
    """
    kinds = [*dict.fromkeys(kind for kind, _ in values.index)]
    rows = -(-len(kinds) // 4)
    shared: dict[str, Any] = {"sharex": True, "sharey": "row", "squeeze": False}
    shared |= {"height_ratios": [3, 1] * rows, "figsize": (DOUBLE, 2.6 * rows + 0.4)}
    figure, axs = plt.subplots(2 * rows, 4, **shared)
    for place, kind in enumerate(kinds):
        row, column = divmod(place, 4)
        above, below = axs[2 * row : 2 * row + 2, column]
        charts.by_strength(above, values.loc[kind]).set(title=kind)
        charts.by_strength(below, accuracy.loc[kind].to_frame("host"))
        below.set(ylim=(0, 1.05), yticks=[0, 1])
    for ax in axs.flat:
        ax.axis("on" if ax.lines else "off")
    for above, below in zip(axs[::2, 0], axs[1::2, 0], strict=True):
        above.set(ylabel=title, ylim=(0, None))
        below.set_ylabel("host's\naccuracy")
    for ax in axs[-1]:
        ax.set_xlabel("strength")
    charts.legend_below(figure, axs[0, 0], columns=5)
    return figure


def correlation_panels(
    correlations: Mapping[str, pd.DataFrame], titles: Mapping[str, str]
) -> Figure:
    """Squares of rank correlations, side by side.

    Args:
        correlations: Group of models -> measures by measures.
        titles: Group -> what stands above its square.
    """
    size, count = (DOUBLE / 2 * len(correlations), 3.4), len(correlations)
    figure, axs = plt.subplots(1, count, figsize=size, squeeze=False)
    for ax, (group, values) in zip(axs.flat, correlations.items(), strict=True):
        charts.correlations(ax, values.to_numpy(), list(values))
        ax.set_title(titles[group])
    return figure


def yardstick_panels(
    changed: Sequence[float],
    measures: pd.DataFrame,
    kinds: Sequence[str],
    titles: Mapping[str, str],
) -> Figure:
    """Every measure against the answers that change, a panel each, and the legend.

    Args:
        changed: `(M,)` shares of answers that change.
        measures: The same M models; a column a measure.
        kinds: `(M,)` what has been done to them.
        titles: Measure -> what stands above its panel.
    """
    rows = len(titles) // 5 + 1  # one place is the legend's
    size = (DOUBLE, 5.2 / 3 * rows)
    figure, axs = plt.subplots(rows, 5, figsize=size, sharex=True, squeeze=False)
    for ax, (measure, title) in zip(axs.flat, titles.items(), strict=False):
        charts.yardstick(ax, changed, [*measures[measure]], kinds)
        ax.set_title(title)
    for ax in axs.flat[len(titles) :]:
        ax.set_axis_off()
    axs[-1, -1].legend(*axs[0, 0].get_legend_handles_labels(), loc="center")
    axs[-1, 2].set_xlabel(
        "share of answers that change on shifted images\n"
        "(titles: rank correlation with the share on unshifted images; on shifted ones)"
    )
    return figure


def null_space_panels(
    correlations: pd.DataFrame, parts: pd.DataFrame, share: float
) -> Figure:
    """How measures order models, and where their features have moved.

    Args:
        correlations: A row a measure; a column a group of models.
        parts: A row a model; shares of its PFL, of which the first is the null space's.
        share: The null space's of all directions.
    """
    ratio = {"width_ratios": [1, 1.2]}
    figure, axs = plt.subplots(1, 2, figsize=(DOUBLE, 4.2), gridspec_kw=ratio)
    charts.bars(axs[0], correlations)
    axs[0].set(title="rank correlation with changed answers", xlim=(-1, 1))
    axs[0].axvline(0, color="0.3", linewidth=0.6)
    charts.bars(axs[1], parts, stacked=True)
    axs[1].axvline(share, color="k", linewidth=0.8, linestyle="--")
    axs[1].set(title="where PFL lies (beside the names: PFL, SPL)", xlim=(0, 1))
    for ax in axs:
        ax.legend(loc="upper center", bbox_to_anchor=(0.4, -0.06))
    return figure


def claim_panels(contrasts: pd.DataFrame) -> Figure:
    """Contrasts of methods over hosts, a panel a claim: shaded is what is claimed.

    Args:
        contrasts: As `fidlib.claims.contrasts` gives them.
    """
    claims = contrasts.groupby(level="claim", sort=False)
    heights = [len(rows) + 1.6 for _, rows in claims]
    figure, axs = plt.subplots(
        len(heights),
        figsize=(DOUBLE, 0.22 * sum(heights)),
        gridspec_kw={"height_ratios": heights},
        squeeze=False,
    )
    for ax, (claim, rows) in zip(axs.flat, claims, strict=True):
        if rows.unit.iloc[0] == "times":
            ax.set_xscale("log")
        charts.forest(ax, rows.droplevel("claim"))
        if rows.unit.iloc[0] == "times":
            low, high = ax.get_xlim()
            wide = high > 4 * low
            ticks = LogLocator(subs=(1, 2, 3, 5)) if wide else MaxNLocator(5)
            ax.xaxis.set_major_locator(ticks)
            ax.xaxis.set_minor_locator(NullLocator())
            ax.xaxis.set_major_formatter("{x:g}")
        ax.set_title(claim, loc="left")
        ax.set_xlabel(rows.unit.iloc[0], labelpad=0)
    return figure


def _grid(
    rows: int, columns: int, width: float, height: float
) -> tuple[Figure, np.ndarray]:
    """Axes for square panels; the height of a row is a fraction of a double column."""
    size = width, DOUBLE * (height * rows + 0.04)
    return plt.subplots(rows, columns, figsize=size, squeeze=False)
