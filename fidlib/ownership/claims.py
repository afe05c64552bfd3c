"""Claims: how many triggers a suspect answers, and how likely that is by chance."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fidlib import models
from fidlib.data import Split
from fidlib.measures import chance
from fidlib.models import Classifier
from fidlib.ownership.keys import Key
from fidlib.runs.keys import digest
from fidlib.wrapping import positive

UNCOMMITTED = 2**64
"""Keys that an owner may have searched who committed to none."""

Suspect = Classifier | Callable[[Tensor], Any] | Any
"""A model; any function from pixels `(N, C, H, W)` to `(N,)` classes or `(N, K)`
scores; or the answers themselves, `(N,)` classes in the order of the triggers."""


@dataclass(frozen=True)
class Evidence:
    """What a suspect's answers to a key's triggers prove."""

    matches: int
    """Triggers that are given their labels."""
    n: int
    """Number of the key's triggers."""
    p: float
    """Probability that a model independent of the key matches as many, times
    `keys_tried`; at most 1."""
    null: str
    """What is known of such independent models."""
    threshold: int | None
    """Matches that the claim needs; None if it cannot be made."""
    keys_tried: int
    """Keys and suspects among which these may have been chosen."""
    committed: str
    """When the key was committed; empty: never."""

    @property
    def holds(self) -> bool:
        """Whether there are as many matches as the claim needs."""
        return self.threshold is not None and self.matches >= self.threshold

    def __str__(self) -> str:
        needs = "more than all" if self.threshold is None else self.threshold
        when = f"committed {self.committed}" if self.committed else "not committed"
        return (
            f"{self.matches} of {self.n} triggers match, needed {needs}: "
            f"p = {self.p:.2g} ({self.null}; {_several(self.keys_tried)}; {when}): "
            f"{'the claim holds' if self.holds else 'nothing is proved'}"
        )


def verify(
    model: Suspect,
    key: Key,
    *,
    alpha: float = 1e-6,
    tries: int = 1,
    fresh: int = 99,
    references: Iterable[Suspect] = (),
) -> Evidence:
    """Whether a suspect knows a key, with what is exactly known of those that do not.

    Labels decide what is known: of `random`, `other` and `permuted` ones exact
    probabilities; of plain chains how this suspect answers fresh keys, so that p is
    1 / (`fresh` + 1) or more; of other policies only what independent models answer.

    Args:
        model: The suspect.
        key: The owner's. One without a commitment is charged `UNCOMMITTED` keys.
        alpha: The level of the claim.
        tries: Suspects that were looked at, times keys that were committed.
        fresh: Fresh keys to ask the suspect, where they are needed. Of a table of
            answers, rows after the first are those to them (`fresh_keys`).
        references: Models that are independent of the key, where they are needed.

    Raises:
        ValueError: If the answers are not one of the key's classes for each trigger,
            fresh keys or references are needed and missing, or a number makes no sense.
    """
    if not 0 < alpha < 1:
        raise ValueError(
            f"alpha is {alpha}; the level of a claim is above 0 and below 1, such as "
            "1e-6."
        )
    tries, fresh = positive("tries", tries), positive("fresh", fresh)
    n = len(key.triggers)
    tables = [] if callable(model) else [*np.atleast_2d(np.asarray(model))]
    named = answers(tables[0] if tables else model, key.triggers)
    if tables:
        _check_table(named, len(tables), key)
    if (known := exact(key, named)) is not None:
        null, tail = known
    elif key.labels == "chain":
        scores = _of_fresh(tables[1:] if tables else [model] * fresh, key)
        null, tail = f"{len(scores)} fresh keys", chance.fresh(scores, n)
    else:
        scores = _of_references(references, key)
        null, tail = f"{len(scores)} models", chance.empirical(scores, n)
    hits = matches(named, key.triggers)
    tries *= 1 if key.committed else UNCOMMITTED
    return Evidence(
        matches=hits,
        n=n,
        p=min(1.0, float(tail[hits]) * tries),
        null=null,
        threshold=chance.needed(tail, alpha, tries),
        keys_tried=tries,
        committed=key.committed,
    )


def exact(key: Key, named: np.ndarray) -> tuple[str, np.ndarray] | None:
    """What is exactly known of models independent of a key: its name and tail.

    Args:
        key: Whose labels decide it; None for those of which nothing is.
        named: `(N,)` classes that the suspect names.
    """
    if key.labels == "permuted":
        return "permuted chains", chance.permuted(named.tolist(), key.links)
    if key.labels not in ("random", "other"):
        return None
    others = key.classes - (key.labels == "other")
    return f"binomial, 1/{others}", chance.binomial(len(named), 1 / others)


def matches(named: np.ndarray, triggers: Split) -> int:
    """How many triggers are given their labels."""
    return int((named == triggers.labels.cpu().numpy()).sum())


def fresh_keys(key: Key, count: int) -> list[Split]:
    """Triggers of other seeds, which follow from the key's commitment.

    Raises:
        ValueError: If nobody knows how the triggers were made.
    """
    if key.fresh is None:
        raise ValueError("triggers of your own have no fresh keys: pass references.")
    return [key.fresh(int(digest([key.commitment, k]), 16)) for k in range(count)]


def answers(model: Suspect, triggers: Split) -> np.ndarray:
    """`(N,)` classes that a suspect names.

    Raises:
        ValueError: If they are not one for each trigger.
    """
    images = triggers.images
    if isinstance(model, Classifier):
        classes = models.outputs(model, images.to(model.mean.device)).logits
    elif callable(model):
        with torch.no_grad():
            classes = torch.as_tensor(model(images))
    elif (array := np.array(model)).dtype.kind in "iuf":  # one to be written to
        classes = torch.from_numpy(array)
    else:
        raise ValueError(
            f"answers are a {type(model).__name__} of {array.dtype}; pass class "
            "indices, one for each trigger."
        )
    classes = classes.argmax(1) if classes.ndim == 2 else classes
    if classes.shape != (len(images),) or classes.is_floating_point():
        raise ValueError(
            f"answers have the shape {tuple(classes.shape)} and type {classes.dtype}; "
            f"expected {len(images)} class indices, one for each trigger."
        )
    return classes.cpu().numpy()


def _check_table(named: np.ndarray, rows: int, key: Key) -> None:
    """Raise if a table holds more than answers, such as the numbers of the triggers."""
    low, high = int(named.min()), int(named.max())
    if low < 0 or high >= key.classes:
        raise ValueError(
            f"answers name classes from {low} to {high}; the key's are 0 to "
            f"{key.classes - 1}: pass class indices alone, no numbers of triggers."
        )
    if rows > 1 and key.labels != "chain":
        raise ValueError(
            f"there are {rows} rows of answers, in a file columns; for labels that are "
            f"{key.labels or 'your own'} pass one, the answers to the key's triggers."
        )


def _of_fresh(suspects: Sequence[Suspect], key: Key) -> list[int]:
    """Matches of fresh keys, each put to the suspect, or to a row of its answers."""
    if not suspects:
        raise ValueError(
            "labels of a chain are judged by fresh keys, and these answers are to the "
            "key's triggers alone: pass the model, or a row of answers more for each "
            "of fl.ownership.fresh_keys(key, 99)."
        )
    secrets = fresh_keys(key, len(suspects))
    pairs = zip(suspects, secrets, strict=True)
    return [matches(answers(asked, secret), secret) for asked, secret in pairs]


def _of_references(references: Iterable[Suspect], key: Key) -> list[int]:
    """Matches of independent models."""
    secret = key.triggers
    scores = [matches(answers(model, secret), secret) for model in references]
    if not scores:
        raise ValueError(
            f"labels are {key.labels or 'your own'}, of which it is not known what an "
            "independent model answers by chance: pass references, models that are "
            "independent of the key, or use random labels."
        )
    return scores


def _several(tries: int) -> str:
    if tries >= UNCOMMITTED:
        return f"{tries / UNCOMMITTED:.0f} x 2^64 keys tried"
    return f"{tries} tried"
