import numpy as np
import pandas as pd
import pytest
from matplotlib.offsetbox import AnnotationBbox

from fidlib import plots

rng = np.random.default_rng(0)
CLASSES = ["a", "b", "c"]
LABELS = np.arange(30) % 3
HEADS = {name: rng.normal(size=(3, 2)) for name in ("host", "FTAL", "FixLL")}
PLACES = {
    "host": rng.normal(size=(36, 2)),  # the last six are triggers
    "FTAL": 20 * rng.normal(size=(36, 2)),
    "FixLL": rng.normal(size=(36, 2)),
}
TITLES = {name: f"{name}!" for name in PLACES}


@pytest.fixture
def drawn(plt):
    """Draws a figure, which must not warn, and hands it back with its titled axes."""

    def draw(figure):
        figure.canvas.draw()
        return figure, {ax.get_title(): ax for ax in figure.axes if ax.get_title()}

    return draw


def offsets(ax):
    return [points.get_offsets() for points in ax.collections]


def test_features_of_every_model_have_a_panel_and_the_first_row_prototypes(drawn):
    numbers = pd.DataFrame({"kept": [1.0, 0.5, 0.25]}, index=list(PLACES))
    look = {"classes": CLASSES, "titles": TITLES, "captions": numbers}
    turned = ["host", "FTAL"]
    figure, axs = drawn(
        plots.feature_panels(PLACES, LABELS, HEADS, arrows=turned, **look)
    )
    assert list(axs) == ["prototypes: host", "prototypes: FTAL", *TITLES.values()]
    assert [ax.axison for ax in figure.axes[:8]] == [1, 1, 0, 0, 1, 1, 1, 0]
    panels = [axs[title] for title in TITLES.values()]
    assert len({(*ax.get_xlim(), *ax.get_ylim()) for ax in panels}) == 1
    for ax, (name, xy), kept in zip(panels, PLACES.items(), numbers.kept, strict=True):
        images, crosses = offsets(ax)
        assert {*map(tuple, images)} == {*map(tuple, xy[:30])}
        assert np.array_equal(crosses, xy[30:])
        assert ax.get_xlabel() == f"kept {kept:.3f}"
        # What stays small is enlarged, in a corner, whoever it is.
        assert len(ax.child_axes) == (name != "FTAL")
    before, after = (axs["prototypes: FTAL"].texts[i].xy for i in (0, 1))
    assert np.allclose([before, after], [HEADS["host"][0], HEADS["FTAL"][0]])
    assert [t.get_text() for t in figure.legends[0].texts] == [*CLASSES, "trigger"]


def test_maps_have_a_row_each_and_arrows_from_the_host(drawn):
    maps = {"umap": PLACES, "pca": {n: 2 * xy for n, xy in PLACES.items()}}
    numbers = pd.concat(
        {
            k: pd.DataFrame({"kept": 1.0, "seeds": [0.5, None, None]}, [*PLACES])
            for k in maps
        }
    )
    look = {"classes": CLASSES, "titles": TITLES, "captions": numbers}
    moved = {"FTAL": np.array([4, 7])}
    figure, _ = drawn(
        plots.map_panels(maps, LABELS, moved, sides={"umap": "U", "pca": "P"}, **look)
    )
    rows = np.reshape(figure.axes, (2, 3))
    assert [ax.get_ylabel() for ax in rows[:, 0]] == ["U", "P"]
    assert [len(ax.get_xticks()) > 0 for ax in rows[:, 0]] == [False, True]
    for row, places in zip(rows, maps.values(), strict=True):
        assert [ax.get_title() for ax in row] == list(TITLES.values())
        assert row[0].get_xlabel() == "kept 1.000, seeds 0.500"
        assert row[1].get_xlabel() == "kept 1.000"
        assert [len(ax.collections) for ax in row] == [2, 4, 2]
        *_, triggers, images = row[1].collections
        for arrows, which in ((triggers, slice(30, 36)), (images, moved["FTAL"])):
            ends = arrows.get_offsets() + np.stack([arrows.U, arrows.V], 1)
            assert np.allclose(arrows.get_offsets(), places["host"][which])
            assert np.allclose(ends, places["FTAL"][which])


def test_boundaries_show_host_marked_and_where_they_differ(drawn):
    host, marked = np.array([[[0, 0], [1, -1]], [[0, 1], [1, -1]]])
    regions = {"FTAL": np.stack([host, marked]), "FixLL": np.stack([host, host])}
    extents = dict.fromkeys(regions, (-1.0, 1.0, -1.0, 1.0))
    given = regions, {"FTAL": 0.25, "FixLL": 0.0}, extents
    points = {name: xy[:4] for name, xy in PLACES.items()}, np.array([0, 1, 2, 0])
    figure, _ = drawn(
        plots.boundary_panels(*given, classes=CLASSES, points=points, heads=HEADS)
    )
    rows = np.reshape(figure.axes, (2, 3))
    titles = [[ax.get_title() for ax in row] for row in rows]
    assert titles == [
        ["host", "FTAL", "differ: 25.0%"],
        ["host", "FixLL", "differ: 0.0%"],
    ]
    for row, both in zip(rows, regions.values(), strict=True):
        shown = [np.ma.filled(ax.images[0].get_array(), -1) for ax in row]
        assert np.array_equal(shown[:2], both)
        assert np.array_equal(shown[2] == 1, both[0] != both[1])
    assert {*map(tuple, rows[0, 1].collections[-1].get_offsets())} == {
        *map(tuple, points[0]["FTAL"])
    }
    assert len(rows[0, 0].lines) == len(HEADS["host"])
    assert [t.get_text() for t in figure.legends[0].texts] == CLASSES  # c: of a point


def test_boundaries_between_images_show_the_images_and_no_frame(drawn):
    labels = np.zeros((2, 2, 2), int)
    anchors = np.array([[0, 0], [1, 0], [0, 1.0]]), rng.random((3, 1, 8, 8))
    given = {"FTAL": labels}, {"FTAL": 0.0}, {"FTAL": (0.0, 1.0, 0.0, 1.0)}
    figure, axs = drawn(plots.boundary_panels(*given, classes=CLASSES, anchors=anchors))
    for name, count in {"host": 3, "FTAL": 3, "differ: 0.0%": 0}.items():
        thumbs = [a for a in axs[name].artists if isinstance(a, AnnotationBbox)]
        assert len(thumbs) == count
        assert not axs[name].get_frame_on()
    assert [t.get_text() for t in figure.legends[0].texts] == ["a"]


def test_tradeoffs_have_a_column_for_what_is_turned(drawn):
    levels = ["method", "weight", "triggers", "seed"]
    index = pd.MultiIndex.from_product([["FTAL", "FixLL"], [0.1, 0.2], [5], [0, 1]])
    numbers = rng.random((len(index), 3)) + 0.1
    columns = ["trigger_accuracy", "pfl", "spl"]
    models = pd.DataFrame(numbers, index.set_names(levels), columns)
    sweeps = {"weight": [(0.1, 5), (0.2, 5)], "triggers": [(0.2, 5)]}
    floor = pd.DataFrame({"pfl": [1.0, 3.0], "spl": [2.0, 2.0]})
    figure, axs = drawn(plots.tradeoff_panels(models, sweeps, floor, methods=["FixLL"]))
    assert list(axs) == ["weight 0.1, 0.2", "triggers 5"]
    first = axs["weight 0.1, 0.2"]
    (path,) = first.containers
    means = models.loc["FixLL"].groupby("weight").mean()
    assert np.allclose(path.lines[0].get_xydata(), means[["trigger_accuracy", "pfl"]])
    assert first.get_legend_handles_labels()[1] == ["hosts of other seeds", "FixLL"]
    assert [ax.get_ylabel() for ax in figure.axes] == ["PFL", "", "SPL, nats", ""]
    alone, _ = drawn(plots.tradeoff_panels(models, sweeps, floor[:0], methods=["FTAL"]))
    assert [t.get_text() for t in alone.legends[0].texts] == ["FTAL"]


def test_a_contact_sheet_shows_each_image_below_its_label(drawn):
    grey, colour = np.linspace(0, 1, 2 * 1 * 16), np.linspace(-1, 2, 3 * 3 * 16)
    rows = {"a": grey.reshape(2, 1, 4, 4), "b": colour.reshape(3, 3, 4, 4)}
    figure, _ = drawn(plots.contact_sheet(rows, {"a": [4, 7], "b": [0, 1, 2, 3]}))
    shown = [ax for ax in figure.axes if ax.images]
    assert [ax.get_title() for ax in shown] == ["4", "7", "0", "1", "2"]
    assert np.allclose(shown[1].images[0].get_array().squeeze(), rows["a"][1, 0])
    assert [ax.get_ylabel() for ax in figure.axes if ax.get_ylabel()] == ["a", "b"]


def test_claims_rise_with_effort_over_lines_of_levels(drawn):
    claims = pd.DataFrame(
        {
            "unit": ["steps", "steps", "keys"],
            "effort": [1, 10, 1],
            "p": [1, 1e-4, 1e-50],
        },
        index=["forger", "forger", "owner"],
    )
    levels = {"1e-3": 1e-3, "1e-9": 1e-9}
    titles = {"steps": "left", "keys": "right"}
    _, axs = drawn(plots.evidence_panels(claims, levels, titles))
    (path,) = [n for n in axs["left"].lines if n.get_label() == "forger"]
    assert np.allclose(path.get_xydata(), [[1, 0], [10, 4]])
    (star,) = [n for n in axs["right"].lines if n.get_label() == "owner"]
    assert np.allclose(star.get_xydata(), [[1, 50]])
    assert star.get_marker() == "*"
    for ax in axs.values():
        across = {float(n.get_ydata()[0]) for n in ax.lines} - {0.0, 50.0}
        assert {3.0, 9.0} <= across
        assert ax.get_xscale() == "log"
    assert [t.get_text() for t in axs["right"].texts] == [" 1e-3", " 1e-9"]


def test_measures_against_twl_have_their_floors_and_ranges(drawn):
    measures = pd.DataFrame(
        {"TWL": [1.0, 2.0, 3.0], "PFL": [4.0, 5.0, 6.0], "SPL": [7.0, 8.0, 9.0]},
        index=["FTAL", "FixLL", "retrained"],
    )
    seeds = pd.DataFrame([[1.0, 3.0]], index=["FTAL"])
    titles = {"PFL": "first", "SPL": "second"}
    _, axs = drawn(
        plots.against_panels(
            measures, titles, {"PFL": (seeds, seeds + 1)}, floors=["retrained"]
        )
    )
    for (measure, title), count in zip(titles.items(), (3, 0), strict=True):
        ax = axs[title]
        points = [tuple(map(float, p)) for line in ax.lines for p in line.get_xydata()]
        pairs = {
            name: tuple(measures.loc[name, ["TWL", measure]]) for name in measures.index
        }
        assert {*pairs.values()} <= {*points}
        assert ax.get_ylabel() == measure
        named = ax.get_legend_handles_labels()[1]
        assert named[:3] == ["retrained", "FTAL", "FixLL"]
        assert len(named) == 3 + (count > 0)


def test_shifts_have_a_panel_each_over_the_hosts_accuracy(drawn):
    kinds = ["noise", "blur", "contrast", "jpeg", "rotation"]
    index = pd.MultiIndex.from_product([kinds, [0, 1, 2]])
    values = pd.DataFrame(rng.random((15, 2)), index, ["FTAL", "FixLL"])
    accuracy = pd.Series(rng.random(15), index)
    figure, axs = drawn(plots.shift_panels(values, accuracy, "changed"))
    assert list(axs) == kinds
    assert [ax.axison for ax in figure.axes] == 9 * [1] + 3 * [0] + [1] + 3 * [0]
    for row, kind in enumerate(kinds):
        lines = [line.get_xydata() for line in axs[kind].lines]
        assert np.allclose(lines[1][:, 1], values.FixLL[kind])
        below = figure.axes[(4, 5, 6, 7, 12)[row]]
        assert np.allclose(below.lines[0].get_xydata(), np.c_[range(3), accuracy[kind]])
    assert [t.get_text() for t in figure.legends[0].texts] == ["FTAL", "FixLL"]


def test_correlations_stand_side_by_side(drawn):
    squares = {name: pd.DataFrame(np.eye(2), list("xy"), list("xy")) for name in "ab"}
    _, axs = drawn(plots.correlation_panels(squares, {"a": "all", "b": "some"}))
    assert list(axs) == ["all", "some"]
    assert [t.get_text() for t in axs["some"].texts] == ["1.00", "0.00", "0.00", "1.00"]


def test_claims_have_a_panel_each(drawn):
    rows = [("it is far", "FTAL"), ("it is far", "FixLL"), ("it costs little", "PFL")]
    contrasts = pd.DataFrame(
        {"value": 20.0, "low": 15.0, "high": 30.0, "least": 10.0, "most": np.inf},
        index=pd.MultiIndex.from_tuples(rows, names=["claim", "contrast"]),
    ).assign(unit=["times", "times", "of accuracy"])
    figure, _ = drawn(plots.claim_panels(contrasts))
    axs = {ax.get_title("left"): ax for ax in figure.axes}
    assert list(axs) == ["it is far", "it costs little"]
    assert [ax.get_xscale() for ax in axs.values()] == ["log", "linear"]
    labels = [t.get_text() for t in axs["it is far"].get_yticklabels()]
    assert labels == ["FTAL", "FixLL"]
    assert axs["it costs little"].get_xlabel() == "of accuracy"
