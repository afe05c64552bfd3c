"""Measures of fidelity under shift: on images that a model was not made for."""

import functools
from collections.abc import Callable

import pandas as pd
import torch
from torch import Tensor

from fidlib.measures import losses
from fidlib.measures.intervals import Statistic
from fidlib.measures.measure import Found, row
from fidlib.measures.pair import Pair, Shifted


def _shift_row(
    unit: str, source: str, *, same: float | None
) -> Callable[[Callable[[Shifted], Tensor | None]], Callable[[Pair], Found]]:
    """Enters the mean over shifts of what each image adds under one; parts: each."""

    def enter(of: Callable[[Shifted], Tensor | None]) -> Callable[[Pair], Found]:
        def terms(pair: Pair) -> dict[str, Tensor]:
            parts = {name: of(each) for name, each in pair.shifted.items()}
            return {n: part.double() for n, part in parts.items() if part is not None}

        @row(
            "shift",
            unit,
            source,
            same=same,
            by_class=False,
            in_table=False,
            parts=lambda pair: {n: x.mean().item() for n, x in terms(pair).items()},
        )
        @functools.wraps(of)
        def mean(pair: Pair) -> Found:
            return Statistic(torch.stack([*terms(pair).values()]).mean(0)[:, None])

        return mean

    return enter


@_shift_row("share of images", "fidlib", same=1.0)
def shift_agreement(shown: Shifted) -> Tensor:
    """Both name the same class: mean over 500 images under every shift.

    Blind to all that leaves the largest logit the largest.
    """
    return shown.host.argmax(1) == shown.marked.argmax(1)


@_shift_row("nats", "Lin 1991", same=0.0)
def shift_jensen_shannon(shown: Shifted) -> Tensor:
    """Jensen-Shannon divergence of the two models' probabilities under shift.

    Blind to how sure a changed answer is.
    """
    return losses.jensen_shannon(shown.host, shown.marked)


@_shift_row("nats", "Hua & Teoh (2023), as spl", same=0.0)
def shift_spl(shown: Shifted) -> Tensor:
    """KL divergence of the marked model's probabilities from the host's under shift.

    Blind to whether many images change a little or few much.
    """
    return losses.divergences(shown.host, shown.marked).clamp_min(0)  # rounded


@_shift_row("share of images", "fidlib", same=0.0)
def shift_churn(shown: Shifted) -> Tensor | None:
    """One of the two alone is right, under every shift that keeps labels.

    Blind to answers that were wrong and still are.
    """
    if shown.labels is None:
        return None
    host, marked = (part.argmax(1) == shown.labels for part in shown[:2])
    return host != marked


@_shift_row("share of images", "fidlib", same=None)
def host_shift_accuracy(shown: Shifted) -> Tensor | None:
    """Share of images that the host gets right under shifts that keep labels.

    Blind to the marked model.
    """
    return None if shown.labels is None else shown.host.argmax(1) == shown.labels


@_shift_row("share of images", "fidlib", same=None)
def shift_accuracy(shown: Shifted) -> Tensor | None:
    """Share that the marked model gets right under shifts that keep labels.

    Blind to which images are right.
    """
    return None if shown.labels is None else shown.marked.argmax(1) == shown.labels


def by_strength(parts: pd.DataFrame, unshifted: pd.Series) -> pd.DataFrame:
    """What measures of shifts are the means of, of kinds that have a strength.

    Args:
        parts: A row a condition, by name; a column a model.
        unshifted: A value a model, which stands at strength 0 of every kind.

    Returns:
        Indexed by kind and strength.
    """
    rows = {}
    for name, values in parts.iterrows():
        kind, _, strength = str(name).rpartition(" ")
        if strength.isdigit():
            rows.setdefault((kind, 0), unshifted)
            rows[kind, int(strength)] = values
    return pd.DataFrame(rows).T
