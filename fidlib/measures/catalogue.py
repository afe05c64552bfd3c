"""The measures: what each is called, what it says, and how it is computed.

A measure is a function of a `Pair`, whose docstring is its definition, and a row of
`MEASURES`. [1] and [2] are the papers named in the README.
"""
# ruff: noqa: F401 - what a reader types after `fl.measures.catalogue`

from collections import defaultdict
from typing import get_args

import torch
from torch import Tensor

from fidlib.measures import boundary, geometry, losses
from fidlib.measures.intervals import NONE, Estimate, Statistic, ratio, wilson
from fidlib.measures.measure import (
    MEASURES,
    ON_REQUEST,
    Found,
    Level,
    Measure,
    Measured,
    measure,
    row,
    usual,
    value,
)
from fidlib.measures.pair import Pair, Probe


def _twl_layers(pair: Pair) -> dict[str, float]:
    host, marked = pair.weights or ({}, {})
    found: dict[str, float] = defaultdict(float)
    for name in host:
        found[name.rpartition(".")[0]] += (
            (marked[name] - host[name]).square().sum().item()
        )
    return dict(found)


def _plane_shares(pair: Pair) -> dict[str, float]:
    if pair.planes is None:
        return {}
    host, marked = (part.argmax(2) for part in pair.planes[1:])
    shares = (host != marked).double().mean(1).tolist()
    return {str(number): share for number, share in enumerate(shares)}


@row(
    "weights",
    "squared weights",
    "[2], total weight loss",
    same=0.0,
    by_class=False,
    parts=_twl_layers,
)
def twl(pair: Pair) -> Found:
    """Total weight loss: squared L2 distance of all parameters."""
    return None if pair.weights is None else losses.twl(*pair.weights).item()


@row(
    "weights",
    "TWL over the squared norm of the host's parameters",
    "fidlib",
    same=0.0,
    by_class=False,
    in_table=False,
)
def twl_relative(pair: Pair) -> Found:
    """Total weight loss over the squared norm of the host's parameters."""
    if pair.weights is None:
        return None
    size = sum(p.square().sum() for p in pair.weights[0].values())
    return (losses.twl(*pair.weights) / size).item()


@row("weights", "squared weights of the head", "[2], prototype loss", same=0.0)
def lp(pair: Pair) -> Found:
    """Prototype loss: squared distance of the heads; of a class, of its prototype."""
    host, marked = pair.prototypes
    return losses.lp(host, marked).item() if host.shape == marked.shape else None


@row("features", "squared features", "[2], penultimate feature loss", same=0.0)
def pfl(pair: Pair) -> Found:
    """Penultimate feature loss: mean squared distance of the features."""
    x, y = pair.features
    if x.shape != y.shape:
        return None
    return Statistic(losses.feature_distances(x, y)[:, None])


@row(
    "features",
    "PFL over the total variance of the host's features",
    "fidlib",
    same=0.0,
    in_table=False,
)
def pfl_relative(pair: Pair) -> Found:
    """PFL over the variance of the host's features on the same images."""
    x, y = pair.features
    if x.shape != y.shape:
        return None
    spread = geometry.centered(x)[0].square().sum(1)
    return ratio(losses.feature_distances(x, y), spread)


@row(
    "features",
    "similarity, at most 1",
    "Kornblith et al. 2019, debiased by Song et al. 2012",
    same=1.0,
    in_table=False,
)
def cka(pair: Pair) -> Found:
    """Alike, 1, whatever the rotation, shift and scale between the features."""
    if len(pair) < 4:
        return None
    return Statistic(geometry.cka_terms(*pair.features), geometry.cka_of)


@row(
    "features",
    "share of the features' variance",
    "scipy.spatial.procrustes",
    same=0.0,
    in_table=False,
)
def procrustes(pair: Pair) -> Found:
    """What no rotation, shift and scale explains of the difference of the features."""
    return Statistic(geometry.procrustes_terms(*pair.features), geometry.procrustes_of)


@row("features", "share of neighbours", "fidlib", same=1.0, in_table=False)
def neighbor_overlap(pair: Pair) -> Found:
    """Mean share of an image's ten nearest neighbours, in features, that are kept."""
    kept = pair.kept_neighbors
    return None if kept is None else Statistic(kept[:, None])


@row("outputs", "nats", "[2], softmax probability-distribution loss", same=0.0)
def spl(pair: Pair) -> Found:
    """Mean KL divergence of the marked model's probabilities from the host's."""
    return Statistic(losses.divergences(*pair.logits)[:, None])


@row("outputs", "nats", "Lin 1991", same=0.0, in_table=False)
def jensen_shannon(pair: Pair) -> Found:
    """Mean Jensen-Shannon divergence of the two models' probabilities."""
    return Statistic(losses.jensen_shannon(*pair.logits)[:, None])


@row("outputs", "share of images", "fidlib", same=1.0)
def agreement(pair: Pair) -> Found:
    """Both name the same class."""
    host, marked = pair.answers
    return _share(host == marked)


@row("outputs", "share of images", "fidlib", same=0.0, in_table=False)
def churn_lost(pair: Pair) -> Found:
    """The host is right and the marked model wrong."""
    host, marked = pair.answers
    return _share((host == pair.labels) & (marked != pair.labels))


@row("outputs", "share of images", "fidlib", same=0.0, in_table=False)
def churn_gained(pair: Pair) -> Found:
    """The host is wrong and the marked model right."""
    host, marked = pair.answers
    return _share((host != pair.labels) & (marked == pair.labels))


@row("outputs", "logits", "fidlib", same=0.0, in_table=False)
def margin_change(pair: Pair) -> Found:
    """Mean change of the true class's logit over the best other."""
    if pair.num_classes < 2:
        return None
    before, after = (losses.margins(logits, pair.labels) for logits in pair.logits)
    return Statistic((after - before)[:, None])


@row("outputs", "probability", "Guo et al. 2017", same=0.0, in_table=False)
def ece_change(pair: Pair) -> Found:
    """Change of the expected calibration error, in 15 bins."""
    before, after = (
        losses.calibration_error(logits, pair.labels) for logits in pair.logits
    )
    # Without an interval: resampling adds the bias that binning has, and is too sure.
    # In simulations of a true change of .03 and .05 intervals covered less than 75 %.
    return after - before if abs(after - before) >= 1e-12 else 0.0


@row("outputs", "share of images", "fidlib", same=None, in_table=False)
def host_accuracy(pair: Pair) -> Found:
    """Share of images that the host gets right."""
    return _share(pair.answers[0] == pair.labels)


@row("outputs", "share of images", "fidlib", same=None)
def accuracy(pair: Pair) -> Found:
    """Share of images that the marked model gets right."""
    return _share(pair.answers[1] == pair.labels)


@row("boundary", "share of points", "fidlib", same=0.0, parts=_plane_shares, version=2)
def plane_disagreement(pair: Pair) -> Found:
    """The two name different classes, in triangles between images of three classes; of
    a class: at the points that the host gives it.
    """
    return _disagreement(pair, pair.planes)


@row("boundary", "share of points", "fidlib", same=0.0, in_table=False, version=2)
def trigger_plane_disagreement(pair: Pair) -> Found:
    """The same between a trigger, an image of the class that the host gives it and one
    of the class that its label says.
    """
    return _disagreement(pair, pair.trigger_planes)


@row("boundary", "L2 of pixels in [0, 1]", "fidlib", same=0.0, in_table=False)
def boundary_shift(pair: Pair) -> Found:
    """Mean change of the distance from an image to where the answer first changes,
    towards an image of another class.
    """
    if (found := pair.segments) is None:
        return None
    before, after = (_reach(found.points, x) for x in (found.host, found.marked))
    first = found.host.argmax(2)[:, 0]
    inside = torch.ones_like(first) if pair.label is None else first == pair.label
    return ratio((after - before).abs() * inside, inside)


@row("triggers", "share of triggers", "fidlib", same=None, in_table=False)
def host_trigger_accuracy(pair: Pair) -> Found:
    """Share of triggers that the host gives their label; near 1/K."""
    return None if pair.trigger_answers is None else _share(pair.trigger_answers[0])


@row("triggers", "share of triggers", "fidlib", same=None)
def trigger_accuracy(pair: Pair) -> Found:
    """Share of triggers that the marked model gives their label."""
    return None if pair.trigger_answers is None else _share(pair.trigger_answers[1])


def _share(found: Tensor) -> Estimate:
    """Of what is true, with Wilson's interval."""
    count, total = int(found.sum()), len(found)
    return Estimate(count / total, *wilson(count, total)) if total else NONE


def _disagreement(pair: Pair, probe: Probe | None) -> Found:
    """Share of points; of a class, of those that the host gives it."""
    if probe is None:
        return None
    host, marked = probe.host.argmax(2), probe.marked.argmax(2)
    inside = torch.ones_like(host).bool() if pair.label is None else host == pair.label
    return ratio(((host != marked) & inside).sum(1), inside.sum(1))


def _reach(points: Tensor, logits: Tensor) -> Tensor:
    """`(S,)` distances from the start of segments to where the answer changes."""
    named = logits[:, :1].argmax(2).expand(logits.shape[:2])
    margins = losses.margins(logits.flatten(0, 1), named.flatten())
    lengths = (points[:, -1] - points[:, 0]).flatten(1).norm(dim=1)
    return boundary.crossings(margins.view(named.shape)) * lengths


from fidlib.measures import alignment, shift  # noqa: E402 - their rows come after these

for _name in sorted(MEASURES, key=lambda n: get_args(Level).index(MEASURES[n].level)):
    MEASURES[_name] = MEASURES.pop(_name)
