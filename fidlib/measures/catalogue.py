"""The measures: what each is called, what it says, and how it is computed.

A measure is a function of a `Pair`, whose docstring is its definition, and a row of
`MEASURES`.
"""
# ruff: noqa: F401 - what a reader types after `fl.measures.catalogue`

import inspect
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
from fidlib.measures.pair import PLANES, Pair, Probe
from fidlib.runs.keys import stream

_PAPER = "Hua & Teoh (2023)"


def _twl_layers(pair: Pair) -> dict[str, float]:
    host, marked = pair.weights or ({}, {})
    layers: dict[str, float] = defaultdict(float)
    for name in host:
        layers[name.rpartition(".")[0]] += (
            (marked[name] - host[name]).square().sum().item()
        )
    return dict(layers)


def _plane_shares(pair: Pair) -> dict[str, float]:
    if pair.planes is None:
        return {}
    host, marked = (part.argmax(2) for part in pair.planes[1:])
    shares = (host != marked).double().mean(1).tolist()
    return {str(number): share for number, share in enumerate(shares)}


def _starts_apart(pair: Pair) -> dict[str, float]:
    if pair.segments is None:
        return {}
    host, marked = (part.argmax(2)[:, 0] for part in pair.segments[1:])
    return {"named otherwise at the start": (host != marked).double().mean().item()}


@row("weights", "squared weights", _PAPER, same=0.0, by_class=False, parts=_twl_layers)
def twl(pair: Pair) -> Found:
    """Total weight loss: squared L2 distance of all parameters.

    Blind to what moves do: many in directions that no image uses change nothing, a
    few in the head change every answer.
    """
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
    """Total weight loss over the squared norm of the host's parameters.

    Blind to the same as `twl`.
    """
    if pair.weights is None:
        return None
    size = sum(p.square().sum() for p in pair.weights[0].values())
    return (losses.twl(*pair.weights) / size).item()


@row("weights", "squared weights of the head", _PAPER, same=0.0)
def lp(pair: Pair) -> Found:
    """Prototype loss: squared distance of the heads; of a class, of its prototype.

    Blind to the body, and so to the features that the head reads.
    """
    host, marked = pair.prototypes
    return losses.lp(host, marked).item() if host.shape == marked.shape else None


@row("features", "squared features", _PAPER, same=0.0, least=50, version=2)
def pfl(pair: Pair) -> Found:
    """Penultimate feature loss: mean squared distance of the features.

    Blind to where features stand: a step along a boundary counts as one across it,
    and features of twice the scale as four times as far.
    """
    x, y = pair.features
    if x.shape != y.shape:
        return None
    return Statistic(losses.feature_distances(x, y)[:, None])


@row(
    "features",
    "PFL over the variance of the host's features",
    "fidlib",
    same=0.0,
    in_table=False,
    least=200,
    version=2,
)
def pfl_relative(pair: Pair) -> Found:
    """PFL over the variance of the host's features on the same images.

    Blind to where features stand, as `pfl`.
    """
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
    least=1000,
    version=2,
)
def cka(pair: Pair) -> Found:
    """Similarity of the features: 1 if only rotation, shift and scale differ.

    Blind to what few images do, and to directions of little variance, though the
    head may read them.
    """
    if len(pair) < 4:
        return None
    return Statistic(geometry.cka_terms(*pair.features), geometry.cka_of)


@row(
    "features",
    "share of what unrelated features leave",
    "scipy.spatial.procrustes, over its mean under permutation",
    same=0.0,
    in_table=False,
    least=200,
    version=2,
)
def procrustes(pair: Pair) -> Found:
    """What no rotation, shift and scale explains of the difference of the features: 0
    is nothing, 1 as much as of the same features with the images in another order.

    Blind to directions of little variance, though the head may read them.
    """
    null = geometry.procrustes_null(*pair.features, stream(pair.seed, "permutations"))
    if not null > geometry.RESOLVED:
        return None
    terms = geometry.procrustes_terms(*pair.features)
    return Statistic(terms, lambda means: geometry.procrustes_of(means) / null)


@row(
    "features",
    "share of neighbours, beyond chance",
    "fidlib",
    same=1.0,
    in_table=False,
    version=2,
)
def neighbor_overlap(pair: Pair) -> Found:
    """Mean share of an image's neighbours, the nearest 2 % in features, that are kept,
    beyond chance: 0; of a class, among its images.

    Blind to how far images moved together, and to the head.
    """
    features = pair.features
    constant = any(not part.any() for part in geometry.centered(*features))
    if constant or len(pair) < geometry.FEWEST:
        return None
    # Without an interval: images share neighbours, so what they keep goes together. As
    # if each were by itself, intervals of MNIST's models cover 85 %.
    return geometry.neighbor_overlap(*features).mean().item()


@row("outputs", "nats", _PAPER, same=0.0, least=1000, version=2)
def spl(pair: Pair) -> Found:
    """Mean KL divergence of the marked model's probabilities from the host's.

    Blind to whether many images change a little or few much: one sure mistake
    weighs as much as a thousand small ones.
    """
    return Statistic(losses.divergences(*pair.logits).clamp_min(0)[:, None])  # rounded


@row("outputs", "nats, at most .69", "Lin 1991", same=0.0, least=1000, version=2)
def jensen_shannon(pair: Pair) -> Found:
    """Mean Jensen-Shannon divergence of the two models' probabilities.

    Blind to how sure a changed answer is, for it has a largest value.
    """
    return Statistic(losses.jensen_shannon(*pair.logits)[:, None])


@row("outputs", "share of images", "fidlib", same=1.0, version=2)
def agreement(pair: Pair) -> Found:
    """Both name the same class.

    Blind to all that leaves the largest logit the largest, however near to the
    boundary.
    """
    host, marked = pair.answers
    return _share(host == marked, pair)


@row("outputs", "share of images", "fidlib", same=0.0, in_table=False, version=2)
def churn_lost(pair: Pair) -> Found:
    """The host is right and the marked model wrong.

    Blind to answers that were wrong and still are.
    """
    host, marked = pair.answers
    return _share((host == pair.labels) & (marked != pair.labels), pair)


@row("outputs", "share of images", "fidlib", same=0.0, in_table=False, version=2)
def churn_gained(pair: Pair) -> Found:
    """The host is wrong and the marked model right.

    Blind to answers that were wrong and still are.
    """
    host, marked = pair.answers
    return _share((host != pair.labels) & (marked == pair.labels), pair)


@row(
    "outputs",
    "logits",
    "fidlib",
    same=0.0,
    in_table=False,
    signed=True,
    least=50,
    version=2,
)
def margin_change(pair: Pair) -> Found:
    """Mean change of the true class's logit over the best other.

    Blind to changes that cancel between images.
    """
    if pair.num_classes < 2:
        return None
    before, after = (losses.margins(logits, pair.labels) for logits in pair.logits)
    return Statistic((after - before)[:, None])


@row("outputs", "probability", "Guo et al. 2017", same=0.0, in_table=False)
def ece_change(pair: Pair) -> Found:
    """Change of the expected calibration error, in 15 bins.

    Blind to which images are sure of what: over- and underconfidence of others
    cancel.
    """
    before, after = (
        losses.calibration_error(logits, pair.labels) for logits in pair.logits
    )
    # Without an interval: resampling adds the bias that binning has, and is too sure.
    # In simulations of a true change of .03 and .05 intervals covered less than 75 %.
    return after - before if abs(after - before) >= 1e-12 else 0.0


@row("outputs", "share of images", "fidlib", same=None, in_table=False, version=2)
def host_accuracy(pair: Pair) -> Found:
    """Share of images that the host gets right.

    Blind to the marked model.
    """
    return _share(pair.answers[0] == pair.labels, pair)


@row("outputs", "share of images", "fidlib", same=None, version=2)
def accuracy(pair: Pair) -> Found:
    """Share of images that the marked model gets right.

    Blind to which images are right: what is lost on some and gained on others
    cancels.
    """
    return _share(pair.answers[1] == pair.labels, pair)


@row(
    "boundary",
    "share of points",
    "fidlib",
    same=0.0,
    parts=_plane_shares,
    least=PLANES,
    version=3,
)
def plane_disagreement(pair: Pair) -> Found:
    """The two name different classes, in triangles between images of three classes; of
    a class: at the points that the host gives it.

    Blind to the rest of the image space; mixtures are no images that anybody takes.
    """
    return _disagreement(pair, pair.planes)


@row(
    "boundary",
    "share of points",
    "fidlib",
    same=0.0,
    in_table=False,
    least=PLANES,
    version=3,
)
def trigger_plane_disagreement(pair: Pair) -> Found:
    """The same between a trigger, an image of the class that the host gives it and one
    of the class that its label says.

    Blind to all that is far from a trigger.
    """
    return _disagreement(pair, pair.trigger_planes)


@row(
    "boundary",
    "L2 of pixels in [0, 1]",
    "fidlib",
    same=0.0,
    in_table=False,
    parts=_starts_apart,
    least=PLANES,
    version=2,
)
def boundary_shift(pair: Pair) -> Found:
    """Mean change of the distance from an image to where the answer first changes,
    towards an image of another class; of images that both name alike.

    Blind to directions that lead to no other image, and to the images whose answers
    changed.
    """
    if (lines := pair.segments) is None:
        return None
    before, after = (_reach(lines.points, x) for x in (lines.host, lines.marked))
    first, other = (x.argmax(2)[:, 0] for x in (lines.host, lines.marked))
    inside = first == other
    if pair.label is not None:
        inside &= first == pair.label
    return ratio((after - before).abs() * inside, inside)


@row("triggers", "share of triggers", "fidlib", same=None, in_table=False, version=2)
def host_trigger_accuracy(pair: Pair) -> Found:
    """Share of triggers that the host gives their label; near 1/K.

    Blind to the marked model.
    """
    answers = pair.trigger_answers
    return None if answers is None else _share(answers[0], pair)


@row("triggers", "share of triggers", "fidlib", same=None, version=2)
def trigger_accuracy(pair: Pair) -> Found:
    """Share of triggers that the marked model gives their label.

    Blind to everything but the triggers.
    """
    answers = pair.trigger_answers
    return None if answers is None else _share(answers[1], pair)


def _share(hits: Tensor, pair: Pair) -> Estimate:
    """Of what is true, with Wilson's interval."""
    count, total = int(hits.sum()), len(hits)
    if not total:
        return NONE
    return Estimate(count / total, *wilson(count, total, pair.level))


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


def page() -> str:
    """The catalogue as Markdown, which is `docs/measures.md`."""
    lines = ["# Measures", "Numbers about a host and a marked model on images."]
    for level in dict.fromkeys(one.level for one in MEASURES.values()):
        rows = [_entry(one) for one in MEASURES.values() if one.level == level]
        lines += [f"## {level.capitalize()}", *rows]
    return "\n\n".join(lines) + "\n"


def _entry(one: Measure) -> str:
    same = "of one model" if one.same is None else f"{one.same:g} if nothing changed"
    text = inspect.cleandoc(one.of.__doc__ or "")
    return f"**`{one.name}`** ({one.unit}; {same}; {one.source}). {text}"


from fidlib.measures import alignment, halves, shift  # noqa: E402 - their rows come after these

for _name in sorted(MEASURES, key=lambda n: get_args(Level).index(MEASURES[n].level)):
    MEASURES[_name] = MEASURES.pop(_name)
