import math

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from fidlib import plots
from fidlib.palette import method_style


@pytest.fixture
def curve():
    rows = []
    for model, left in {"host": (9, 8, 11), "FTAL": (100, 90, 20)}.items():
        paths = ("none", "prune", "prune"), (math.nan, 0.2, 0.6), left, (0, 0.01, 0.3)
        for attack, strength, matches, lost in zip(*paths, strict=True):
            row = {"model": model, "attack": attack, "strength": strength}
            row["kind"] = "none" if attack == "none" else "edited"
            row |= {"matches": matches, "triggers": 100, "lost": lost, "spl": 2 * lost}
            rows.append(row | {"threshold": 28})
    return pd.DataFrame(rows)


def given(**rows):
    columns = ["attack", "strength", "lost", "host_lost", "distance"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def lines(ax, marker):
    return [line for line in ax.lines if line.get_marker() == marker]


def test_a_path_goes_from_the_unattacked_model_through_the_strengths(ax, curve):
    plots.attack_paths(ax, curve, "lost")
    color = method_style("FTAL")["color"]
    (path,) = [
        line
        for line in ax.lines
        if line.get_color() == color and line.get_marker() == ""
    ]
    assert path.get_xydata().tolist() == [[0, 1], [0.01, 0.9], [0.3, 0.2]]
    dots = [line for line in lines(ax, "o") if line.get_color() == color]
    assert [line.get_xydata().tolist() for line in dots] == [[[0.01, 0.9], [0.3, 0.2]]]
    hollow = [line for line in lines(ax, "o") if line.get_markerfacecolor() == "w"]
    assert [line.get_ydata().tolist() for line in hollow] == [[0.08, 0.11]]


def test_an_attack_of_one_strength_is_a_marker_alone(ax, curve):
    plots.attack_paths(ax, curve[curve.strength != 0.6], "lost")
    assert not lines(ax, "")[:-1]  # but for what is needed
    assert len(lines(ax, "o")) == 2


def test_one_threshold_is_a_line_and_several_are_dashes(ax, curve):
    plots.attack_paths(ax, curve, "lost")
    assert [0.28, 0.28] in [list(line.get_ydata()) for line in ax.lines]
    assert not lines(ax, "_")
    curve.threshold = [28, 30, 28, 25, 28, None]
    ax.clear()
    plots.attack_paths(ax, curve, "lost")
    (dashes,) = lines(ax, "_")
    assert dashes.get_ydata().tolist() == [0.28, 0.3, 0.28, 0.25, 0.28]
    assert dashes.get_xdata().tolist() == [0, 0.01, 0.3, 0, 0.01]


def test_a_price_stands_over_what_the_host_pays_and_none_is_an_arrow(ax):
    plots.prices(
        ax,
        given(
            FTAL=("prune", 0.6, 0.3, 0.1, 0.05),
            FixLL=("none", math.nan, math.inf, math.nan, 0.1),
        ),
    )
    texts = [text.get_text() for text in ax.texts]
    assert texts == ["prune:0.6", "none"]
    filled, hollow, arrow = ax.lines
    assert [*filled.get_xydata()[0], *hollow.get_xydata()[0]] == [0.05, 0.3, 0.05, 0.1]
    assert hollow.get_markerfacecolor() == "w"
    assert "arrow" in arrow.get_marker()
    assert arrow.get_ydata()[0] > 0.3
    assert ax.get_ylim()[1] > arrow.get_ydata()[0]


def test_labels_of_neighbours_lean_apart(ax):
    price = ("prune", 0.6, 0.3, 0.1)
    table = given(FTAL=(*price, 0.01), FixLL=(*price, 0.011), FTLL=(*price, 0.1))
    plots.prices(ax, table.iloc[::-1])
    assert [text.get_rotation() % 180 for text in ax.texts] == [120, 60, 60]


def test_models_of_a_colour_are_told_apart(ax, curve):
    names = ["FixLL+PFL", "FixLL+SPL"]
    several = pd.concat([curve[curve.model == "FTAL"].assign(model=n) for n in names])
    plots.attack_paths(ax, several, "lost")
    first, second = (line.get_color() for line in lines(ax, "")[:2])
    assert first == method_style(names[0])["color"]
    assert np.allclose(to_rgb(second), (1 + np.array(to_rgb(first))) / 2, atol=0.01)


def test_panels_show_points_and_name_models_and_attacks(plt, curve):
    figure = plots.robustness_panels(curve, given(FTAL=("prune", 0.6, 0.3, 0.1, 0.5)))
    figure.canvas.draw()
    (legend,) = figure.legends
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts == ["host", "FTAL", "needed by the claim", "edited"]
    reach = max(np.max(line.get_xdata()) for line in figure.axes[0].lines[:-1])
    assert reach == 30  # points
    assert figure.axes[2].lines[0].get_ydata()[0] == 30
