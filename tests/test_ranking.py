import numpy as np
import pandas as pd
import pytest
from scipy import stats

from fidlib.measures import ranking

rng = np.random.default_rng(0)
A = rng.normal(size=(50, 7))


def test_rank_correlation_is_scipys_with_an_interval():
    x = rng.normal(size=40)
    y = np.round(x + rng.normal(size=40), 1)  # with ties
    value, low, high = ranking.rank_correlation(x, y)
    assert value == pytest.approx(stats.spearmanr(x, y).statistic)
    z = stats.norm.ppf(0.975) * np.sqrt((1 + value**2 / 2) / 37)  # Bonett and Wright
    expected = np.tanh([np.arctanh(value) - z, np.arctanh(value) + z])
    assert (low, high) == pytest.approx(expected, abs=0.08)
    assert ranking.rank_correlation(x, -x).value == pytest.approx(-1)
    assert np.isnan(ranking.rank_correlation(x, np.ones(40))).all()


def test_a_rank_correlation_tells_itself_in_words():
    text = str(ranking.rank_correlation([1, 2, 3, 4], [1, 2, 3, 4]))
    assert text == "rank correlation 1.00 [0.00, 1.00]"
    assert str(ranking.rank_correlation([1, 2, 3], [5, 5, 5])) == "no rank correlation"


def test_rank_correlations_equal_scipys():
    frame = pd.DataFrame(A[:12, :3], columns=["x", "y", "z"])
    table = ranking.rank_correlations(frame)
    expected = stats.spearmanr(frame.x, frame.z).statistic
    assert table.loc["x", "z"] == pytest.approx(expected)
    assert table.loc["y", "y"] == 1


def test_rank_correlations_need_three_models_and_every_value():
    frame = pd.DataFrame({"x": [1.0, 2.0, 4.0], "y": [3.0, 4.0, 5.0]})
    assert (ranking.rank_correlations(frame) == 1).all(axis=None)
    assert ranking.rank_correlations(frame[:2]).isna().all(axis=None)
    with pytest.raises(ValueError, match="y is missing"):
        ranking.rank_correlations(pd.DataFrame({"x": [1, 2, 3], "y": [1, None, 3]}))


def test_pareto_front_is_what_nothing_beats():
    costs = pd.DataFrame(
        {"missed": [0.0, 0.1, 0.1, 0.5, 0.0], "pfl": [9.0, 4.0, 5.0, 1.0, 9.0]},
        index=list("abcde"),
    )
    assert ranking.pareto_front(costs).to_dict() == {
        "a": True,  # as good as e
        "b": True,
        "c": False,  # b misses as many, and costs less
        "d": True,
        "e": True,
    }


def test_one_measure_is_ranked_with_others_a_row_each():
    models = pd.DataFrame(A, columns=list("abcdefg"))
    table = ranking.ranked_with(models.a, models[["c", "b"]])
    assert list(table.columns) == ["value", "low", "high"]
    assert list(table.index) == ["c", "b"]
    expected = ranking.rank_correlation(models.a, models.b)
    assert tuple(table.loc["b"]) == pytest.approx(tuple(expected))


def test_what_a_model_does_not_have_is_judged_on_the_others():
    models = pd.DataFrame(A, columns=list("abcdefg"))
    models.loc[[3, 8], "a"] = np.nan
    with pytest.raises(ValueError, match="a is missing"):
        ranking.rank_correlations(models)
    table = ranking.rank_correlations(models, skip_missing=True)
    known = models.drop(index=[3, 8])
    expected = stats.spearmanr(known.a, known.b).statistic
    assert table.loc["a", "b"] == table.loc["b", "a"] == pytest.approx(expected)
    expected = stats.spearmanr(models.b, models.c).statistic
    assert table.loc["b", "c"] == pytest.approx(expected)


def test_measures_are_ranked_with_the_truth_with_and_without_what_is_the_same():
    truth = pd.DataFrame({"images": [0, 0, 0.1, 0.2, 0.3], "away": [0, 0.1, 0.2, 0, 0]})
    measures = pd.DataFrame({"good": [0, 1, 2, 3, 4], "bad": [9, 4, 3, 2, 1]})
    table = ranking.with_truth(measures, truth)
    of_all, changed = ["images, all", "away, all"], ["images, changed", "away, changed"]
    assert list(table.columns) == of_all + changed
    for columns, rows in ((of_all, range(5)), (changed, range(1, 5))):
        for column, kind in zip(columns, truth, strict=True):
            for name in measures:
                pair = measures.loc[rows, name], truth.loc[rows, kind]
                expected = stats.spearmanr(*pair).statistic
                assert table.loc[name, column] == pytest.approx(expected)
