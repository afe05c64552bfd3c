"""The measures: what each is called, what it says, and how it is computed.

A measure is a function of a `Pair`, whose docstring is its definition, and a row of
`MEASURES`. [1] and [2] are the papers
named in the README.
"""

import functools
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from fidlib.measures import boundary, geometry, losses
from fidlib.measures.intervals import (
    NONE,
    Estimate,
    Statistic,
    bootstrap,
    ratio,
    wilson,
)
from fidlib.measures.pair import NEIGHBORS, Pair, Probe, Shifted

Level = Literal[
    "weights", "features", "outputs", "boundary", "triggers", "layers", "shift"
]

ON_REQUEST = ("layers", "shift")
"""Levels whose measures are made if they are named: they run the models for long."""

Found = Statistic | Estimate | float | None
"""What a measure's function gives: a statistic gets its interval by bootstrap; None
where there is nothing to measure."""


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A number about two models, and what is to be known of it."""

    name: str
    """What code, tables and pictures call it."""
    level: Level
    """What it looks at."""
    unit: str
    """Of its values."""
    source: str
    """Where its definition is from."""
    same: float | None
    """Its value for two models that are the same; None if it does not compare them."""
    of: Callable[[Pair], Found]
    """Computes it, on all images or on those of a class (`Pair.only`)."""
    by_class: bool = True
    """Whether it has a value for each class."""
    parts: Callable[[Pair], dict[str, float]] | None = None
    """What it is the sum or the mean of, by name."""
    in_table: bool = True
    """Whether tables of models show it, or reports alone."""
    version: int = 1
    """Raised when its values change: those stored under another are not read."""


class Measured(NamedTuple):
    """A measure of one pair."""

    estimate: Estimate
    """On all images."""
    by_class: list[Estimate]
    """On those of each class; empty if it has none by class."""
    parts: dict[str, float]
    """What it is the sum or mean of; often empty."""


def measure(pair: Pair, names: Sequence[str]) -> dict[str, Measured]:
    """Measures of a pair with their intervals; resamples are shared.

    Args:
        pair: Two models on images.
        names: Of `MEASURES`.
    """
    rows = [MEASURES[name] for name in names]
    if odd := [n for n, row in zip(names, rows, strict=True) if row.name != n]:
        raise ValueError(
            f"fidlib.MEASURES has {', '.join(odd)} for a measure of another name: give "
            "the row and its place one name."
        )
    found: dict[str, list[Estimate]] = {row.name: [] for row in rows}
    for group in (pair, *map(pair.only, range(pair.num_classes))):
        asked = [row for row in rows if row.by_class or group is pair]
        values = {row.name: _of(row, group) for row in asked}
        for name, estimate in _estimates(values, pair.seed).items():
            found[name].append(estimate)
    return {
        row.name: Measured(
            found[row.name][0],
            found[row.name][1:],
            row.parts(pair) if row.parts else {},
        )
        for row in rows
    }


def value(pair: Pair, name: str) -> float | None:
    """One measure of a pair on all images, without its interval."""
    found = MEASURES[name].of(pair)
    if isinstance(found, Statistic):
        return found.value()
    return found.value if isinstance(found, Estimate) else found


def _of(row: Measure, group: Pair) -> Found:
    if row.level in ("features", "outputs") and not len(group):
        return None
    return row.of(group)


def _estimates(values: Mapping[str, Found], seed: int) -> dict[str, Estimate]:
    together: dict[int, dict[str, Statistic]] = defaultdict(dict)
    found: dict[str, Estimate] = {}
    for name, of in values.items():
        found[name] = of if isinstance(of, Estimate) else NONE
        if isinstance(of, Statistic):
            together[len(of.terms)][name] = of
        elif of is not None and not isinstance(of, Estimate):
            found[name] = Estimate(float(of), None, None)
    for statistics in together.values():
        intervals = bootstrap(statistics, seed=seed)
        for name, statistic in statistics.items():
            found[name] = Estimate(
                statistic.value(), *(intervals[name] or (None, None))
            )
    return found


MEASURES: dict[str, Measure] = {}
"""Name -> measure, in the order of a report."""


def usual() -> list[str]:
    """Measures that a report has when none are named."""
    return [name for name, row in MEASURES.items() if row.level not in ON_REQUEST]


def _row(
    level: Level, unit: str, source: str, **options: Any
) -> Callable[[Callable[[Pair], Found]], Callable[[Pair], Found]]:
    """Enters a function in `MEASURES`, under its own name."""

    def enter(of: Callable[[Pair], Found]) -> Callable[[Pair], Found]:
        told = {"level": level, "unit": unit, "source": source, **options}
        MEASURES[of.__name__] = Measure(name=of.__name__, of=of, **told)
        return of

    return enter


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


@_row(
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


@_row(
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


@_row("weights", "squared weights of the head", "[2], prototype loss", same=0.0)
def lp(pair: Pair) -> Found:
    """Prototype loss: squared distance of the heads; of a class, of its prototype."""
    host, marked = pair.prototypes
    return losses.lp(host, marked).item() if host.shape == marked.shape else None


@_row("features", "squared features", "[2], penultimate feature loss", same=0.0)
def pfl(pair: Pair) -> Found:
    """Penultimate feature loss: mean squared distance of the features."""
    x, y = pair.features
    if x.shape != y.shape:
        return None
    return Statistic(losses.feature_distances(x, y)[:, None])


@_row(
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


@_row(
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


@_row(
    "features",
    "share of the features' variance",
    "scipy.spatial.procrustes",
    same=0.0,
    in_table=False,
)
def procrustes(pair: Pair) -> Found:
    """What no rotation, shift and scale explains of the difference of the features."""
    return Statistic(geometry.procrustes_terms(*pair.features), geometry.procrustes_of)


@_row("features", "share of neighbours", "fidlib", same=1.0, in_table=False)
def neighbor_overlap(pair: Pair) -> Found:
    """Mean share of an image's ten nearest neighbours, in features, that are kept."""
    kept = pair.kept_neighbors
    return None if kept is None else Statistic(kept[:, None])


_ALIGNED = {"same": 1.0, "by_class": False, "in_table": False}


@_row("features", "correlation", "Kriegeskorte et al. 2008", **_ALIGNED)
def rsa(pair: Pair) -> Found:
    """Correlation of the distances of all pairs of 1,000 images (Pearson's)."""
    if len(pair) < 3:
        return None
    return Statistic(geometry.rsa_terms(*pair.distances))


@_row("features", "share of pairs of neighbours", "fidlib", **_ALIGNED)
def mutual_neighbors(pair: Pair) -> Found:
    """Pairs among 1,000 images that are each among the other's ten nearest: those of
    both models over those of either.
    """
    constant = any(not found.any() for found in pair.distances)
    if constant or len(pair) <= NEIGHBORS:
        return None  # none is nearest
    host, marked = (
        geometry.mutual_neighbors(found, neighbors=NEIGHBORS)
        for found in pair.distances
    )
    return ratio((host & marked).sum(1), (host | marked).sum(1))


@_row("features", "share of images", "Bansal et al. 2021, linear", **_ALIGNED)
def stitching(pair: Pair) -> Found:
    """The marked model's head names the class that it does when it is given the host's
    features, mapped to the marked model's by least squares.
    """
    x, y = pair.features
    if len(x) < 4 * x.shape[1]:
        return None  # the map would fit whatever images it is fitted to
    head = pair.marked.head
    stitched = geometry.mapped(x, y) @ head.weight.detach().double().T
    if head.bias is not None:
        stitched += head.bias.detach().double()
    return _share(stitched.argmax(1) == pair.answers[1])


def _layers(pair: Pair) -> dict[str, float]:
    terms = {name: geometry.cka_terms(*both) for name, both in pair.layers.items()}
    found = {name: geometry.cka_of(each.mean(0)) for name, each in terms.items()}
    return {name: each.item() for name, each in found.items() if each.isfinite()}


@_row("layers", "similarity, at most 1", "as cka", parts=_layers, **_ALIGNED)
def layer_cka(pair: Pair) -> Found:
    """Mean CKA of the convolutions and linear layers, on 500 images."""
    if len(pair) < 4 or not pair.layers:
        return None
    terms = torch.cat([geometry.cka_terms(*both) for both in pair.layers.values()], 1)
    return Statistic(
        terms, lambda m: geometry.cka_of(m.unflatten(-1, (-1, 4))).nanmean(-1)
    )


@_row("outputs", "nats", "[2], softmax probability-distribution loss", same=0.0)
def spl(pair: Pair) -> Found:
    """Mean KL divergence of the marked model's probabilities from the host's."""
    return Statistic(losses.divergences(*pair.logits)[:, None])


@_row("outputs", "nats", "Lin 1991", same=0.0, in_table=False)
def jensen_shannon(pair: Pair) -> Found:
    """Mean Jensen-Shannon divergence of the two models' probabilities."""
    return Statistic(losses.jensen_shannon(*pair.logits)[:, None])


@_row("outputs", "share of images", "fidlib", same=1.0)
def agreement(pair: Pair) -> Found:
    """Both name the same class."""
    host, marked = pair.answers
    return _share(host == marked)


@_row("outputs", "share of images", "fidlib", same=0.0, in_table=False)
def churn_lost(pair: Pair) -> Found:
    """The host is right and the marked model wrong."""
    host, marked = pair.answers
    return _share((host == pair.labels) & (marked != pair.labels))


@_row("outputs", "share of images", "fidlib", same=0.0, in_table=False)
def churn_gained(pair: Pair) -> Found:
    """The host is wrong and the marked model right."""
    host, marked = pair.answers
    return _share((host != pair.labels) & (marked == pair.labels))


@_row("outputs", "logits", "fidlib", same=0.0, in_table=False)
def margin_change(pair: Pair) -> Found:
    """Mean change of the true class's logit over the best other."""
    if pair.num_classes < 2:
        return None
    before, after = (losses.margins(logits, pair.labels) for logits in pair.logits)
    return Statistic((after - before)[:, None])


@_row("outputs", "probability", "Guo et al. 2017", same=0.0, in_table=False)
def ece_change(pair: Pair) -> Found:
    """Change of the expected calibration error, in 15 bins."""
    before, after = (
        losses.calibration_error(logits, pair.labels) for logits in pair.logits
    )
    # Without an interval: resampling adds the bias that binning has, and is too sure.
    # In simulations of a true change of .03 and .05 intervals covered less than 75 %.
    return after - before if abs(after - before) >= 1e-12 else 0.0


@_row("outputs", "share of images", "fidlib", same=None, in_table=False)
def host_accuracy(pair: Pair) -> Found:
    """Share of images that the host gets right."""
    return _share(pair.answers[0] == pair.labels)


@_row("outputs", "share of images", "fidlib", same=None)
def accuracy(pair: Pair) -> Found:
    """Share of images that the marked model gets right."""
    return _share(pair.answers[1] == pair.labels)


@_row("boundary", "share of points", "fidlib", same=0.0, parts=_plane_shares, version=2)
def plane_disagreement(pair: Pair) -> Found:
    """The two name different classes, in triangles between images of three classes; of
    a class: at the points that the host gives it.
    """
    return _disagreement(pair, pair.planes)


@_row("boundary", "share of points", "fidlib", same=0.0, in_table=False, version=2)
def trigger_plane_disagreement(pair: Pair) -> Found:
    """The same between a trigger, an image of the class that the host gives it and one
    of the class that its label says.
    """
    return _disagreement(pair, pair.trigger_planes)


@_row("boundary", "L2 of pixels in [0, 1]", "fidlib", same=0.0, in_table=False)
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


@_row("triggers", "share of triggers", "fidlib", same=None, in_table=False)
def host_trigger_accuracy(pair: Pair) -> Found:
    """Share of triggers that the host gives their label; near 1/K."""
    return None if pair.trigger_answers is None else _share(pair.trigger_answers[0])


@_row("triggers", "share of triggers", "fidlib", same=None)
def trigger_accuracy(pair: Pair) -> Found:
    """Share of triggers that the marked model gives their label."""
    return None if pair.trigger_answers is None else _share(pair.trigger_answers[1])


def _shift_row(
    unit: str, source: str, *, same: float | None
) -> Callable[[Callable[[Shifted], Tensor | None]], Callable[[Pair], Found]]:
    """Enters the mean over shifts of what each image adds under one; parts: each."""

    def enter(of: Callable[[Shifted], Tensor | None]) -> Callable[[Pair], Found]:
        def terms(pair: Pair) -> dict[str, Tensor]:
            found = {name: of(each) for name, each in pair.shifted.items()}
            return {n: part.double() for n, part in found.items() if part is not None}

        @_row(
            "shift",
            unit,
            source,
            same=same,
            by_class=False,
            in_table=False,
            parts=lambda pair: {n: x.mean().item() for n, x in terms(pair).items()},
        )
        @functools.wraps(of)
        def mean(pair: Pair) -> Found:
            return Statistic(torch.stack([*terms(pair).values()]).mean(0)[:, None])

        return mean

    return enter


@_shift_row("share of images", "fidlib", same=1.0)
def shift_agreement(shown: Shifted) -> Tensor:
    """Both name the same class, on 500 images under every shift."""
    return shown.host.argmax(1) == shown.marked.argmax(1)


@_shift_row("nats", "Lin 1991", same=0.0)
def shift_jensen_shannon(shown: Shifted) -> Tensor:
    """Jensen-Shannon divergence of the two models' probabilities, likewise."""
    return losses.jensen_shannon(shown.host, shown.marked)


@_shift_row("nats", "[2], as spl", same=0.0)
def shift_spl(shown: Shifted) -> Tensor:
    """KL divergence of the marked model's probabilities from the host's, likewise."""
    return losses.divergences(shown.host, shown.marked)


@_shift_row("share of images", "fidlib", same=0.0)
def shift_churn(shown: Shifted) -> Tensor | None:
    """One of the two is right, on 500 images under every shift that keeps labels."""
    if shown.labels is None:
        return None
    host, marked = (part.argmax(1) == shown.labels for part in shown[:2])
    return host != marked


@_shift_row("share of images", "fidlib", same=None)
def host_shift_accuracy(shown: Shifted) -> Tensor | None:
    """Share of images that the host gets right, likewise."""
    return None if shown.labels is None else shown.host.argmax(1) == shown.labels


@_shift_row("share of images", "fidlib", same=None)
def shift_accuracy(shown: Shifted) -> Tensor | None:
    """Share of images that the marked model gets right, likewise."""
    return None if shown.labels is None else shown.marked.argmax(1) == shown.labels


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
