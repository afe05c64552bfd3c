"""How sure a measure is: 95 % intervals, by scipy.

A `Statistic` is a measure written as a function of means over images. Drawing images
again then only reweights the means, so one matrix product gives every measure on every
resample.
"""

import math
from collections.abc import Callable, Hashable, Mapping
from statistics import NormalDist
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

LEVEL = 0.95
"""Confidence of every interval."""

_NORMAL = NormalDist().inv_cdf((1 + LEVEL) / 2)
"""Half an interval of a normal distribution, in standard deviations: 1.96."""

RESAMPLES = 1000
"""Of a bootstrap."""

_BATCH = 5_000_000
"""Indices drawn at a time: bounds the memory (80 MB)."""

Interval = tuple[float, float]
"""Low and high."""


class Estimate(NamedTuple):
    """A measure with its interval; None where there is no such number."""

    value: float | None
    low: float | None
    high: float | None


NONE = Estimate(None, None, None)

Key = TypeVar("Key", bound=Hashable)


def _first(means: Tensor) -> Tensor:
    return means[..., 0]


class Statistic(NamedTuple):
    """A measure as a function of means over N images, planes or segments."""

    terms: Tensor
    """`(N, T)` what each of them adds to the means."""
    of: Callable[[Tensor], Tensor] = _first
    """Means `(..., T)` to the measure `(...)`; NaN where it is undefined."""

    def value(self) -> float | None:
        """The measure on all N; None where it is undefined."""
        found = self.of(self.terms.mean(0)).item()
        return found if np.isfinite(found) else None


def ratio(numerators: Tensor, denominators: Tensor) -> Statistic:
    """The sum of one `(N,)` over the sum of another."""
    terms = torch.stack([numerators, denominators], 1)
    return Statistic(terms.double(), lambda means: means[..., 0] / means[..., 1])


def bootstrap(
    statistics: Mapping[Key, Statistic], *, seed: int = 0
) -> dict[Key, Interval | None]:
    """Percentile intervals of several measures on the same N images (Efron 1979).

    They are expanded as Hesterberg 2015 (The American Statistician 69:4) advises, for
    those of a few planes would be too narrow.

    Args:
        statistics: By name, each with terms of N rows. They share the resamples, drawn
            once by `scipy.stats.bootstrap`.
        seed: Decides the resamples.

    Returns:
        Intervals by name; None where the measure is undefined, on all images or on a
        resample of them, and where N is 1.
    """
    from scipy import stats

    found: dict[Key, Interval | None] = dict.fromkeys(statistics)
    known = {n: s for n, s in statistics.items() if s.value() is not None}
    count = len(next(iter(known.values())).terms) if known else 0
    if count < 2:
        return found
    widths = [s.terms.shape[1] for s in known.values()]
    terms = torch.cat([s.terms.double().cpu() for s in known.values()], 1)
    defined = torch.ones(len(known), dtype=torch.bool)

    def measures(indices: np.ndarray, axis: int) -> np.ndarray:
        """`(M, B)` of `(B, N)` indices: scipy joins batches along the last axis."""
        rows = torch.from_numpy(indices).view(-1, count)
        times = torch.zeros(rows.shape, dtype=torch.float64)
        times.scatter_add_(1, rows, torch.ones_like(times[:1, :1]).expand_as(times))
        parts = (times @ terms / count).split(widths, 1)
        values = [s.of(m) for s, m in zip(known.values(), parts, strict=True)]
        stacked = torch.stack(values)
        defined.logical_and_(stacked.isfinite().all(1))
        return stacked.nan_to_num(0, 0, 0).numpy()

    low, high = stats.bootstrap(
        (np.arange(count),),
        measures,
        n_resamples=RESAMPLES,
        batch=max(1, _BATCH // count),
        confidence_level=expanded(count),
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    for name, *bounds, sure in zip(known, low, high, defined, strict=True):
        if sure:
            found[name] = (float(bounds[0]), float(bounds[1]))
    return found


def expanded(count: int) -> float:
    """Level at which a percentile interval is as wide as Student's for a mean of N."""
    from scipy import stats

    width = math.sqrt(count / (count - 1)) * stats.t.ppf((1 + LEVEL) / 2, count - 1)
    return min(math.erf(width / math.sqrt(2)), 1 - 1e-9)


def paired_gain(lost: float, gained: float, count: int) -> tuple[float, float]:
    """How much more often the second of two answers to each of N images is right.

    One more image is counted as lost and one as gained, so that the interval has a
    width where none was (Bonett and Price 2012, J. Educ. Behav. Stat. 37).

    Args:
        lost: Share of the images that only the first answer gets right.
        gained: Share that only the second gets right.
        count: N.

    Returns:
        The gain in accuracy, and half its interval.
    """
    more = count + 2
    lost, gained = ((share * count + 1) / more for share in (lost, gained))
    gain = gained - lost
    return gain, 1.96 * ((lost + gained - gain**2) / more) ** 0.5


def wilson(count: int, total: int) -> Interval:
    """Interval of a share, such as an accuracy (Wilson 1927).

    It has a width at 0 of N and N of N as well, where a bootstrap has none.

    Args:
        count: How many have the property.
        total: Of how many, N > 0.
    """
    share, width = count / total, _NORMAL**2 / total
    middle = (share + width / 2) / (1 + width)
    spread = (width * (share * (1 - share) + width / 4)) ** 0.5 / (1 + width)
    low = middle - spread if count else 0.0
    return low, middle + spread if count < total else 1.0
