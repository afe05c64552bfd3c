import itertools

import numpy as np
import pytest
import torch
from scipy import spatial
from scipy.stats import ortho_group

from fidlib.measures import geometry

rng = np.random.default_rng(0)
X = rng.normal(size=(40, 5)) + 3
Y = X @ rng.normal(size=(5, 5)) + rng.normal(size=(40, 5))
TX, TY = torch.from_numpy(X), torch.from_numpy(Y)
TURNED = torch.from_numpy(7 * X @ ortho_group.rvs(5, random_state=0) - 2)


def kernels(*features):
    products = [f @ f.T for f in features]
    for kernel in products:
        np.fill_diagonal(kernel, 0)
    return products


def unbiased_hsic(x, y):
    """Song et al. 2012, equation 5, with the N x N matrices it is written in."""
    k, m = kernels(x, y)
    n, one = len(x), np.ones(len(x))
    total = np.trace(k @ m) + (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2))
    return (total - 2 / (n - 2) * one @ k @ m @ one) / (n * (n - 3))


def naive_cka(x, y):
    return unbiased_hsic(x, y) / np.sqrt(unbiased_hsic(x, x) * unbiased_hsic(y, y))


def biased_cka(x, y):
    x, y = x - x.mean(0), y - y.mean(0)
    norms = np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
    return np.linalg.norm(x.T @ y) ** 2 / norms


def weighted_hsic(x, y, weights):
    """Averages over all tuples of distinct images, each with the product of weights."""
    k, m = kernels(x, y)
    averages = []
    for size, term in (
        (2, lambda i, j: k[i, j] * m[i, j]),
        (3, lambda i, j, q: k[i, j] * m[i, q]),
        (4, lambda i, j, q, r: k[i, j] * m[q, r]),
    ):
        tuples = list(itertools.permutations(range(len(x)), size))
        products = [np.prod(weights[list(t)]) for t in tuples]
        values = [term(*t) for t in tuples]
        averages.append(np.dot(products, values) / np.sum(products))
    return averages[0] - 2 * averages[1] + averages[2]


def test_cka_equals_the_formula_with_kernel_matrices():
    assert geometry.cka(TX, TY).item() == pytest.approx(naive_cka(X, Y), rel=1e-10)
    narrow = geometry.cka(TX, TY[:, :3]).item()
    assert narrow == pytest.approx(naive_cka(X, Y[:, :3]), rel=1e-10)
    few = geometry.cka(TX[:4], TY[:4]).item()
    assert few == pytest.approx(naive_cka(X[:4], Y[:4]), rel=1e-8)


def test_cka_terms_give_its_change_with_each_weight():
    x, y = X[:7] - X[:7].mean(0), Y[:7, :3] - Y[:7, :3].mean(0)
    terms = geometry.cka_terms(torch.from_numpy(x), torch.from_numpy(y)).numpy()

    def by_tuples(weights):
        norms = weighted_hsic(x, x, weights) * weighted_hsic(y, y, weights)
        return weighted_hsic(x, y, weights) / np.sqrt(norms)

    def by_terms(weights):
        means = weights @ terms / weights.sum()
        return geometry.cka_of(torch.from_numpy(means)).item()

    assert by_terms(np.ones(7)) == pytest.approx(by_tuples(np.ones(7)))
    for image in range(7):
        steps = [np.ones(7) + sign * 1e-4 * np.eye(7)[image] for sign in (-1, 1)]
        change, expected = (f(steps[1]) - f(steps[0]) for f in (by_terms, by_tuples))
        assert change == pytest.approx(expected, rel=1e-5)


def test_cka_of_independent_features_is_near_zero_where_the_biased_is_not():
    drawn = np.random.default_rng(1).normal(size=(30, 2, 20, 50))
    values = [geometry.cka(*map(torch.from_numpy, pair)).item() for pair in drawn]
    assert abs(np.mean(values)) < 0.03
    assert np.mean([biased_cka(*pair) for pair in drawn]) > 0.6


def test_cka_and_procrustes_ignore_rotation_shift_and_scale():
    assert geometry.cka(TX, TURNED).item() == pytest.approx(1)
    assert geometry.procrustes(TX, TURNED).item() == pytest.approx(0, abs=1e-10)
    for measure in (geometry.cka, geometry.procrustes):
        assert measure(TURNED, TY).item() == pytest.approx(measure(TX, TY).item())
        assert measure(TY, TX).item() == pytest.approx(measure(TX, TY).item())
        assert 0.05 < measure(TX, TY).item() < 0.95


def test_features_with_themselves_are_exactly_alike():
    assert geometry.cka(TX, TX).item() == 1
    assert geometry.procrustes(TX, TX).item() == 0
    assert (geometry.neighbor_overlap(TX, TX) == 1).all()


def test_procrustes_equals_scipys_disparity():
    for y in (Y, rng.normal(size=Y.shape)):
        expected = spatial.procrustes(X, y)[2]
        value = geometry.procrustes(TX, torch.from_numpy(y)).item()
        assert value == pytest.approx(expected, rel=1e-10)
    padded = spatial.procrustes(X, np.pad(Y[:, :2], ((0, 0), (0, 3))))[2]
    assert geometry.procrustes(TX, TY[:, :2]).item() == pytest.approx(padded)


def shared_neighbors(x, y, size):
    """Of each row, by all distances."""
    near = []
    for features in (x, y):
        distances = spatial.distance.cdist(features, features)
        np.fill_diagonal(distances, np.inf)
        near.append([set(row[:size]) for row in distances.argsort()])
    return np.array([len(a & b) / size for a, b in zip(*near, strict=True)])


def test_neighbor_overlap_counts_shared_neighbors_beyond_chance():
    x, y = np.random.default_rng(3).normal(size=(2, 200, 3))
    y = x + 0.3 * y
    chance = 4 / 199  # the nearest 2 % of 200
    expected = (shared_neighbors(x, y, 4) - chance) / (1 - chance)
    overlap = geometry.neighbor_overlap(*map(torch.from_numpy, (x, y)))
    assert overlap.numpy() == pytest.approx(expected)
    assert 0.1 < expected.mean() < 0.9
    few = geometry.neighbor_overlap(TX, TY)  # of 40: the nearest one
    expected = (shared_neighbors(X, Y, 1) - 1 / 39) / (1 - 1 / 39)
    assert few.numpy() == pytest.approx(expected)


def test_neighbor_overlap_is_one_under_isometry_and_none_without_relation():
    assert (geometry.neighbor_overlap(TX, TURNED) == 1).all()
    drawn = torch.from_numpy(np.random.default_rng(2).normal(size=(2, 4000, 3)))
    for size in (50, 500, 4000):
        overlap = geometry.neighbor_overlap(*drawn[:, :size]).mean().item()
        assert overlap == pytest.approx(0, abs=0.03)


def test_neighbor_overlap_hardly_depends_on_the_number_of_images():
    x, noise = torch.from_numpy(np.random.default_rng(4).normal(size=(2, 4000, 2)))
    overlaps = [
        geometry.neighbor_overlap(x[rows], (x + noise / 10)[rows]).mean().item()
        for rows in (slice(500), slice(1000), slice(4000))
    ]
    assert max(overlaps) - min(overlaps) < 0.05
    assert 0.3 < overlaps[0] < 0.9


def test_procrustes_null_is_what_unrelated_features_leave():
    x, noise = np.random.default_rng(5).normal(size=(2, 50, 64))
    y = x + 0.3 * noise
    alone = [
        spatial.procrustes(x, y[np.random.default_rng(n).permutation(50)])[2]
        for n in range(10)
    ]
    pair = torch.from_numpy(x), torch.from_numpy(y)
    value = geometry.procrustes_null(*pair, torch.Generator().manual_seed(0))
    assert value == pytest.approx(np.mean(alone), abs=0.01)
    assert 0.3 < value < 0.5  # far from 1: of few images in many dimensions
    assert geometry.procrustes(*pair).item() < 0.1
    many = torch.from_numpy(np.random.default_rng(6).normal(size=(2, 5000, 2)))
    value = geometry.procrustes_null(*many, torch.Generator().manual_seed(0))
    assert value == pytest.approx(1, abs=0.01)


def test_undefined_measures_say_so():
    constant = torch.full((40, 5), 0.1, dtype=torch.float64)
    for pair in ((TX, constant), (constant, TX), (constant, constant)):
        for measure in (geometry.cka, geometry.procrustes):
            with pytest.raises(ValueError, match="the same for all images"):
                measure(*pair)
        with pytest.raises(ValueError, match="none is nearest"):
            geometry.neighbor_overlap(*pair)
    with pytest.raises(ValueError, match="3 images came; debiased CKA needs four"):
        geometry.cka(TX[:3], TY[:3])
    with pytest.raises(ValueError, match="9 images came; neighbours need 10 or more"):
        geometry.neighbor_overlap(TX[:9], TY[:9])
    with pytest.raises(ValueError, match="the same N images"):
        geometry.procrustes(TX, TY[:5])


def test_nearest_neighbours_are_the_same_by_a_matrix_product():
    points = torch.from_numpy(
        rng.normal(size=(1200, 20))
    )  # more than one block of rows
    tree = spatial.KDTree(points.numpy())
    expected = tree.query(points.numpy(), k=6)[1][
        :, 1:
    ]  # the first is the point itself
    numbers = geometry.nearest_by_product(points, 5)
    assert (np.sort(numbers.numpy()) == np.sort(expected)).all()
