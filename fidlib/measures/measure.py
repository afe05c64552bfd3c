"""A measure: a number about two models, what is to be known of it, its interval."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from fidlib.measures.intervals import NONE, Estimate, Statistic, bootstrap
from fidlib.measures.pair import Pair

Level = Literal[
    "weights", "features", "layers", "outputs", "boundary", "triggers", "shift"
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


def row(
    level: Level, unit: str, source: str, **options: Any
) -> Callable[[Callable[[Pair], Found]], Callable[[Pair], Found]]:
    """Enters a function in `MEASURES`, under its own name."""

    def enter(of: Callable[[Pair], Found]) -> Callable[[Pair], Found]:
        told = {"level": level, "unit": unit, "source": source, **options}
        MEASURES[of.__name__] = Measure(name=of.__name__, of=of, **told)
        return of

    return enter
