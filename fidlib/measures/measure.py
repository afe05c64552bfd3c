"""A measure: a number about two models, what is to be known of it, its interval."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from fidlib.measures.intervals import (
    NONE,
    Estimate,
    Interval,
    Statistic,
    gamma,
    student,
)
from fidlib.measures.pair import Pair

OF_A_CLASS = 8
"""A class needs so many times more images for an interval: those of all classes should
hold at once, which the tails decide."""

Level = Literal[
    "weights",
    "features",
    "layers",
    "outputs",
    "halves",
    "boundary",
    "triggers",
    "shift",
]

ON_REQUEST = ("layers", "halves", "shift")
"""Levels whose measures are made if they are named: they run the models for long, or
are for comparisons over models."""

Found = Statistic | Estimate | float | None
"""What a measure's function gives: a statistic gets its interval as its row says; None
where there is nothing to measure."""


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A number about two models, and what is to be known of it."""

    name: str
    """What code, tables and pictures call it."""
    level: Level
    """What it looks at."""
    unit: str
    """Unit of its values, in words."""
    source: str
    """Where its definition is from."""
    same: float | None
    """Its value for two models that are the same; None if it does not compare them."""
    of: Callable[[Pair], Found]
    """Computes it, on all images or on those of a class (`Pair.only`)."""
    by_class: bool = True
    """Whether it has a value for each class."""
    parts: Callable[[Pair], dict[str, float]] | None = None
    """What it is the sum or the mean of, or what it leaves out, by name."""
    least: int = 2
    """Images, planes or segments from which a statistic has an interval: below, none is
    known that covers on the values of real models."""
    signed: bool = False
    """Whether it goes either way from `same`; else it is how far from it."""
    in_table: bool = True
    """Whether tables of models show it, or reports alone."""
    version: int = 1
    """Raised when its values change: those stored under another are not read."""


MEASURES: dict[str, Measure] = {}
"""Name -> measure, in the order of a report."""


class Measured(NamedTuple):
    """A measure of one pair."""

    estimate: Estimate
    """Its value and interval on all images."""
    by_class: list[Estimate]
    """On those of each class; empty if it has none by class."""
    parts: dict[str, float]
    """What it is the sum or mean of; often empty."""


def measure(pair: Pair, names: Sequence[str]) -> dict[str, Measured]:
    """Measures of a pair with their intervals, those of the classes hold all at once.

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
    # A measure of the user's own may change what it looks at: it is the last to look.
    rows.sort(key=lambda row: not row.of.__module__.startswith("fidlib."))
    groups = [*map(pair.only, range(pair.num_classes))]
    with torch.autocast(pair.split.images.device.type, enabled=False):
        results = {
            row.name: Measured(
                _estimate(row, pair),
                [_estimate(row, group) for group in groups if row.by_class],
                row.parts(pair) if row.parts else {},
            )
            for row in rows
        }
    return {name: results[name] for name in names}


def value(pair: Pair, name: str) -> float | None:
    """One measure of a pair on all images, without its interval."""
    result = MEASURES[name].of(pair)
    if isinstance(result, Statistic):
        return result.value()
    return result.value if isinstance(result, Estimate) else result


def _of(row: Measure, group: Pair) -> Found:
    if row.level in ("features", "outputs") and not len(group):
        return None
    return row.of(group)


def _estimate(row: Measure, group: Pair) -> Estimate:
    result = _of(row, group)
    if isinstance(result, Estimate):
        return result
    if not isinstance(result, Statistic):
        return NONE if result is None else Estimate(float(result), None, None)
    value, least = result.value(), row.least
    if group.label is not None:
        least *= OF_A_CLASS
    if value is None or len(result.terms) < max(least, 2):
        return Estimate(value, None, None)
    return Estimate(value, *_interval(row, result.linear(), group.level))


def _interval(row: Measure, values: Tensor, level: float) -> Interval:
    """Of a mean: of signed values, or of distances from `same`, on either side."""
    if row.signed or row.same is None:
        low, high = student(values, level)
        return float(low), float(high)
    side = -1 if values.mean() < row.same else 1
    ends = gamma((values - row.same) * side, level)
    low, high = sorted(row.same + side * float(end) for end in ends)
    return low, high


def usual() -> list[str]:
    """Measures that a report has when none are named."""
    return [name for name, row in MEASURES.items() if row.level not in ON_REQUEST]


def row(
    level: Level, unit: str, source: str, **options: Any
) -> Callable[[Callable[[Pair], Found]], Callable[[Pair], Found]]:
    """Enters a function in `MEASURES`, under its own name; see `Measure`."""

    def enter(of: Callable[[Pair], Found]) -> Callable[[Pair], Found]:
        fields = {"level": level, "unit": unit, "source": source, **options}
        MEASURES[of.__name__] = Measure(name=of.__name__, of=of, **fields)
        return of

    return enter
