import numpy as np
import pytest
import torch
from scipy import stats

from fidlib.measures import geometry
from fidlib.measures.intervals import (
    Statistic,
    gamma,
    paired_gain,
    ratio,
    student,
    wilson,
)

rng = np.random.default_rng(0)
VALUES = rng.lognormal(size=(60, 2))
TERMS = torch.from_numpy(VALUES)


def test_student_equals_scipys():
    values = VALUES[:, 0] - 2
    for level in (0.9, 0.95, 0.995):
        ends = stats.ttest_1samp(values, 0).confidence_interval(level)
        interval = student(torch.from_numpy(values), level)
        assert interval == pytest.approx((ends.low, ends.high), rel=1e-9)


def test_gamma_is_of_the_mean_and_above_of_one_image_more():
    values = np.sort(VALUES[:, 0])
    mean, variance = values.mean(), values.var(ddof=1) / 60
    far = values[-1] + (values[-1] - values[-2])  # as far beyond as the last step
    moments = [(mean, variance)]
    # One image of N that is so far, in place of one at the mean.
    moments.append((mean + (far - mean) / 60, variance + ((far - mean) / 60) ** 2))
    for level in (0.95, 0.995):
        expected = [
            stats.gamma(m**2 / v, scale=v / m).ppf(share)
            for (m, v), share in zip(
                moments, ((1 - level) / 2, (1 + level) / 2), strict=True
            )
        ]
        interval = gamma(torch.from_numpy(values)[torch.randperm(60)], level)
        assert interval == pytest.approx(tuple(expected), rel=1e-9)
        assert interval[0] < mean < interval[1]


def test_gamma_of_equal_distances_has_no_width():
    for value in (0.0, 0.1):
        interval = gamma(torch.full((50,), value, dtype=torch.float64))
        assert interval == pytest.approx((value, value))


def test_a_statistic_is_linear_as_its_slopes_say():
    statistic = ratio(TERMS[:, 0], TERMS[:, 1])
    value = VALUES[:, 0].sum() / VALUES[:, 1].sum()
    assert statistic.value() == pytest.approx(value)
    linear = statistic.linear().numpy()
    assert linear.mean() == pytest.approx(value)
    for image in (0, 17):  # what more of an image adds
        more = VALUES.sum(0) + 1e-6 * VALUES[image]
        change = (more[0] / more[1] - value) / 1e-6 * 60
        assert linear[image] - value == pytest.approx(change, rel=1e-3)
    plain = Statistic(TERMS)
    assert torch.allclose(plain.linear(), TERMS[:, 0])


def test_a_ratio_is_of_those_that_have_a_denominator():
    few = ratio(torch.tensor([3, 0, 1]), torch.tensor([4, 0, 2]))
    assert few.value() == pytest.approx(4 / 6)
    assert len(few.linear()) == 2
    none = ratio(torch.zeros(3), torch.zeros(3))
    assert none.value() is None


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


def test_deviation_of_cka_is_that_of_a_full_bootstrap():
    x = rng.normal(size=(150, 3))
    y = x + rng.normal(size=(150, 3))
    x, y = x - x.mean(0), y - y.mean(0)
    terms = geometry.cka_terms(torch.from_numpy(x), torch.from_numpy(y))
    linear = Statistic(terms, geometry.cka_of).linear()
    draws = np.random.default_rng(0).integers(0, 150, (500, 150))
    full = [full_cka(x, y, index) for index in draws]
    value = geometry.cka(torch.from_numpy(x), torch.from_numpy(y)).item()
    assert full_cka(x, y, np.arange(150)) == pytest.approx(value)
    assert linear.mean().item() == pytest.approx(value)
    assert linear.std().item() / 150**0.5 == pytest.approx(np.std(full), rel=0.1)


def test_deviation_of_procrustes_is_that_of_a_full_bootstrap():
    x = torch.from_numpy(rng.normal(size=(200, 3)))
    y = x + torch.from_numpy(rng.normal(size=(200, 3)))
    terms = geometry.procrustes_terms(x, y)
    linear = Statistic(terms, geometry.procrustes_of).linear()
    draws = torch.from_numpy(np.random.default_rng(0).integers(0, 200, (500, 200)))
    full = [geometry.procrustes(x[i], y[i]).item() for i in draws]
    assert linear.std().item() / 200**0.5 == pytest.approx(np.std(full), rel=0.15)


def test_wilson_equals_scipys_and_has_a_width_at_the_ends():
    for count, total in ((15, 50), (0, 500), (500, 500), (1, 2), (9946, 10_000)):
        for level in (0.95, 0.995):
            interval = stats.binomtest(count, total).proportion_ci(level, "wilson")
            ends = pytest.approx((interval.low, interval.high), abs=1e-12)
            assert wilson(count, total, level) == ends
    assert wilson(0, 500)[0] == 0
    assert wilson(500, 500)[1] == 1


def test_paired_gain_is_that_of_one_image_more_on_either_side():
    changes = np.array([-1.0] * 41 + [1.0] * 21 + [0.0] * 9_940)
    gain, half = paired_gain(0.004, 0.002, 10_000)  # 40 lost and 20 gained
    assert gain == pytest.approx(changes.mean())
    assert half == pytest.approx(1.96 * changes.std() / 10_002**0.5, rel=1e-4)
    assert paired_gain(0.0, 0.0, 500)[1] > 0
