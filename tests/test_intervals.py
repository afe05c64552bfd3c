import numpy as np
import pytest
import torch
from scipy import stats

from fidlib.measures import geometry, intervals, losses
from fidlib.measures.intervals import Statistic, bootstrap, ratio, wilson

rng = np.random.default_rng(0)
VALUES = rng.lognormal(size=(60, 2))
TERMS = torch.from_numpy(VALUES)


def level(count):
    """Of the percentile interval whose half width is Student's, not the normal's."""
    width = stats.t(count - 1).ppf(0.975) * np.sqrt(count / (count - 1))
    return 1 - 2 * stats.norm.sf(width)


def scipys(statistic, count, seed=0):
    """scipy's interval, its statistic computed on the drawn rows themselves."""
    found = stats.bootstrap(
        (np.arange(count),),
        lambda index: statistic(index.astype(int)),
        n_resamples=1000,
        confidence_level=level(count),
        method="percentile",
        vectorized=False,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return pytest.approx((found.low, found.high), rel=1e-10)


def test_bootstrap_equals_scipys_one_measure_at_a_time():
    statistics = {
        "mean": Statistic(TERMS[:, :1]),
        "ratio": ratio(TERMS[:, 0], TERMS[:, 1]),
    }
    found = bootstrap(statistics, seed=3)
    assert found["mean"] == scipys(lambda i: VALUES[i, 0].mean(), 60, seed=3)
    expected = scipys(lambda i: VALUES[i, 0].sum() / VALUES[i, 1].sum(), 60, seed=3)
    assert found["ratio"] == expected
    assert statistics["ratio"].value() == pytest.approx(
        VALUES[:, 0].sum() / VALUES[:, 1].sum()
    )


def test_bootstrap_is_the_same_in_batches_of_any_size(monkeypatch):
    statistics = {"a": Statistic(TERMS[:, :1]), "b": ratio(TERMS[:, 1], TERMS[:, 0])}
    whole = bootstrap(statistics)
    monkeypatch.setattr(intervals, "_BATCH", 600)
    for name, interval in bootstrap(statistics).items():
        assert interval == pytest.approx(whole[name], rel=1e-12)
    assert bootstrap(statistics, seed=1) != whole


def test_bootstrap_has_no_interval_where_a_measure_is_undefined():
    undefined = Statistic(TERMS, lambda means: means[..., 0] * torch.nan)
    at_times = Statistic(
        TERMS[:, :1],
        lambda m: torch.where(m[..., 0] > VALUES[:, 0].mean(), torch.nan, m[..., 0]),
    )
    known = Statistic(TERMS[:, :1])
    found = bootstrap({"undefined": undefined, "at times": at_times, "known": known})
    assert found == bootstrap({"known": known}) | {"undefined": None, "at times": None}
    assert undefined.value() is None
    assert ratio(TERMS[:, 0], 0 * TERMS[:, 0]).value() is None
    assert bootstrap({"one image": Statistic(TERMS[:1, :1])}) == {"one image": None}
    assert bootstrap({}) == {}


def full_cka(x, y, index):
    """CKA on drawn rows; an image drawn twice is not compared with itself."""
    other = index[:, None] != index
    k, m = ((f[index] @ f[index].T) * other for f in (x, y))
    return hsic(k, m, index) / np.sqrt(hsic(k, k, index) * hsic(m, m, index))


def hsic(k, m, index):
    """Averages over tuples of distinct images; weights are how often they came."""
    weights = np.bincount(index)
    p1, p2, p3, p4 = (np.sum(weights.astype(float) ** power) for power in range(1, 5))
    pairs, rows = np.sum(k * m), k.sum(1) @ m.sum(1)
    # i = j = q is gone with the diagonals; j = q by image is what remains to take off.
    same = index[:, None] == index
    triples = rows - np.sum(k * (m @ same))
    twos = k.sum() * m.sum() - 4 * triples - 2 * np.sum(k * (same @ m @ same))
    counts = (
        p1**2 - p2,
        p1**3 - 3 * p1 * p2 + 2 * p3,
        p1**4 - 6 * p1**2 * p2 + 8 * p1 * p3 + 3 * p2**2 - 6 * p4,
    )
    return pairs / counts[0] - 2 * triples / counts[1] + twos / counts[2]


def test_interval_of_cka_is_that_of_a_full_bootstrap():
    x = rng.normal(size=(150, 3))
    y = x + rng.normal(size=(150, 3))
    x, y = x - x.mean(0), y - y.mean(0)
    terms = geometry.cka_terms(torch.from_numpy(x), torch.from_numpy(y))
    (low, high) = bootstrap({"cka": Statistic(terms, geometry.cka_of)})["cka"]
    draws = np.random.default_rng(0).integers(0, 150, (500, 150))
    expected = np.percentile([full_cka(x, y, index) for index in draws], [2.5, 97.5])
    value = geometry.cka(torch.from_numpy(x), torch.from_numpy(y)).item()
    assert full_cka(x, y, np.arange(150)) == pytest.approx(value)
    assert (low, high) == pytest.approx(tuple(expected), abs=0.02)
    assert high - low == pytest.approx(expected[1] - expected[0], rel=0.1)


def test_interval_of_procrustes_is_that_of_a_full_bootstrap():
    x = torch.from_numpy(rng.normal(size=(200, 3)))
    y = x + torch.from_numpy(rng.normal(size=(200, 3)))
    terms = geometry.procrustes_terms(x, y)
    found = bootstrap({"p": Statistic(terms, geometry.procrustes_of)})["p"]
    draws = torch.from_numpy(np.random.default_rng(0).integers(0, 200, (500, 200)))
    full = [geometry.procrustes(x[i], y[i]).item() for i in draws]
    expected = np.percentile(full, [2.5, 97.5])
    assert found == pytest.approx(tuple(expected), abs=0.02)
    assert found[1] - found[0] == pytest.approx(expected[1] - expected[0], rel=0.15)


def covered(interval, truth):
    return interval[0] <= truth <= interval[1]


def test_intervals_of_agreement_cover_at_95_per_cent():
    for truth in (0.9, 0.985):
        counts = np.random.default_rng(1).binomial(500, truth, size=2000)
        by_count = {c: covered(wilson(int(c), 500), truth) for c in np.unique(counts)}
        assert 0.9 <= np.mean([by_count[c] for c in counts]) <= 0.98


def test_intervals_of_pfl_cover_at_95_per_cent():
    draws = np.random.default_rng(2)
    hits = []
    for _ in range(120):
        moves = np.sqrt(draws.lognormal(size=500))[:, None]  # skewed distances
        host = torch.from_numpy(draws.normal(size=(500, 1)))
        distances = losses.feature_distances(host, host + torch.from_numpy(moves))
        found = bootstrap({"pfl": Statistic(distances[:, None])})["pfl"]
        hits.append(covered(found, np.exp(0.5)))
    assert 0.9 <= np.mean(hits) <= 0.98


def test_intervals_of_cka_cover_at_95_per_cent():
    draws = np.random.default_rng(3)
    hits = []
    for _ in range(150):
        x, noise = torch.from_numpy(draws.normal(size=(2, 300, 2)))
        terms = geometry.cka_terms(x, x + noise)
        found = bootstrap({"cka": Statistic(terms, geometry.cka_of)})["cka"]
        hits.append(covered(found, 0.5))  # 1 / (1 + variance of the noise)
    assert 0.9 <= np.mean(hits) <= 0.98


def test_intervals_of_a_few_planes_cover_at_95_per_cent():
    draws = np.random.default_rng(4)
    for shape in ((3, 12), (6, 6)):  # of shares that differ, evenly or not
        hits = []
        for _ in range(150):
            shares = torch.from_numpy(draws.beta(*shape, size=(16, 1)))
            found = bootstrap({"share": Statistic(shares)})["share"]
            hits.append(covered(found, shape[0] / sum(shape)))
        assert 0.92 <= np.mean(hits) <= 0.98


def test_wilson_equals_scipys_and_has_a_width_at_the_ends():
    for count, total in ((15, 50), (0, 500), (500, 500), (1, 2), (9946, 10_000)):
        found = stats.binomtest(count, total).proportion_ci(0.95, "wilson")
        assert wilson(count, total) == pytest.approx((found.low, found.high), abs=1e-12)
    assert wilson(0, 500)[0] == 0
    assert wilson(500, 500)[1] == 1
