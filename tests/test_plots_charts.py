import numpy as np
import pandas as pd
import pytest

from fidlib import plots


def test_curves_leave_zeros_off_a_logarithmic_axis(ax):
    line = pd.Series([0.0, 1.0, 10.0], index=[0, 5, 10])
    plots.curves(ax, {"FTAL": line}, log=True)
    assert ax.lines[0].get_xydata().tolist() == [[0.5, 1], [1, 10]]
    plots.curves(ax, {"FTAL": line})
    assert len(ax.lines[1].get_xydata()) == 3


def test_curves_of_short_and_long_trainings_end_together(ax):
    short, long = (pd.Series(1.0, index=epochs) for epochs in ([0, 1], [0, 10, 50]))
    plots.curves(ax, {"FTAL": short, "scratch": long})
    ends = [line.get_xdata().tolist() for line in ax.lines]
    assert ends == [[0, 1], [0, 0.2, 1]]


def test_against_keeps_zeros_visible_and_says_so(ax):
    plots.against(ax, [1.0, 10.0, 4.0], [0.0, 5.0, 2.0], ["FTLL", "FTAL", "FixLL"])
    first, second, _ = (line for line in ax.lines if len(line.get_xydata()))
    assert first.get_markerfacecolor() == "none"
    assert 0 < first.get_ydata()[0] < 2
    assert second.get_xydata().tolist() == [[10, 5]]
    (zero,) = ax.texts
    assert zero.get_text() == "0"
    assert zero.xy == tuple(first.get_xydata()[0])
    handles, names = ax.get_legend_handles_labels()
    assert names == ["FTLL", "FTAL", "FixLL"]
    assert "none" not in [handle.get_markerfacecolor() for handle in handles]
    assert ax.get_xscale() == ax.get_yscale() == "log"


def test_against_shows_half_a_decade_at_least_and_makes_way_for_more(ax):
    plots.against(ax, [11.0, 14.0], [2.0, 50.0], ["FTAL", "FixLL"])
    (left, right), (low, high) = ax.get_xlim(), ax.get_ylim()
    assert right / left > 10**0.5
    assert left * right == pytest.approx(11 * 14)
    assert 50 < high < 100
    assert 1 < low < 2
    plots.ranges(ax, [[1.0, 4.0, 2.0]], [[30.0, 10.0, 50.0]], ["FTAL"])
    assert ax.get_xlim()[0] < 1


def test_floors_leave_out_a_level_of_zero(ax):
    plots.floors(ax, [1000.0, 10.0], [0.02, 0.0], ["retrained", "fine-tuned"])
    plots.against(ax, [5.0, 7.0], [0.01, 0.02], ["FTAL", "FixLL"])
    assert ax.get_ylim()[0] > 1e-3
    assert ax.get_legend_handles_labels()[1][:2] == ["retrained", "fine-tuned"]


def test_ranges_reach_from_the_least_to_the_most(ax):
    plots.ranges(ax, [[1.0, 4.0, 2.0]], [[30.0, 10.0, 50.0]], ["FTAL"])
    across, up, mean = (line.get_xydata().tolist() for line in ax.lines[:3])
    assert ax.get_legend_handles_labels()[1] == ["mean and range of seeds"]
    assert across == [[1, 30], [4, 30]]
    assert up == [[pytest.approx(7 / 3), 10], [pytest.approx(7 / 3), 50]]
    assert mean == [[pytest.approx(7 / 3), 30]]


def test_yardstick_marks_kinds_and_keeps_zeros_visible(ax):
    plots.yardstick(ax, [0, 0.5, 0.2, 0.1], [4.0, 8.0, 0.0, 2.0], ["a", "b", "b", "a"])
    first, second = ax.collections
    assert first.get_offsets().tolist() == [[0, 4], [0.1, 2]]
    assert second.get_offsets().tolist() == [[0.5, 8], [0.2, 0.5]]
    assert [c.get_label() for c in ax.collections] == ["a", "b"]
    # A face for what is not zero, none (alpha 0) for what is.
    assert second.get_facecolors()[:, 3].tolist() == [1, 0]
    assert not np.allclose(first.get_edgecolors()[0], second.get_edgecolors()[0])
    assert ax.get_yscale() == "log"


@pytest.mark.parametrize(
    ("top", "expected"),
    [(0.7, ["0.02", "0.05", "0.1", "0.2", "0.5"]), (900.0, ["10^{-1}", "10^{1}"])],
)
def test_yardstick_has_plain_numbers_where_decades_are_few(ax, top, expected):
    plots.yardstick(ax, [0, 0.1, 0.2], [0, 0.08, top], ["a", "b", "b"])
    ax.figure.canvas.draw()
    low, high = ax.get_ylim()
    marks = zip(ax.get_yticks(), ax.get_yticklabels(), strict=True)
    shown = " ".join(label.get_text() for at, label in marks if low <= at <= high)
    assert all(mark in shown for mark in expected)
    assert "times" not in shown
    assert not any(label.get_text() for label in ax.get_yticklabels(minor=True))


def test_yardstick_leaves_out_no_kind(ax):
    kinds = [*"abcdefghijkl"]
    plots.yardstick(ax, [0.1] * 12, [1.0] * 12, kinds)
    assert [c.get_label() for c in ax.collections] == kinds
    looks = {
        (tuple(c.get_edgecolors()[0]), c.get_paths()[0].vertices.tobytes())
        for c in ax.collections
    }
    assert len(looks) == 12


def test_bars_run_from_the_top_and_stack(ax):
    lengths = pd.DataFrame({"u": [0.2, 0.5], "v": [0.8, 0.5]}, index=["a", "b"])
    plots.bars(ax, lengths, stacked=True)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b"]
    assert ax.yaxis_inverted()
    widths = [[bar.get_width() for bar in container] for container in ax.containers]
    assert np.allclose(widths, [[0.2, 0.5], [0.8, 0.5]])
    assert [bar.get_x() for bar in ax.containers[1]] == [0.2, 0.5]


def test_correlations_write_their_numbers(ax):
    plots.correlations(ax, np.array([[1, -0.25], [-0.25, 1]]), ["TWL", "PFL"])
    assert [text.get_text() for text in ax.texts] == ["1.00", "-0.25", "-0.25", "1.00"]


def test_span_covers_the_range_and_names_the_mean(ax):
    plots.span(ax, [1.0, 4.0, 10.0], "hosts")
    (band,) = ax.patches
    assert band.get_extents().transformed(ax.transData.inverted()).intervaly == (
        pytest.approx([1, 10])
    )
    (line,) = ax.lines
    assert line.get_ydata()[0] == 5
    assert line.get_label() == "hosts"


def test_a_forest_shows_what_is_claimed_and_what_is_decided(ax):
    table = pd.DataFrame(
        {"value": [2.0, 0.5, 1.5], "low": [1.5, 0.2, 0.5], "high": [3.0, 0.8, 2.0]},
        index=["inside", "outside", "across"],
    )
    plots.forest(ax, table.assign(least=1.0, most=np.inf))
    assert [label.get_text() for label in ax.get_yticklabels()] == [*table.index]
    assert ax.get_yticks().tolist() == [2, 1, 0]
    bars, markers = ax.collections[:2]
    ends = [segment[:, 0].tolist() for segment in bars.get_segments()]
    assert np.allclose(ends, table[["low", "high"]])
    assert markers.get_offsets()[:, 0].tolist() == table.value.tolist()
    # Black where the interval is on one side of the edge, white across it.
    assert markers.get_facecolors()[:, 0].tolist() == [0, 0, 1]
    (band,) = ax.patches
    claimed = band.get_extents().transformed(ax.transData.inverted()).intervalx
    assert claimed == pytest.approx([1, ax.get_xlim()[1]])
