"""Claims: how many triggers a suspect answers, and how likely that is by chance."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from fidlib import models
from fidlib.data import Split
from fidlib.measures import chance
from fidlib.models import Classifier
from fidlib.ownership.keys import Key
from fidlib.runs.keys import digest
from fidlib.weights import at_rest
from fidlib.wrapping import positive

UNCOMMITTED = 2**64
"""Keys that an owner may have searched who committed to none."""

Suspect = Classifier | Callable[[Tensor], Any] | Any
"""A model of the key's classes; any function from pixels `(N, C, H, W)` to `(N,)`
classes or `(N, K)` scores; or the answers themselves, `(N,)` classes in the order of
the triggers, of a DataFrame a column."""


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
    least: float
    """p if it matched all: a claim at a level below cannot be made."""

    @property
    def holds(self) -> bool:
        """Whether there are as many matches as the claim needs."""
        return self.threshold is not None and self.matches >= self.threshold

    def __str__(self) -> str:
        needs = "more than all" if self.threshold is None else self.threshold
        when = f"committed {self.committed}" if self.committed else "not committed"
        so = "the claim holds" if self.holds else "nothing is proved"
        if self.threshold is None:
            number, _, asked = self.null.partition(" ")
            more = f"use more {asked if number.isdigit() else 'triggers'}"
            remedies = ["raise alpha"] if self.least < 1 else []
            remedies += [more if self.committed else "commit the key before the model"]
            so = (
                f"nothing can be proved at this level, as p is {self.least:.2g} or "
                f"more: {', or '.join(remedies)}"
            )
        return (
            f"{self.matches} of {self.n} triggers match, needed {needs}: "
            f"p = {self.p:.2g} ({self.null}; {_several(self.keys_tried)}; {when}): {so}"
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

    Labels decide what is known: of `random` and `permuted` ones exact probabilities, of
    `other` ones a bound; of plain chains how this suspect answers fresh keys, so that p
    is 1 / (`fresh` + 1) or more; of other policies only what independent models answer.

    Args:
        model: The suspect.
        key: The owner's. One without a commitment is charged `UNCOMMITTED` keys.
        alpha: The level of the claim.
        tries: Suspects that were looked at, times keys that were committed.
        fresh: Fresh keys to ask the suspect, where they are needed. Of a table of
            answers, as many rows after the first are those to them (`fresh_keys`).
        references: Models that are independent of the key, where they are needed.

    Raises:
        ValueError: If the answers are not one of the key's classes for each trigger,
            fresh keys or references are needed and missing, or a number makes no sense.
    """
    alpha, n = level(alpha), len(key.triggers)
    tries, fresh = positive("tries", tries), positive("fresh", fresh)
    first, *others = rows = _rows(model, n)
    named = answers(first, key.triggers, key.classes)
    if others and key.labels != "chain":
        raise ValueError(
            f"there are {len(rows)} rows of answers, in a file columns; for labels "
            f"that are {key.labels or 'your own'} pass one, the answers to the key's "
            "triggers."
        )
    if (known := exact(key, named)) is not None:
        null, tail = known
    elif key.labels == "chain":
        scores = _of_fresh([model] * fresh if callable(model) else others, key, fresh)
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
        least=min(1.0, float(tail[n]) * tries),
    )


def level(alpha: float) -> float:
    """The level of a claim.

    Raises:
        ValueError: If it is none.
    """
    if not isinstance(alpha, Real) or not 0 < alpha < 1:
        raise ValueError(
            f"alpha is {alpha!r}; the level of a claim is a number above 0 and below "
            "1, such as 1e-6."
        )
    return float(alpha)


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


def answers(model: Suspect, triggers: Split, classes: int) -> np.ndarray:
    """`(N,)` classes that a suspect names.

    Args:
        model: The suspect.
        triggers: What it is asked; it is given a copy of the images.
        classes: K: an answer is one of 0 to K - 1, or K scores.

    Raises:
        ValueError: If they are not one for each trigger.
    """
    images, shape = triggers.images.clone(), (len(triggers), classes)
    if isinstance(model, Classifier):
        images = images.to(model.mean.device)
        models.check_takes(model, images)
        given = models.outputs(model, images).logits
    elif callable(model):
        resting = at_rest(model) if isinstance(model, nn.Module) else nullcontext()
        with torch.no_grad(), resting:
            given = model(images)
    else:
        given, shape = model, ()  # no table is taken for scores
    table = _array(given)
    if table.shape == shape and table.dtype.kind in "iuf":
        if len(odd := np.flatnonzero(~np.isfinite(table).all(1))):
            raise ValueError(
                f"the suspect's scores of trigger {odd[0]} are "
                f"{table[odd[0]].tolist()}; expected finite numbers."
            )
        return table.argmax(1)
    if table.shape != (len(triggers),) or table.dtype.kind not in "iu":
        raise ValueError(
            f"answers have the shape {table.shape} and type {table.dtype}; expected "
            f"{len(triggers)} class indices, one for each trigger, or, from a "
            f"function, {classes} scores for each."
        )
    low, high = int(table.min()), int(table.max())
    if low < 0 or high >= classes:
        raise ValueError(
            f"answers name classes from {low} to {high}; the key's are 0 to "
            f"{classes - 1}: pass class indices alone, no numbers of triggers."
        )
    return table.astype(np.int64)


def _rows(suspect: Suspect, count: int) -> list[Suspect]:
    """A suspect alone; or the rows of a table of answers, of which a column is one."""
    if callable(suspect):
        return [suspect]
    table = _array(suspect.T if isinstance(suspect, pd.DataFrame) else suspect)
    rows = [table.ravel()] if table.shape == (count, 1) else [*np.atleast_2d(table)]
    return rows or [table]  # of none at all, which is refused


def _array(answers: Any) -> np.ndarray:
    """Answers of any kind as an array, for whoever has to look at its shape and type.

    Raises:
        ValueError: If they are no such thing.
    """
    try:
        if isinstance(answers, Tensor):
            answers = answers.detach().cpu()
            answers = answers.double() if answers.is_floating_point() else answers
        if np.ma.is_masked(answers):
            raise ValueError("some are masked")
        return np.asarray(answers)
    except (TypeError, ValueError, RuntimeError) as error:  # as of rows of all lengths
        raise ValueError(
            f"answers are a {type(answers).__name__} of no shape ({error}); pass class "
            "indices, one for each trigger."
        ) from error


def _of_fresh(suspects: Sequence[Suspect], key: Key, count: int) -> list[int]:
    """Matches of fresh keys, each put to the suspect, or to a row of its answers."""
    if len(suspects) != count:
        raise ValueError(
            f"labels of a chain are judged by {count} fresh keys, and there are "
            f"{len(suspects)} rows of answers to such, in a file columns: pass the "
            "model, or the answers to the key and then to each of "
            f"fl.ownership.fresh_keys(key, {count}), and nothing else."
        )
    secrets = fresh_keys(key, count)
    pairs = zip(suspects, secrets, strict=True)
    return [
        matches(answers(asked, secret, key.classes), secret) for asked, secret in pairs
    ]


def _of_references(references: Iterable[Suspect], key: Key) -> list[int]:
    """Matches of independent models."""
    secret, scores = key.triggers, []
    if not isinstance(references, Iterable) or isinstance(references, str):
        raise ValueError(
            f"references are a {type(references).__name__}; pass a list of models."
        )
    for model in references:
        named, *others = _rows(model, len(secret))
        if others:
            raise ValueError(
                f"a reference has {len(others) + 1} rows of answers, in a file "
                "columns: pass each model's by itself."
            )
        scores.append(matches(answers(named, secret, key.classes), secret))
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
