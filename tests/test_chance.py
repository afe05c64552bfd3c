"""What is known by chance, against enumeration, simulation and published numbers."""

import itertools

import numpy as np
import pytest
from scipy import stats

from fidlib.measures import chance

SUSPECTS = 100_000
LEVELS = (0.05, 0.01, 0.001)


def not_more_than(alpha, convicted):
    """Whether a share of `SUSPECTS` is not significantly above a level."""
    return stats.binomtest(int(convicted), SUSPECTS, alpha, "greater").pvalue > 0.001


def suspects(count, rng, kinds=100):
    """`(kinds, count)` answers of models of all kinds: the first says one class alone,
    some prefer classes strongly, the last name every class in turn.
    """
    shares = rng.dirichlet(np.full(10, 0.3), kinds)
    answers = np.stack([rng.choice(10, count, p=share) for share in shares])
    answers[0] = 3
    answers[-1] = np.arange(count) % 10
    return answers


def permuted_labels(rows, chains, links, rng):
    orders = rng.permuted(np.tile(np.arange(links), (rows, chains, 1)), axis=2)
    return orders.reshape(rows, -1)


def convicted(tails, matches, alpha):
    return sum((t[m] <= alpha).sum() for t, m in zip(tails, matches, strict=True))


def matches_of(policy, answers, rows, rng):
    """`(kinds, rows)` matches of each suspect with keys drawn at random."""
    count = answers.shape[1]
    classes = rng.integers(10, size=count)
    matches = []
    for named in answers:
        labels = {
            "random": lambda: rng.integers(10, size=(rows, count)),
            "other": lambda: (classes + rng.integers(1, 10, size=(rows, count))) % 10,
            "permuted": lambda: permuted_labels(rows, count // 10, 10, rng),
        }[policy]()
        matches.append((labels == named).sum(1))
    return matches


@pytest.mark.parametrize("policy", ["random", "other", "permuted"])
def test_no_more_independent_suspects_are_convicted_than_alpha(policy):
    rng = np.random.default_rng(0)
    answers = suspects(50, rng)
    matches = matches_of(policy, answers, SUSPECTS // len(answers), rng)
    tails = {
        "random": lambda named: chance.binomial(50, 1 / 10),
        "other": lambda named: chance.binomial(50, 1 / 9),
        "permuted": lambda named: chance.permuted(named.tolist(), 10),
    }[policy]
    tails = [tails(named) for named in answers]
    for alpha in LEVELS:
        assert not_more_than(alpha, convicted(tails, matches, alpha))
    assert convicted(tails, matches, 0.05) > 0.005 * SUSPECTS  # but it does convict


def test_fresh_keys_convict_no_more_than_alpha():
    rng = np.random.default_rng(0)
    rates = rng.beta(0.5, 3, SUSPECTS)  # of each suspect, on keys of this family
    scores = rng.binomial(100, rates[:, None], (SUSPECTS, 100)).astype(np.int16)
    scores[: SUSPECTS // 10] = 10  # those that say one class have it of every chain
    p = (1 + (scores[:, 1:] >= scores[:, :1]).sum(1)) / 100
    some = rng.choice(SUSPECTS, 50)
    for row in some:
        tail = chance.fresh(scores[row, 1:].tolist(), 100)
        assert tail[scores[row, 0]] == pytest.approx(p[row])
    for alpha in LEVELS:
        assert not_more_than(alpha, (p <= alpha).sum())
    assert (p <= 0.01).mean() > 0.001


def test_the_binomial_of_a_chain_is_wrong_on_both_sides():
    rng = np.random.default_rng(0)
    labels = permuted_labels(SUSPECTS, 10, 10, rng)
    tail = chance.binomial(100, 1 / 10)
    one_class, each_once = np.zeros(100, int), np.arange(100) % 10
    hits = (labels == one_class).sum(1)
    assert (hits == 10).all()  # ten of a hundred, always: no key convicts it
    assert chance.permuted(one_class.tolist(), 10)[[10, 11]].tolist() == [1, 0]
    assert tail[10] < 0.6
    hits = (labels == each_once).sum(1)
    exact = chance.permuted(each_once.tolist(), 10)
    assert tail[28] == pytest.approx(3.5e-7, abs=0.05e-7)
    assert exact[28] == pytest.approx(2.3e-6, abs=0.05e-6)
    few = chance.needed(tail, 0.001)
    assert exact[few] > 1.25 * 0.001  # convicts too many, as the simulation has it
    convictions = int((hits >= few).sum())
    assert stats.binomtest(convictions, SUSPECTS, exact[few]).pvalue > 0.001
    assert not_more_than(0.001, (exact[hits] <= 0.001).sum())


@pytest.mark.parametrize("links", [1, 2, 3, 4, 5])
def test_permuted_chains_are_what_enumeration_of_all_permutations_counts(links):
    orders = list(itertools.permutations(range(links)))
    for named in itertools.combinations_with_replacement(range(links + 1), links):
        hits = [sum(a == b for a, b in zip(named, o, strict=True)) for o in orders]
        expected = [np.mean([h >= t for h in hits]) for t in range(links + 1)]
        assert chance.permuted(named, links) == pytest.approx(expected, abs=1e-12)


def test_chains_of_a_key_and_a_shorter_last_one_are_convolved():
    named, links = [0, 0, 2, 1, 3, 3, 0, 2, 1, 1], 4  # chains of 4, 4 and 2
    orders = list(itertools.permutations(range(links)))
    counts = np.zeros(11)
    for three in itertools.product(orders, repeat=3):
        labels = np.concatenate(three)[:10]
        counts[(labels == named).sum()] += 1
    expected = counts[::-1].cumsum()[::-1] / counts.sum()
    assert chance.permuted(named, links) == pytest.approx(expected, abs=1e-12)


def test_binomial_is_the_sum_of_its_terms():
    terms = [stats.binom.pmf(k, 30, 0.2) for k in range(31)]
    expected = [sum(terms[t:]) for t in range(31)]
    assert chance.binomial(30, 0.2) == pytest.approx(expected)
    assert chance.binomial(100, 0.1)[100] == pytest.approx(1e-100)


@pytest.mark.parametrize(
    ("count", "classes", "expected"),
    [
        (20, 10, [7, 8, 11, 14]),
        (100, 10, [19, 21, 28, 33]),
        (100, 100, [5, 6, 9, 12]),
        (500, 10, [67, 73, 86, 95]),
    ],
)
def test_matches_that_are_needed(count, classes, expected):
    tail = chance.binomial(count, 1 / classes)
    counts = [chance.needed(tail, alpha) for alpha in (1e-2, 1e-3, 1e-6, 1e-9)]
    assert counts == expected


def test_matches_that_are_needed_of_every_key_there_is():
    least = [chance.needed(chance.binomial(100, 1 / k), 1e-9, 2**64) for k in (10, 100)]
    assert least == [56, 26]
    assert chance.needed(chance.binomial(5, 0.5), 1e-3) is None


def test_keys_that_a_search_takes():
    tail = chance.binomial(100, 0.1)
    assert 1 / tail[19] == pytest.approx(218, abs=0.5)
    assert 1 / tail[28] == pytest.approx(2.9e6, rel=0.02)


@pytest.mark.parametrize(("models", "bound"), [(10, 0.26), (100, 0.030), (300, 0.010)])
def test_a_rate_seen_in_no_model_has_a_bound(models, bound):
    tail = chance.empirical([0] * models, 20)
    assert tail[0] == 1
    assert tail[1] == pytest.approx(bound, abs=bound * 0.02)
    assert tail[20] == tail[1] == pytest.approx(1 - 0.05 ** (1 / models))


def test_a_rate_seen_in_some_models_has_a_bound_that_holds():
    for rate in (0.02, 0.1, 0.5):
        seen = stats.binom(200, rate)
        held = [
            seen.pmf(hits)
            * (chance.empirical([1] * hits + [0] * (200 - hits), 1)[1] >= rate)
            for hits in range(201)
        ]
        assert 0.95 <= sum(held) < 0.99
