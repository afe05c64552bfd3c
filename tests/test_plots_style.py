import matplotlib as mpl
import numpy as np
from matplotlib.colors import to_rgb

import fidlib as fl
from fidlib import plots


def test_every_method_looks_different():
    styles = [plots.method_style(name) for name in fl.METHODS]
    assert len({str(s) for s in styles}) == len(styles)
    assert plots.method_style("mine")["color"]


def test_classes_that_follow_each_other_differ_in_colour():
    colors = np.array([to_rgb(color) for color in plots.class_colors(100)])
    assert np.linalg.norm(np.diff(colors, axis=0), axis=1).min() > 0.25
    assert len({tuple(color) for color in colors}) == 100


def test_few_classes_have_matplotlibs_colours_for_the_colour_blind():
    expected = mpl.color_sequences["petroff10"]
    assert np.allclose([to_rgb(color) for color in plots.class_colors(10)], expected)
    assert plots.class_colors(3) == plots.class_colors(10)[:3]


def test_the_style_is_the_houses_whatever_was_set_before():
    with mpl.rc_context():
        mpl.rcParams.update({"font.size": 20, "axes.spines.top": True})
        plots.use_style()
        assert mpl.rcParams["font.size"] == mpl.rcParams["axes.titlesize"] == 8
        assert not mpl.rcParams["axes.spines.top"]
        assert mpl.rcParams["xtick.major.size"] == mpl.rcParams["ytick.major.size"]
        assert mpl.rcParams["figure.constrained_layout.use"]
