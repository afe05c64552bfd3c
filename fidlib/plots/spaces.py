"""Pictures of spaces on given axes: features, prototypes, regions, maps."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.offsetbox import AnnotationBbox, OffsetImage

from fidlib.palette import class_colors

Extent = tuple[float, float, float, float]
"""Left, right, bottom, top."""


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
        figure: The figure to draw on.
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
        cross: dict[str, Any] = {"marker": "x", "linestyle": "", "color": "k"}
        handles.append(Line2D([], [], label="trigger", **cross))
    if arrows:
        arrow = {"marker": r"$\rightarrow$", "linestyle": "", "markersize": 8}
        arrow |= {"color": "k", "label": "displacement from the host"}
        handles.append(Line2D([], [], **arrow))
    below: dict[str, Any] = {"handles": handles, "loc": "outside lower center"}
    below |= {"handletextpad": 0.1, "columnspacing": 0.9}
    for columns in range(min(len(handles), 12), 0, -1):
        legend = figure.legend(ncols=columns, **below)
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
        ax: The axes to draw on.
        xy: `(N, 2)`.
        labels: `(N,)` class indices.
        num_classes: K, which the colours are for.
        extent: Axis limits, the same for panels to be compared.
        prototypes: `(K, 2)` rows of the head, drawn as rays from the origin.
        triggers: `(T, 2)` features of triggers, drawn as black crosses.
    """
    colors = class_colors(num_classes)
    order = np.random.default_rng(0).permutation(len(xy))  # no class on top
    dots = {"s": np.clip(4000 / len(xy), 2, 6), "linewidths": 0, "alpha": 0.6}
    shades = [colors[k] for k in labels[order]]
    ax.scatter(*xy[order].T, c=shades, rasterized=True, **dots)
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
        ax: The axes to draw on.
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
        ax: The axes to draw on.
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
    ax.set(xlim=extent[:2], ylim=extent[2:], aspect="equal")
    return ax


def regions(ax: Axes, labels: np.ndarray, extent: Extent, *, num_classes: int) -> Axes:
    """Decision regions, one pale class colour each, with their boundary.

    Args:
        ax: The axes to draw on.
        labels: `(R, R)` class indices, lowest row first; below 0 is left white, for
            nobody was asked there.
        extent: Of the grid.
        num_classes: K, which the colours are for.
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
        ax: The axes to draw on.
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
        ax: The axes to draw on.
        xy: `(A, 2)` their coordinates in the plane.
        images: `(A, C, H, W)` pixels in [0, 1].
    """
    center = xy.mean(0)
    for point, image in zip(xy, images, strict=True):
        picture = image.transpose(1, 2, 0).clip(0, 1).squeeze()
        thumb = OffsetImage(picture, zoom=18 / image.shape[-1], cmap="gray_r")
        thumb.image.axes = ax
        away = (point - center) / np.linalg.norm(point - center)
        beside = {"xybox": tuple(away * 16), "boxcoords": "offset points"}
        frame = {"pad": 0.1, "bboxprops": {"linewidth": 0.5}}
        ax.add_artist(AnnotationBbox(thumb, point, **beside, **frame))
        ax.plot(*point, "ko", markersize=2)
    return ax
