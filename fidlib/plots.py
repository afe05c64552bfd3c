"""Draws arrays on axes; numpy and matplotlib, never torch.

Every function draws on the axes it is given and returns them; nothing here computes a
measure, saves, shows or reads a file.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.offsetbox import AnnotationBbox, OffsetImage

from fidlib import palette
from fidlib.palette import method_style

SINGLE = 3.3
"""Width of a single-column figure, inches."""
DOUBLE = 6.9
"""Width of a double-column figure, inches."""

Extent = tuple[float, float, float, float]
"""Left, right, bottom, top."""


def use_style() -> None:
    """House style: 8 pt text, thin axes without top and right spine, 200 dpi."""
    sns.set_theme(context="paper", style="ticks")
    mpl.rcParams.update(
        {
            "font.size": 8,
            "axes.titlesize": 8,
            "axes.labelsize": 8,
            "xtick.labelsize": 7,
            "ytick.labelsize": 7,
            "legend.fontsize": 7,
            "legend.frameon": False,
            "axes.linewidth": 0.6,
            "xtick.major.width": 0.6,
            "ytick.major.width": 0.6,
            "xtick.major.size": 2.5,
            "ytick.major.size": 2.5,
            "xtick.major.pad": 2,
            "ytick.major.pad": 2,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "lines.linewidth": 1.2,
            "figure.constrained_layout.use": True,
            "figure.dpi": 110,
            "savefig.dpi": 200,
        }
    )


def class_colors(count: int) -> list:
    """`count` colours, colour-blind safe up to ten; neighbours are far apart in hue."""
    return [to_rgb(color) for color in palette.class_colors(count)]


def curves(ax: Axes, lines: Mapping[str, pd.Series], *, log: bool = False) -> Axes:
    """One line a method against the share of its training that is done.

    Args:
        ax: Where.
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


def legend_below(figure: Figure, ax: Axes, columns: int) -> None:
    """One legend, of one of its axes, for a whole figure."""
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=columns)


def classes_below(
    figure: Figure,
    classes: Sequence[str],
    *,
    present: Iterable[int] | None = None,
    triggers: bool = False,
    arrows: bool = False,
) -> None:
    """Colours of the classes, what crosses and arrows are, for a whole figure.

    Args:
        figure: Where.
        classes: Names of all K classes.
        present: Those in the picture; None: all. More than 20 are counted, not named.
        triggers: There are crosses.
        arrows: There are arrows.
    """
    dot = {"marker": "o", "linestyle": "", "markersize": 4}
    colors = class_colors(len(classes))
    named = sorted(range(len(classes)) if present is None else {*present})
    handles = [Line2D([], [], color=colors[k], label=classes[k], **dot) for k in named]
    if len(named) > 20:
        several = f"image, in the colour of its class ({len(named)})"
        handles = [Line2D([], [], color="0.6", label=several, **dot)]
    if triggers:
        handles.append(
            Line2D([], [], color="k", marker="x", linestyle="", label="trigger")
        )
    if arrows:
        arrow = {"marker": r"$\rightarrow$", "linestyle": "", "markersize": 8}
        arrow |= {"color": "k", "label": "displacement from the host"}
        handles.append(Line2D([], [], **arrow))
    for columns in range(min(len(handles), 12), 0, -1):
        legend = figure.legend(
            handles=handles,
            loc="outside lower center",
            ncols=columns,
            handletextpad=0.1,
            columnspacing=0.9,
        )
        if columns == 1 or legend.get_window_extent().width <= figure.bbox.width:
            break
        legend.remove()


def square_extent(points: Iterable[np.ndarray]) -> Extent:
    """The smallest square around the origin and several sets of points, with some room.

    On either side half a hundredth of a set, the farthest, may lie outside.

    Args:
        points: Arrays `(N, 2)`.
    """
    everything = [np.zeros((1, 2)), *(np.asarray(xy) for xy in points)]
    low = np.min([np.quantile(xy, 0.005, axis=0) for xy in everything], axis=0)
    high = np.max([np.quantile(xy, 0.995, axis=0) for xy in everything], axis=0)
    (x, y), half = (low + high) / 2, 0.58 * float((high - low).max())
    return x - half, x + half, y - half, y + half


def close_up(ax: Axes, extent: Extent, *, size: float = 0.56) -> Axes:
    """An inset for a small part of square axes, in the corner farthest from the part.

    Args:
        ax: Where; its limits are set.
        extent: The part, outlined on the axes.
        size: Of the inset, as a fraction of the axes.

    Returns:
        The inset, its limits set, to be drawn on.
    """
    limits = np.reshape([*ax.get_xlim(), *ax.get_ylim()], (2, 2))
    middle = np.reshape(extent, (2, 2)).mean(1)
    corner = np.where(middle > limits.mean(1), 0, 1 - size)
    inset = ax.inset_axes((*corner, size, size), xticks=[], yticks=[])
    inset.set(xlim=extent[:2], ylim=extent[2:])
    inset.spines[:].set(visible=True, color="0.5")
    ax.indicate_inset_zoom(inset, edgecolor="0.5", alpha=1)
    return inset


def features(
    ax: Axes,
    xy: np.ndarray,
    labels: np.ndarray,
    *,
    num_classes: int,
    extent: Extent,
    prototypes: np.ndarray | None = None,
    triggers: np.ndarray | None = None,
) -> Axes:
    """Two-dimensional features, coloured by class.

    Args:
        ax: Where.
        xy: `(N, 2)`.
        labels: `(N,)` class indices.
        num_classes: K.
        extent: Axis limits, the same for panels to be compared.
        prototypes: `(K, 2)` rows of the head, drawn as rays from the origin.
        triggers: `(T, 2)` features of triggers, drawn as black crosses.
    """
    colors = class_colors(num_classes)
    order = np.random.default_rng(0).permutation(len(xy))  # no class on top
    ax.scatter(
        *xy[order].T,
        c=[colors[k] for k in labels[order]],
        s=np.clip(4000 / len(xy), 2, 6),
        linewidths=0,
        alpha=0.6,
        rasterized=True,
    )
    if triggers is not None:
        thin = {"marker": "x", "s": 4, "linewidths": 0.35, "alpha": 0.6}
        ax.scatter(*triggers.T, c="k", rasterized=True, **thin)
    if prototypes is not None:
        reach = 3 * np.abs(extent).max()
        for color, prototype in zip(colors, prototypes, strict=True):
            x, y = prototype / np.linalg.norm(prototype) * reach
            ax.plot([0, x], [0, y], color=color, linewidth=0.6, alpha=0.7, zorder=0.5)
    ax.set(xlim=extent[:2], ylim=extent[2:], aspect="equal")
    return ax


def caption(ax: Axes, numbers: Mapping[str, float]) -> Axes:
    """Named numbers below the axes, small, two a line."""
    words = [f"{name} {value:.3f}" for name, value in numbers.items()]
    lines = [", ".join(words[i : i + 2]) for i in range(0, len(words), 2)]
    ax.set_xlabel("\n".join(lines), fontsize=6.5, color="0.35")
    return ax


def displacements(
    ax: Axes,
    before: np.ndarray,
    after: np.ndarray,
    *,
    labels: np.ndarray | None = None,
    num_classes: int = 0,
) -> Axes:
    """Arrows from where the host puts images to where the marked model does.

    Args:
        ax: Where.
        before: `(N, 2)` under the host.
        after: `(N, 2)` under the marked model, on the same map.
        labels: `(N,)` class indices, for the arrows' colours; None for triggers, whose
            arrows are black and pale.
        num_classes: K, with labels.
    """
    look: dict[str, Any] = {"color": "k", "alpha": 0.2}
    if labels is not None:
        colors = class_colors(num_classes)
        look = {"color": [colors[k] for k in labels], "alpha": 0.6}
    head = {"headwidth": 5, "headlength": 6, "headaxislength": 5, "minlength": 0}
    thin = {"units": "inches", "width": 0.006} | head
    in_data = {"angles": "xy", "scale_units": "xy", "scale": 1}
    ax.quiver(*before.T, *(after - before).T, **look, **thin, **in_data)
    return ax


def prototypes(
    ax: Axes, marked: np.ndarray, host: np.ndarray, *, extent: Extent
) -> Axes:
    """Prototypes as arrows from the origin: the host's dashed under the marked's.

    Args:
        ax: Where.
        marked: `(K, 2)` rows of the head.
        host: `(K, 2)` of the host.
        extent: Axis limits, the same for panels to be compared.
    """
    for color, before, after in zip(class_colors(len(host)), host, marked, strict=True):
        for (x, y), line in ((before, (0, (2, 1.5))), (after, "-")):
            arrow = {"arrowstyle": "-|>", "linestyle": line, "mutation_scale": 6}
            arrow |= {"color": color, "linewidth": 1, "shrinkA": 0, "shrinkB": 0}
            if line != "-":
                arrow |= {"alpha": 0.55, "linewidth": 1.6}
            ax.annotate("", xy=(x, y), xytext=(0, 0), arrowprops=arrow)
    ax.set(xlim=extent[:2], ylim=extent[2:])
    ax.set_aspect("equal")
    return ax


def regions(ax: Axes, labels: np.ndarray, extent: Extent, *, num_classes: int) -> Axes:
    """Decision regions, one pale class colour each, with their boundary.

    Args:
        ax: Where.
        labels: `(R, R)` class indices, lowest row first; below 0 is left white, for
            nobody was asked there.
        extent: Of the grid.
        num_classes: K.
    """
    pale = ListedColormap([(*to_rgb(c), 0.35) for c in class_colors(num_classes)])
    asked = np.ma.masked_less(labels, 0)
    _cells(ax, asked, extent, cmap=pale, vmin=-0.5, vmax=num_classes - 0.5)
    _outline(ax, asked, extent)
    return ax


def disagreement(
    ax: Axes, differs: np.ndarray, labels: np.ndarray, extent: Extent
) -> Axes:
    """Where two classifiers name different classes, in black, on the host's boundary.

    Args:
        ax: Where.
        differs: `(R, R)` bool.
        labels: `(R, R)` the host's classes, for the lines; below 0 is left white.
        extent: Of the grid.
    """
    shades = ListedColormap(["#f4f4f4", "#111111"])
    asked = np.ma.masked_less(labels, 0)
    shown = np.ma.array(differs.astype(int), mask=asked.mask)
    _cells(ax, shown, extent, cmap=shades, vmin=0, vmax=1)
    _outline(ax, asked, extent)
    return ax


def _cells(ax: Axes, values: np.ndarray, extent: Extent, **look: Any) -> None:
    """A cell round every point of a grid, cut at the outermost points.

    None where a value is masked.
    """
    left, right, bottom, top = extent
    x = (right - left) / (2 * values.shape[1] - 2)
    y = (top - bottom) / (2 * values.shape[0] - 2)
    edges = left - x, right + x, bottom - y, top + y
    look |= {"origin": "lower", "interpolation": "nearest", "aspect": "equal"}
    ax.imshow(values, extent=edges, **look)
    ax.set(xlim=(left, right), ylim=(bottom, top))


def _outline(ax: Axes, labels: np.ma.MaskedArray, extent: Extent) -> None:
    """Lines between classes, none between a class and what is masked."""
    x = np.linspace(*extent[:2], labels.shape[1])
    y = np.linspace(*extent[2:], labels.shape[0])
    for value in np.unique(labels.compressed()):
        inside = labels == value
        if not inside.all():
            ax.contour(x, y, inside, [0.5], colors="0.35", linewidths=0.35)


def anchors(ax: Axes, xy: np.ndarray, images: np.ndarray) -> Axes:
    """The images a plane goes through, as thumbnails beside their points.

    Args:
        ax: Where.
        xy: `(A, 2)` their coordinates in the plane.
        images: `(A, C, H, W)` pixels in [0, 1].
    """
    center = xy.mean(0)
    for point, image in zip(xy, images, strict=True):
        picture = image.transpose(1, 2, 0).clip(0, 1).squeeze()
        thumb = OffsetImage(picture, zoom=18 / image.shape[-1], cmap="gray_r")
        thumb.image.axes = ax
        away = (point - center) / np.linalg.norm(point - center)
        ax.add_artist(
            AnnotationBbox(
                thumb,
                point,
                xybox=tuple(away * 16),
                boxcoords="offset points",
                pad=0.1,
                bboxprops={"linewidth": 0.5},
            )
        )
        ax.plot(*point, "ko", markersize=2)
    return ax


def against(
    ax: Axes, x: Sequence[float], y: Sequence[float], names: Sequence[str]
) -> Axes:
    """One measure against another on logarithmic axes, a named marker a method.

    A value of 0 has no place on such an axis: its marker is hollow, at the lower end,
    and a 0 stands beside it.

    Args:
        ax: Where.
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
    x: Sequence[Sequence[float]],
    y: Sequence[Sequence[float]],
    names: Sequence[str],
) -> Axes:
    """How far two measures of each method range over seeds: a cross round the mean.

    What the hollow marker is goes to the legend.

    Args:
        ax: Where.
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


def floors(
    ax: Axes, x: Sequence[float], y: Sequence[float], names: Sequence[str]
) -> Axes:
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
        ax: Where.
        values: `(V,)`, V at least 1.
        name: What they are.
    """
    grey = method_style("retrained")["color"]
    ax.axhspan(min(values), max(values), color=grey, alpha=0.25, linewidth=0)
    ax.axhline(
        float(np.mean(values)), color=grey, linewidth=0.7, linestyle="--", label=name
    )
    return ax


def yardstick(
    ax: Axes, changed: Sequence[float], values: Sequence[float], kinds: Sequence[str]
) -> Axes:
    """A measure against changed answers, a marker for each kind of change.

    Both axes are logarithmic, that of the answers down to .01 and from there straight
    to 0; a measure of 0 is drawn at its axis' lower end, hollow.

    Args:
        ax: Where.
        changed: `(M,)` shares of answers that change, in [0, 1].
        values: `(M,)` of the measure, 0 or more.
        kinds: M kinds; equal ones share colour and marker, in order of appearance.
    """
    frame = pd.DataFrame({"x": changed, "y": values, "kind": kinds})
    floor = frame.y[frame.y > 0].min() / 4 if (frame.y > 0).any() else 1e-6
    colors = (*palette.SERIES, *palette.OTHERS)
    looks = zip(colors, "os^Dv*XP", strict=True)
    for (kind, rows), (color, marker) in zip(
        frame.groupby("kind", sort=False), looks, strict=False
    ):
        ax.scatter(
            rows.x,
            rows.y.clip(lower=floor),
            s=16,
            marker=marker,
            edgecolors=color,
            facecolors=[color if y else "none" for y in rows.y],
            linewidths=0.8,
            label=kind,
        )
    ax.set_yscale("log")
    ax.set_xscale("symlog", linthresh=0.01)
    ax.set_xticks([0, 0.01, 0.1, 1], ["0", ".01", ".1", "1"])
    ax.tick_params(labelbottom=True)
    ax.margins(0.1)
    return ax


def bars(ax: Axes, lengths: pd.DataFrame, *, stacked: bool = False) -> Axes:
    """Horizontal bars, a group a row from the top, a colour a column.

    Args:
        ax: Where.
        lengths: Indexed by name, a column a series.
        stacked: Each row's bars end to end rather than below each other.
    """
    colors = list(palette.SERIES[: lengths.shape[1]])
    lengths.plot.barh(ax=ax, stacked=stacked, color=colors, width=0.75, legend=False)
    ax.invert_yaxis()
    ax.set_ylabel("")
    return ax


def correlations(ax: Axes, values: np.ndarray, names: Sequence[str]) -> Axes:
    """A square of rank correlations, blue for -1 over white to red for 1.

    Args:
        ax: Where.
        values: `(M, M)`.
        names: M measures.
    """
    ax.set_anchor("E")  # room for the names at the left
    return sns.heatmap(
        values,
        annot=True,
        fmt=".2f",
        vmin=-1,
        vmax=1,
        cmap="vlag",
        square=True,
        cbar=False,
        linewidths=0.5,
        annot_kws={"fontsize": 6.5},
        xticklabels=list(names),
        yticklabels=list(names),
        ax=ax,
    )


def tradeoff(
    ax: Axes, x: Sequence[np.ndarray], y: Sequence[np.ndarray], name: str
) -> Axes:
    """A method's path as one setting is turned: means, with the range over seeds.

    Args:
        ax: Where.
        x: A setting after another, `(S,)` values of its S seeds.
        y: Likewise.
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
        ax: Where.
        table: A row each; columns value, low and high.
    """
    rows = np.arange(len(table))[::-1]
    value, low, high = table.to_numpy(float).T
    ax.axvline(0, color="0.7", linewidth=0.6)
    ax.errorbar(value, rows, xerr=[value - low, high - value], fmt="ko", markersize=3)
    ax.set(yticks=rows, yticklabels=list(table.index))
    return ax
