"""How sure a measure is: intervals over images, in closed form.

A `Statistic` is a measure written as a function of means over images; its interval is
that of a mean, of what each image adds to first order. Each kind covers on the values
that real models give, down to a number of images below which none does (`least` of a
measure): `tests/test_coverage.py` has the numbers.
"""

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

LEVEL = 0.95
"""Confidence of an interval that stands alone."""

_NORMAL = NormalDist().inv_cdf((1 + LEVEL) / 2)
"""Half an interval of a normal distribution, in standard deviations: 1.96."""

Interval = tuple[float, float]
"""The two ends of an interval, low and high."""


class Estimate(NamedTuple):
    """A measure with its interval; None where there is no such number."""

    value: float | None
    low: float | None
    high: float | None


NONE = Estimate(None, None, None)


def _first(means: Tensor) -> Tensor:
    return means[..., 0]


class Statistic(NamedTuple):
    """A measure as a function of means over N images, planes or segments."""

    terms: Tensor
    """`(N, T)` what each of them adds to the means."""
    of: Callable[[Tensor], Tensor] = _first
    """Means `(T,)` to the measure; NaN where it is undefined."""

    def value(self) -> float | None:
        """The measure on all N; None where it is undefined."""
        value = self.of(self.terms.double().mean(0)).item()
        return value if math.isfinite(value) else None

    def linear(self) -> Tensor:
        """`(N,)` whose mean is the measure, and moves as it does with each image."""
        terms = self.terms.double()
        with torch.enable_grad():
            means = terms.mean(0).requires_grad_()
            value = self.of(means)
            (slopes,) = torch.autograd.grad(value, means)
        return value.detach() + (terms - means.detach()) @ slopes


def ratio(numerators: Tensor, denominators: Tensor) -> Statistic:
    """The sum of one `(N,)` over the sum of another; what has none there is left out.

    Args:
        numerators: 0 where the denominator is.
        denominators: 0 or more.
    """
    terms = torch.stack([numerators, denominators], 1).double()
    return Statistic(terms[denominators > 0], lambda means: means[0] / means[1])


def student(values: Tensor, level: float = LEVEL) -> tuple[np.ndarray, np.ndarray]:
    """Intervals of means (Student 1908).

    Args:
        values: `(..., N)`, N > 1.
        level: Confidence.

    Returns:
        Low and high ends, `(...)` each.
    """
    from scipy import special

    each = values.double().cpu().numpy()
    count, mean = each.shape[-1], each.mean(-1)
    width = special.stdtrit(count - 1, (1 + level) / 2)
    half = width * each.std(-1, ddof=1) / math.sqrt(count)
    return mean - half, mean + half


def gamma(distances: Tensor, level: float = LEVEL) -> tuple[np.ndarray, np.ndarray]:
    """Intervals of means of what is 0 or more, a few of which may be most of it.

    As of sums of weighted Poisson counts (Fay and Feuer 1997, Statistics in Medicine
    16): quantiles of gamma distributions that have the mean and its variance. Above,
    as if one of the images were farther than any of these: as far beyond the largest as
    this is beyond the second (Robson and Whitlock 1964, Biometrika 51).

    Args:
        distances: `(..., N)`, N > 1; to first order, so that some may be below 0.
        level: Confidence.

    Returns:
        Low and high ends, `(...)` each.
    """
    each = distances.double().cpu().numpy()
    count, mean = each.shape[-1], each.mean(-1)
    variance = each.var(-1, ddof=1) / count
    # Of distances 0 or more the variance is at most the mean's square. Where it is next
    # to nothing, a gamma distribution is the normal one.
    plain = (mean <= 0) | (variance > 4 * mean**2) | (variance <= (1e-6 * mean) ** 2)
    mean, variance = np.where(plain, 1, mean), np.where(plain, 1, variance)
    second, largest = np.moveaxis(np.partition(each, count - 2)[..., -2:], -1, 0)
    more = np.maximum(2 * largest - second - mean, 0) / count
    beyond = (1 - level) / 2
    low = _quantile(beyond, mean, variance)
    high = _quantile(1 - beyond, mean + more, variance + more**2)
    ends = student(distances, level)
    return np.where(plain, ends[0], low), np.where(plain, ends[1], high)


def _quantile(share: float, mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Of the gamma distributions with these moments."""
    from scipy import special

    return special.gammaincinv(mean**2 / variance, share) * variance / mean


def wilson(count: int, total: int, level: float = LEVEL) -> Interval:
    """Interval of a share, such as an accuracy (Wilson 1927).

    It has a width at 0 of N and N of N as well.

    Args:
        count: How many have the property.
        total: Of how many, N > 0.
        level: Confidence.
    """
    normal = NormalDist().inv_cdf((1 + level) / 2)
    share, width = count / total, normal**2 / total
    middle = (share + width / 2) / (1 + width)
    spread = (width * (share * (1 - share) + width / 4)) ** 0.5 / (1 + width)
    low = middle - spread if count else 0.0
    return low, middle + spread if count < total else 1.0


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
    return gain, _NORMAL * ((lost + gained - gain**2) / more) ** 0.5
