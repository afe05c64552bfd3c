import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from fidlib import plots

rng = np.random.default_rng(0)
XY, LABELS = rng.normal(size=(60, 2)), np.arange(60) % 10


def test_features_draw_every_point_in_its_class_colour(ax):
    plots.features(
        ax, XY, LABELS, num_classes=10, triggers=XY[:7], extent=(-3, 3, -2, 2)
    )
    points, crosses = ax.collections
    colors = [mpl.colors.to_rgb(c) for c in plots.class_colors(10)]
    drawn = {
        tuple(np.round(p, 6)): tuple(c[:3])
        for p, c in zip(points.get_offsets(), points.get_facecolors(), strict=True)
    }
    assert len(drawn) == 60
    for point, label in zip(XY, LABELS, strict=True):
        assert drawn[tuple(np.round(point, 6))] == pytest.approx(colors[label])
    assert np.allclose(crosses.get_offsets(), XY[:7])
    assert tuple(crosses.get_edgecolors()[0][:3]) not in set(colors)
    assert (ax.get_xlim(), ax.get_ylim()) == ((-3, 3), (-2, 2))
    assert ax.get_aspect() == 1


def test_features_draw_prototypes_as_rays_from_the_origin(ax):
    prototypes = rng.normal(size=(10, 2))
    plots.features(
        ax, XY, LABELS, num_classes=10, prototypes=prototypes, extent=(-3, 3, -3, 3)
    )
    for line, prototype in zip(ax.lines, prototypes, strict=True):
        start, end = line.get_xydata()
        assert start.tolist() == [0, 0]
        assert np.linalg.norm(end) == pytest.approx(9)
        assert end @ prototype == pytest.approx(9 * np.linalg.norm(prototype))


def test_displacements_lead_from_host_to_marked_in_the_class_colour(ax):
    after = XY + rng.normal(size=XY.shape)
    after[0] = XY[0]  # what has not moved must not fail
    plots.displacements(ax, XY, after, labels=LABELS, num_classes=10)
    plots.displacements(ax, XY, after)
    images, triggers = ax.collections
    for arrows in (images, triggers):
        assert np.allclose(arrows.get_offsets(), XY)
        ends = arrows.get_offsets() + np.stack([arrows.U, arrows.V], 1)
        assert np.allclose(ends, after)
        assert (arrows.angles, arrows.scale_units, arrows.scale) == ("xy", "xy", 1)
    for color, label in zip(images.get_facecolors(), LABELS, strict=True):
        expected = mpl.colors.to_rgb(plots.class_colors(10)[label])
        assert tuple(color[:3]) == pytest.approx(expected)
    assert tuple(triggers.get_facecolors()[0][:3]) == (0, 0, 0)


def test_close_up_enlarges_a_part_in_the_farthest_corner(ax):
    ax.set(xlim=(0, 10), ylim=(0, 10))
    for part, corner in {(1, 2, 7, 8): (0.5, 0), (8, 9, 1, 2): (0, 0.5)}.items():
        inset = plots.close_up(ax, part, size=0.5)
        assert (*inset.get_xlim(), *inset.get_ylim()) == part
        ax.figure.canvas.draw()
        where = ax.transAxes.inverted().transform_bbox(inset.get_window_extent())
        assert np.allclose([where.p0, where.size], [corner, (0.5, 0.5)], atol=1e-6)


def test_caption_writes_two_named_numbers_a_line(ax):
    plots.caption(ax, {"kNN kept": 0.25, "residual": 0.0314, "trust": 1})
    assert ax.get_xlabel() == "kNN kept 0.250, residual 0.031\ntrust 1.000"


def test_prototypes_draw_the_host_dashed_under_the_marked(ax):
    host, marked = rng.normal(size=(2, 4, 2))
    plots.prototypes(ax, marked, host, extent=(-4, 5, -6, 7))
    arrows = [(tuple(a.xy), a.arrow_patch.get_linestyle()) for a in ax.texts]
    dashed = [xy for xy, style in arrows if style != "-"]
    solid = [xy for xy, style in arrows if style == "-"]
    assert np.allclose(dashed, host)
    assert np.allclose(solid, marked)
    assert (ax.get_xlim(), ax.get_ylim()) == ((-4, 5), (-6, 7))


def test_regions_share_colours_with_the_points(ax):
    labels = np.arange(16).reshape(4, 4) % 5
    plots.regions(ax, labels, (0.0, 1.0, 0.0, 1.0), num_classes=5)
    (image,) = ax.images
    shown = image.cmap(image.norm(labels))[..., :3]
    for k, color in enumerate(plots.class_colors(5)):
        assert np.allclose(shown[labels == k], mpl.colors.to_rgb(color), atol=0.01)
    assert image.origin == "lower"


def test_regions_leave_white_where_nobody_was_asked(ax):
    labels = np.array([[0, 0, 1, -1], [0, 1, -1, -1], [1, -1, -1, -1]])
    plots.regions(ax, labels, (0.0, 3.0, 0.0, 2.0), num_classes=2)
    plots.disagreement(ax, labels != 0, labels, (0.0, 3.0, 0.0, 2.0))
    for image in ax.images:
        seen = image.to_rgba(image.get_array())[..., 3] > 0
        assert np.array_equal(seen, labels >= 0)
    assert mpl.colors.to_rgb(ax.get_facecolor()) == (1, 1, 1)
    # A line between the two classes, none between a class and where nobody was asked.
    for line in ax.collections:
        points = np.concatenate([path.vertices for path in line.get_paths()])
        assert len(points)
        assert np.all(points.sum(1) < 2)


def test_a_cell_lies_round_its_point(ax):
    labels = np.tile([0, 1, 1, 1, 1], (3, 1))  # across: points at 0, 1, 2, 3, 4
    plots.regions(ax, labels, (0.0, 4.0, 0.0, 2.0), num_classes=2)
    assert ax.images[0].get_extent() == [-0.5, 4.5, -0.5, 2.5]
    assert (ax.get_xlim(), ax.get_ylim()) == ((0, 4), (0, 2))
    (line, _) = ax.collections  # of either class, half way between the first two
    assert np.allclose(np.concatenate(line.get_paths()[0].to_polygons())[:, 0], 0.5)


def test_disagreement_marks_where_the_models_differ(ax):
    differs = np.eye(4, dtype=bool)
    plots.disagreement(ax, differs, np.zeros((4, 4), int), (0.0, 1.0, 0.0, 1.0))
    assert np.array_equal(ax.images[0].get_array().astype(bool), differs)


def test_anchors_draw_a_thumbnail_at_each_point(ax):
    images = rng.random((3, 1, 8, 8))
    plots.anchors(ax, XY[:3], images)
    boxes = [a for a in ax.artists if isinstance(a, mpl.offsetbox.AnnotationBbox)]
    assert np.allclose([box.xy for box in boxes], XY[:3])
    assert np.allclose(boxes[1].offsetbox.get_data(), images[1, 0])


def test_square_extent_holds_nearly_all_points_of_every_set():
    sets = [XY, XY * 5 + 2]
    left, right, bottom, top = plots.square_extent(sets)
    for xy in sets:
        inside = (xy > [left, bottom]).all(1) & (xy < [right, top]).all(1)
        assert inside.mean() > 0.95


def test_square_extent_is_the_smallest_square_with_the_origin():
    away = XY + np.array([40, 5])
    left, right, bottom, top = plots.square_extent([away])
    assert right - left == pytest.approx(top - bottom)
    assert left < 0 < 40 < right < 55
    assert bottom < 0 < top
    assert np.mean((away > [left, bottom]) & (away < [right, top])) > 0.95
    assert left > -6  # no half of the square is left to the other side


def test_classes_and_methods_are_named_below(ax):
    plots.curves(ax, {"FTAL": pd.Series([1.0], index=[0])})
    plots.legend_below(ax.figure, ax, columns=2)
    plots.classes_below(ax.figure, ["a", "b"], triggers=True)
    plots.classes_below(ax.figure, ["a"], arrows=True)
    texts = [[t.get_text() for t in legend.texts] for legend in ax.figure.legends]
    named = ["a", "displacement from the host"]
    assert texts == [["FTAL"], ["a", "b", "trigger"], named]


def test_many_classes_are_counted_and_few_of_many_named(ax):
    names = [f"class {k}" for k in range(100)]
    plots.classes_below(ax.figure, names, triggers=True)
    plots.classes_below(ax.figure, names, present=[7, 2, 7])
    texts = [[t.get_text() for t in legend.texts] for legend in ax.figure.legends]
    assert texts[0] == ["image, in the colour of its class (100)", "trigger"]
    assert texts[1] == ["class 2", "class 7"]
    shown = [h.get_color() for h in ax.figure.legends[1].legend_handles]
    assert shown == [plots.class_colors(100)[k] for k in (2, 7)]


def test_long_names_of_classes_stay_on_the_picture(ax):
    figure = ax.figure
    plots.classes_below(figure, ["automobile"] * 10, triggers=True, arrows=True)
    (legend,) = figure.legends
    figure.draw_without_rendering()
    ends = legend.get_window_extent()
    assert figure.bbox.x0 <= ends.x0 < ends.x1 <= figure.bbox.x1
    assert len(legend.texts) == 12
