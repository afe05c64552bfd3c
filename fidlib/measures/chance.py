"""How many triggers a model that knows nothing of the key answers, and how surely.

Every null is a tail: `(N + 1,)` probabilities of at least 0, 1, ... N matches. It must
hold for any model that is independent of the key, however biased: the randomness is the
key's, never the models'.
"""

import math
from collections import Counter
from collections.abc import Sequence
from functools import cache

import numpy as np

CERTAIN = 0.95
"""Level of the bound on a rate that is only known from some models."""


def binomial(count: int, share: float) -> np.ndarray:
    """The tail of labels drawn one by one: exact for random ones.

    Args:
        count: N.
        share: Chance of a match: 1/K for labels of all K classes. 1/(K - 1) for those
            of all but an image's own, where it is a bound.
    """
    from scipy import stats

    return stats.binom.sf(np.arange(-1, count), count, share)


def permuted(answers: Sequence[int], links: int) -> np.ndarray:
    """The tail of chains whose labels are permuted, each chain's by itself: exact.

    Given the answers to a chain, its permutations are counted by the rook polynomial,
    the product over classes c of 1 + a_c x, with a_c the links answered c; chains are
    convolved.

    Args:
        answers: `(N,)` classes that the model names, chain after chain.
        links: m, of a chain, whose labels are 0 to m - 1; the last may be shorter.
    """
    chances = np.ones(1)
    for first in range(0, len(answers), links):
        named = Counter(answers[first : first + links])
        counts = sorted(n for c, n in named.items() if 0 <= c < links)
        chances = np.convolve(chances, _matches(tuple(counts), links))
    chances = np.pad(chances, (0, len(answers) + 1 - len(chances)))
    return chances[::-1].cumsum()[::-1]


@cache
def _matches(counts: tuple[int, ...], links: int) -> np.ndarray:
    """Probabilities of 0, 1, ... matches in a chain, by how often classes are named."""
    rooks = [1]
    for count in counts:
        rooks = [a + count * b for a, b in zip([*rooks, 0], [0, *rooks], strict=True)]
    ways = [r * math.factorial(links - k) for k, r in enumerate(rooks)]
    exactly = (
        sum((-1) ** (k - h) * math.comb(k, h) * ways[k] for k in range(h, len(ways)))
        for h in range(len(ways))
    )
    return np.array([n / math.factorial(links) for n in exactly])


def fresh(scores: Sequence[int], count: int) -> np.ndarray:
    """The tail of a key among fresh ones, whose matches are those of the same model.

    Exact for a seed that was drawn as they are, whatever the family; never below one in
    B + 1.

    Args:
        scores: `(B,)` matches of B other keys.
        count: N.
    """
    return (1 + _reached(scores, count)) / (len(scores) + 1)


def empirical(scores: Sequence[int], count: int) -> np.ndarray:
    """The tail that independent models allow for: upper bounds, at `CERTAIN`, on the
    share of models that match as many (Clopper and Pearson 1934).

    With none of M that do it is about 3 / M.

    Args:
        scores: `(M,)` matches of M models that are independent of the key.
        count: N.
    """
    from scipy import stats

    reached = _reached(scores, count)
    bound = stats.beta.ppf(
        CERTAIN, reached + 1, np.maximum(len(scores) - reached, 1e-9)
    )
    return np.where(reached == len(scores), 1.0, bound)


def needed(tail: np.ndarray, alpha: float, tries: float = 1) -> int | None:
    """The fewest matches that are significant; None if all N are not.

    Args:
        tail: `(N + 1,)` of a null.
        alpha: The level of the claim.
        tries: Keys and suspects among which this one may have been chosen (Bonferroni).
    """
    enough = np.flatnonzero(tail * tries <= alpha)
    return int(enough[0]) if len(enough) else None


def _reached(scores: Sequence[int], count: int) -> np.ndarray:
    """How many of the scores are at least 0, 1, ... N."""
    return (np.asarray(scores)[:, None] >= np.arange(count + 1)).sum(0)
