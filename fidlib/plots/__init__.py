"""Draws arrays on axes; numpy and matplotlib, never torch.

Functions draw on the axes they are given, or lay out a whole figure and return it;
nothing here computes a measure, saves, shows or reads a file.
"""
# ruff: noqa: F401 - what a reader types after `fl.plots`

from fidlib.palette import class_colors, method_style
from fidlib.plots.charts import (
    against,
    bars,
    by_strength,
    correlations,
    curves,
    floors,
    forest,
    intervals,
    legend_below,
    ranges,
    span,
    tradeoff,
    yardstick,
)
from fidlib.plots.panels import (
    against_panels,
    boundary_panels,
    claim_panels,
    contact_sheet,
    correlation_panels,
    evidence_panels,
    feature_panels,
    map_panels,
    null_space_panels,
    shift_panels,
    tradeoff_panels,
    yardstick_panels,
)
from fidlib.plots.removal import attack_paths, prices, robustness_panels
from fidlib.plots.spaces import (
    Extent,
    anchors,
    caption,
    classes_below,
    close_up,
    disagreement,
    displacements,
    features,
    prototypes,
    regions,
    square_extent,
)
from fidlib.plots.style import DOUBLE, SINGLE, use_style
