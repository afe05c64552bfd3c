"""The measures: what each is called, what it says, and how it is computed.

A measure is a function of a `Pair` and a row of `MEASURES`. [1] and [2] are the papers
named in the README.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

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
from fidlib.measures.pair import Pair, Probe

Level = Literal["weights", "features", "outputs", "boundary", "triggers"]

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


def _twl(pair: Pair) -> Found:
    return None if pair.weights is None else losses.twl(*pair.weights).item()


def _twl_relative(pair: Pair) -> Found:
    if pair.weights is None:
        return None
    size = sum(p.square().sum() for p in pair.weights[0].values())
    return (losses.twl(*pair.weights) / size).item()


def _twl_layers(pair: Pair) -> dict[str, float]:
    host, marked = pair.weights or ({}, {})
    found: dict[str, float] = defaultdict(float)
    for name in host:
        found[name.rpartition(".")[0]] += (
            (marked[name] - host[name]).square().sum().item()
        )
    return dict(found)


def _lp(pair: Pair) -> Found:
    host, marked = pair.prototypes
    return losses.lp(host, marked).item() if host.shape == marked.shape else None


def _pfl(pair: Pair) -> Found:
    x, y = pair.features
    if x.shape != y.shape:
        return None
    return Statistic(losses.feature_distances(x, y)[:, None])


def _pfl_relative(pair: Pair) -> Found:
    x, y = pair.features
    if x.shape != y.shape:
        return None
    spread = geometry.centered(x)[0].square().sum(1)
    return ratio(losses.feature_distances(x, y), spread)


def _cka(pair: Pair) -> Found:
    if len(pair) < 4:
        return None
    return Statistic(geometry.cka_terms(*pair.features), geometry.cka_of)


def _procrustes(pair: Pair) -> Found:
    return Statistic(geometry.procrustes_terms(*pair.features), geometry.procrustes_of)


def _neighbor_overlap(pair: Pair) -> Found:
    kept = pair.kept_neighbors
    return None if kept is None else Statistic(kept[:, None])


def _spl(pair: Pair) -> Found:
    return Statistic(losses.divergences(*pair.logits)[:, None])


def _jensen_shannon(pair: Pair) -> Found:
    return Statistic(losses.jensen_shannon(*pair.logits)[:, None])


def _margin_change(pair: Pair) -> Found:
    if pair.num_classes < 2:
        return None
    before, after = (losses.margins(logits, pair.labels) for logits in pair.logits)
    return Statistic((after - before)[:, None])


def _ece_change(pair: Pair) -> Found:
    before, after = (
        losses.calibration_error(logits, pair.labels) for logits in pair.logits
    )
    # Without an interval: resampling adds the bias that binning has, and is too sure.
    # In simulations of a true change of .03 and .05 intervals covered less than 75 %.
    return after - before if abs(after - before) >= 1e-12 else 0.0


def _agreement(pair: Pair) -> Found:
    host, marked = pair.answers
    return _share(host == marked)


def _churn_lost(pair: Pair) -> Found:
    host, marked = pair.answers
    return _share((host == pair.labels) & (marked != pair.labels))


def _churn_gained(pair: Pair) -> Found:
    host, marked = pair.answers
    return _share((host != pair.labels) & (marked == pair.labels))


def _host_accuracy(pair: Pair) -> Found:
    return _share(pair.answers[0] == pair.labels)


def _accuracy(pair: Pair) -> Found:
    return _share(pair.answers[1] == pair.labels)


def _plane_disagreement(pair: Pair) -> Found:
    return _disagreement(pair, pair.planes)


def _trigger_plane_disagreement(pair: Pair) -> Found:
    return _disagreement(pair, pair.trigger_planes)


def _plane_shares(pair: Pair) -> dict[str, float]:
    if pair.planes is None:
        return {}
    host, marked = (part.argmax(2) for part in pair.planes[1:])
    shares = (host != marked).double().mean(1).tolist()
    return {str(number): share for number, share in enumerate(shares)}


def _boundary_shift(pair: Pair) -> Found:
    if (found := pair.segments) is None:
        return None
    before, after = (_reach(found.points, x) for x in (found.host, found.marked))
    first = found.host.argmax(2)[:, 0]
    inside = torch.ones_like(first) if pair.label is None else first == pair.label
    return ratio((after - before).abs() * inside, inside)


def _host_trigger_accuracy(pair: Pair) -> Found:
    return None if pair.trigger_answers is None else _share(pair.trigger_answers[0])


def _trigger_accuracy(pair: Pair) -> Found:
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


_ROWS = (
    # Total weight loss: squared L2 distance of all parameters.
    Measure(
        name="twl",
        level="weights",
        unit="squared weights",
        source="[2], total weight loss",
        same=0.0,
        of=_twl,
        by_class=False,
        parts=_twl_layers,
    ),
    Measure(
        name="twl_relative",
        level="weights",
        unit="TWL over the squared norm of the host's parameters",
        source="fidlib",
        same=0.0,
        of=_twl_relative,
        in_table=False,
        by_class=False,
    ),
    # Prototype loss; of a class: its prototype's.
    Measure(
        name="lp",
        level="weights",
        unit="squared weights of the head",
        source="[2], prototype loss",
        same=0.0,
        of=_lp,
    ),
    # Penultimate feature loss: mean squared distance of the features.
    Measure(
        name="pfl",
        level="features",
        unit="squared features",
        source="[2], penultimate feature loss",
        same=0.0,
        of=_pfl,
    ),
    # On the same images.
    Measure(
        name="pfl_relative",
        level="features",
        unit="PFL over the total variance of the host's features",
        source="fidlib",
        same=0.0,
        of=_pfl_relative,
        in_table=False,
    ),
    # 1 when alike up to rotation, shift and scale.
    Measure(
        name="cka",
        level="features",
        unit="similarity, at most 1",
        source="Kornblith et al. 2019, debiased by Song et al. 2012",
        same=1.0,
        of=_cka,
        in_table=False,
    ),
    # What no rotation, shift and scale explains.
    Measure(
        name="procrustes",
        level="features",
        unit="share of the features' variance",
        source="scipy.spatial.procrustes",
        same=0.0,
        of=_procrustes,
        in_table=False,
    ),
    # Mean share of an image's ten nearest neighbours, in features, that are kept.
    Measure(
        name="neighbor_overlap",
        level="features",
        unit="share of neighbours",
        source="fidlib",
        same=1.0,
        of=_neighbor_overlap,
        in_table=False,
    ),
    # Mean KL divergence from the host.
    Measure(
        name="spl",
        level="outputs",
        unit="nats",
        source="[2], softmax probability-distribution loss",
        same=0.0,
        of=_spl,
    ),
    Measure(
        name="jensen_shannon",
        level="outputs",
        unit="nats",
        source="Lin 1991",
        same=0.0,
        of=_jensen_shannon,
        in_table=False,
    ),
    # Both name the same class.
    Measure(
        name="agreement",
        level="outputs",
        unit="share of images",
        source="fidlib",
        same=1.0,
        of=_agreement,
    ),
    # The host is right and the marked model wrong; then the other way round.
    Measure(
        name="churn_lost",
        level="outputs",
        unit="share of images",
        source="fidlib",
        same=0.0,
        of=_churn_lost,
        in_table=False,
    ),
    Measure(
        name="churn_gained",
        level="outputs",
        unit="share of images",
        source="fidlib",
        same=0.0,
        of=_churn_gained,
        in_table=False,
    ),
    # Mean change of the true class's logit over the best other.
    Measure(
        name="margin_change",
        level="outputs",
        unit="logits",
        source="fidlib",
        same=0.0,
        of=_margin_change,
        in_table=False,
    ),
    # Change of the expected calibration error, in 15 bins.
    Measure(
        name="ece_change",
        level="outputs",
        unit="probability",
        source="Guo et al. 2017",
        same=0.0,
        of=_ece_change,
        in_table=False,
    ),
    Measure(
        name="host_accuracy",
        level="outputs",
        unit="share of images",
        source="fidlib",
        same=None,
        of=_host_accuracy,
        in_table=False,
    ),
    # Of the marked model.
    Measure(
        name="accuracy",
        level="outputs",
        unit="share of images",
        source="fidlib",
        same=None,
        of=_accuracy,
    ),
    # In triangles of three images of three classes; of a class: of the points that the
    # host gives it.
    Measure(
        name="plane_disagreement",
        level="boundary",
        unit="share of points",
        source="fidlib",
        same=0.0,
        of=_plane_disagreement,
        parts=_plane_shares,
        version=2,
    ),
    # The same between a trigger, an image of the class that the host gives it and one
    # of the class that its label says.
    Measure(
        name="trigger_plane_disagreement",
        level="boundary",
        unit="share of points",
        source="fidlib",
        same=0.0,
        of=_trigger_plane_disagreement,
        in_table=False,
        version=2,
    ),
    # Mean absolute change of the distance from an image to the first change of the
    # answer, towards an image of another class.
    Measure(
        name="boundary_shift",
        level="boundary",
        unit="L2 of pixels in [0, 1]",
        source="fidlib",
        same=0.0,
        of=_boundary_shift,
        in_table=False,
    ),
    # Near 1/K.
    Measure(
        name="host_trigger_accuracy",
        level="triggers",
        unit="share of triggers",
        source="fidlib",
        same=None,
        of=_host_trigger_accuracy,
        in_table=False,
    ),
    # Of the marked model.
    Measure(
        name="trigger_accuracy",
        level="triggers",
        unit="share of triggers",
        source="fidlib",
        same=None,
        of=_trigger_accuracy,
    ),
)

MEASURES: dict[str, Measure] = {row.name: row for row in _ROWS}
"""Name -> measure, in the order of a report."""
