"""How claims are forged: what each way costs, and how far it gets."""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from fidlib.data import Split
from fidlib.models import Classifier
from fidlib.ownership.claims import answers, exact, matches
from fidlib.ownership.keys import Key
from fidlib.runs.keys import stream
from fidlib.triggers.adversarial import slope
from fidlib.triggers.keychain import linked, seen
from fidlib.weights import at_rest

COLUMNS = ["effort", "matches", "p", "seconds"]


def seed_search(model: Classifier, key: Key, tries: int) -> pd.DataFrame:
    """Seeds after one another, until one fits a model that knows none of them.

    A seed of t matches takes about one over the tail's probability of t.

    Args:
        model: The victim.
        key: Whose family makes the triggers; labels `random`, `other` or `permuted`.
        tries: Seeds, those after the key's own.

    Returns:
        A row for each seed that is better than all before, and for the last; columns
        `effort` (seeds so far), `matches`, `p` (as if it had been the only one) and
        `seconds`.

    Raises:
        ValueError: If of the key's labels no exact p is known.
    """
    started = time.perf_counter()
    rows, best = [], (2.0, 0)
    for tried in range(1, tries + 1):
        seed = int(key.configuration["seed"]) + tried
        secret = key.fresh(seed) if key.fresh else key.triggers
        claim = _claim(model, replace(key, triggers=secret))
        if claim < best or tried == tries:
            best = min(best, claim)
            seconds = time.perf_counter() - started
            rows.append((tried, best[1], best[0], seconds))
    return pd.DataFrame(rows, columns=COLUMNS)


def fitted(
    victims: Sequence[Classifier],
    triggers: Split,
    *,
    steps: int = 100,
    size: float = 0.03,
    reach: float = 16 / 255,
) -> Iterator[Tensor]:
    """Images that are moved until the victims give them labels of one's choice.

    Of one victim they are *free labels*: any set of labels is reached. With the mean of
    others beside the first, models that are independent may answer alike, and so be
    claimed falsely (iterated FGSM, Liu et al. 2024).

    Args:
        victims: The first counts as much as all others together.
        triggers: Images to start from, and the labels.
        steps: As many are taken.
        size: Of a step, pixels in [0, 1].
        reach: How far a pixel may go.

    Yields:
        `(N, C, H, W)` pixels after each step.
    """
    images, labels = triggers.images, triggers.labels
    for _ in range(steps):
        first, *others = (slope(model, images, labels) for model in victims)
        pull = first + sum(others) / max(1, len(others))
        images = images - size * pull.sign()
        images = images.clamp(triggers.images - reach, triggers.images + reach)
        images = images.clamp(0, 1)
        yield images


def free_chain(
    model: Classifier,
    image_shape: Sequence[int],
    labels: Tensor,
    seed: int,
    *,
    steps: int = 100,
    rate: float = 0.05,
) -> Iterator[Tensor]:
    """Chains of noise whose rotation and starts are free reals, fitted to a victim.

    Both go down the cross-entropy of all labels at once. The rotation stays one, as the
    exponential of an antisymmetric matrix, and starts keep their norm sqrt(H); but they
    follow from no integer.

    Args:
        model: The victim.
        image_shape: `(C, H, W)`.
        labels: `(chains, links)`.
        seed: Decides where it starts.
        steps: Adam's.
        rate: Adam's, constant.

    Yields:
        `(chains * links, C, H, W)` pixels after each step, chain after chain.
    """
    (channels, height, width), (chains, links) = image_shape, labels.shape
    generator, device = stream(seed, "free chain"), labels.device
    turn = torch.randn(height, height, generator=generator).to(device).requires_grad_()
    starts = torch.randn(chains, height, width, generator=generator)
    starts = starts.to(device).requires_grad_()
    optimizer = torch.optim.Adam([starts, turn], rate)
    for _ in range(steps):
        with torch.enable_grad(), at_rest(model):
            sizes = torch.linalg.matrix_norm(starts)[:, None, None]
            q = torch.linalg.matrix_exp(turn - turn.T)
            noise = linked(q, starts * height**0.5 / sizes, links)
            chain = noise.flatten(0, 1)[:, None]
            images = seen(chain.expand(-1, channels, -1, -1), model)
            loss = F.cross_entropy(model(images), labels.flatten())
            optimizer.zero_grad()
            loss.backward(inputs=[starts, turn])
        optimizer.step()
        yield images.detach()


def judged(
    forged: Iterable[Tensor], key: Key, judges: Sequence[Classifier]
) -> pd.DataFrame:
    """What a forger claims after each step, of models that need not be his victims.

    Args:
        forged: Images after each step, as from `fitted` or `free_chain`.
        key: Whose labels are claimed, and the null that its policy has.
        judges: Of several, the median is given.

    Returns:
        A row a step; columns `effort` (steps so far), `matches`, `p` and `seconds`,
        those of judging not counted.
    """
    rows, seconds, begun = [], 0.0, time.perf_counter()
    for step, images in enumerate(forged, 1):
        seconds += time.perf_counter() - begun
        claimed = replace(key, triggers=Split(images, key.triggers.labels))
        claims = [_claim(model, claimed) for model in judges]
        p, hits = np.median(claims, axis=0)
        rows.append((step, hits, p, seconds))
        begun = time.perf_counter()
    return pd.DataFrame(rows, columns=COLUMNS)


def _claim(model: Classifier, key: Key) -> tuple[float, int]:
    """The p that is claimed of a model by one key alone, and the matches."""
    named = answers(model, key.triggers, key.classes)
    known = exact(key, named)
    if known is None:
        raise ValueError(
            f"labels are {key.labels or 'your own'}: use random, other or permuted "
            "ones, of which p is known."
        )
    hits = matches(named, key.triggers)
    return float(known[1][hits]), hits
