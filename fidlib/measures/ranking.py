"""How measures order models: rank correlations and the Pareto front."""

import math
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

RESAMPLES = 1000
"""Resamples of a bootstrap."""


class RankCorrelation(NamedTuple):
    """Spearman's, with its interval; as text, it says so."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if math.isnan(self.value):
            return "no rank correlation"
        return f"rank correlation {self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def rank_correlation(x: ArrayLike, y: ArrayLike, *, seed: int = 0) -> RankCorrelation:
    """Spearman's rank correlation of two measures, with its interval over models.

    1 where they order the models alike, -1 where oppositely.

    Args:
        x: `(M,)` one measure of M models, three or more.
        y: `(M,)` the other.
        seed: Decides the resamples.

    Returns:
        All NaN where one of the two orders nothing, and for fewer than three models.
    """
    from scipy import stats

    pair = np.asarray(x, float), np.asarray(y, float)
    if len(pair[0]) < 3 or any(np.ptp(values) == 0 for values in pair):
        return RankCorrelation(math.nan, math.nan, math.nan)
    interval = stats.bootstrap(
        pair,
        _spearman,
        paired=True,
        n_resamples=RESAMPLES,
        confidence_level=_expanded(len(pair[0])),
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    value = float(_spearman(*pair))
    return RankCorrelation(value, float(interval.low), float(interval.high))


def ranked_with(values: pd.Series, others: pd.DataFrame) -> pd.DataFrame:
    """The rank correlation of one measure with others, over models.

    Args:
        values: A value per model.
        others: The same models; a column per measure.

    Returns:
        A row per measure; columns `value`, `low`, `high`.
    """
    rows = {name: rank_correlation(values, column) for name, column in others.items()}
    return pd.DataFrame(rows, index=list(RankCorrelation._fields)).T


def rank_correlations(
    measures: pd.DataFrame,
    others: pd.DataFrame | None = None,
    *,
    skip_missing: bool = False,
) -> pd.DataFrame:
    """The rank correlations of measures with others, over models.

    Args:
        measures: A row per model; a column per measure.
        others: The same models; `measures` themselves when None.
        skip_missing: Judge a measure that a model does not have on the others.

    Returns:
        A row per measure, a column per other one, of values alone.

    Raises:
        ValueError: If a value is missing, and is not to be skipped.
    """
    others = measures if others is None else others
    for frame in () if skip_missing else (measures, others):
        if frame.isna().any(axis=None):
            raise ValueError(
                f"{', '.join(frame.columns[frame.isna().any()])} is missing for a "
                "model; leave out that model or that measure."
            )
    return pd.DataFrame(
        {
            name: {n: spearman(x.to_numpy(), y.to_numpy()) for n, x in measures.items()}
            for name, y in others.items()
        }
    )


def with_truth(measures: pd.DataFrame, truth: pd.DataFrame) -> pd.DataFrame:
    """How measures order models that are known to differ from a host by so much.

    Args:
        measures: A row per model; a column per measure. One that a model does not have
            is judged on the others.
        truth: The same models; a column per kind of change.

    Returns:
        A row per measure. Columns: each kind with `, all` appended, of all models, then
        with `, changed`, of those that changed in any way.
    """
    changed = truth.any(axis=1)
    groups = {", all": changed | True, ", changed": changed}
    ranks = (
        rank_correlations(
            measures.loc[rows], truth.loc[rows], skip_missing=True
        ).add_suffix(who)
        for who, rows in groups.items()
    )
    return pd.concat(ranks, axis=1)


def _expanded(count: int) -> float:
    """Level at which a percentile interval is as wide as Student's for a mean of N.

    As Hesterberg 2015 (The American Statistician 69:4) advises, for those of a few
    models would be too narrow.
    """
    from scipy import stats

    width = math.sqrt(count / (count - 1)) * stats.t.ppf(0.975, count - 1)
    return min(math.erf(width / math.sqrt(2)), 1 - 1e-9)


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's rank correlation of those `(M,)` of which both are known, alone.

    NaN where one of the two orders nothing, and for fewer than three.
    """
    known = ~(np.isnan(x) | np.isnan(y))
    x, y = x[known], y[known]
    few = len(x) < 3 or any(np.ptp(values) == 0 for values in (x, y))
    return math.nan if few else float(_spearman(x, y))


def _spearman(a: np.ndarray, b: np.ndarray, axis: int = -1) -> np.ndarray:
    from scipy import stats

    a, b = (stats.rankdata(values, axis=axis) for values in (a, b))
    a, b = (ranks - ranks.mean(axis, keepdims=True) for ranks in (a, b))
    scale = np.sqrt((a**2).sum(axis) * (b**2).sum(axis))
    return (a * b).sum(axis) / np.where(scale > 0, scale, np.inf)


def pareto_front(costs: pd.DataFrame) -> pd.Series:
    """Which rows no other row beats: none is as low in every column and lower in one.

    Args:
        costs: A row per model, a column per cost, each better when lower.

    Returns:
        Bool, a value per row.
    """
    values = costs.to_numpy(float)[:, None]
    others = values.swapaxes(0, 1)
    beaten = (others <= values).all(2) & (others < values).any(2)
    return pd.Series(~beaten.any(-1), costs.index)
