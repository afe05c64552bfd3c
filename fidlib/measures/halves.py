"""Measures on every other image: what two halves share is not there by chance."""

from collections.abc import Callable

from fidlib.measures import losses
from fidlib.measures.measure import row
from fidlib.measures.pair import Pair

HALVES = {"even": slice(0, None, 2), "odd": slice(1, None, 2)}
"""Name -> images, by their place in the split."""


def _accuracy(pair: Pair, rows: slice) -> float:
    return losses.accuracy(pair.logits[1][rows], pair.labels[rows])


def _agreement(pair: Pair, rows: slice) -> float:
    return losses.agreement(*(logits[rows] for logits in pair.logits))


def _pfl(pair: Pair, rows: slice) -> float | None:
    x, y = (features[rows] for features in pair.features)
    return losses.pfl(x, y).item() if x.shape == y.shape else None


def _spl(pair: Pair, rows: slice) -> float:
    return losses.spl(*(logits[rows] for logits in pair.logits)).item()


def _enter(
    name: str, half: str, unit: str, same: float | None, of: Callable[..., float | None]
) -> str:
    def measured(pair: Pair) -> float | None:
        return of(pair, HALVES[half]) if len(pair) > 1 else None

    measured.__name__ = f"{name}_{half}"
    measured.__doc__ = (
        f"`{name}` on the {half} images alone.\n\n    Blind to the other half."
    )
    row("halves", unit, f"as {name}", same=same, by_class=False, in_table=False)(
        measured
    )
    return measured.__name__


NAMES = [
    _enter(name, half, unit, same, of)
    for name, unit, same, of in (
        ("accuracy", "share of images", None, _accuracy),
        ("agreement", "share of images", 1.0, _agreement),
        ("pfl", "squared features", 0.0, _pfl),
        ("spl", "nats", 0.0, _spl),
    )
    for half in HALVES
]
"""Of these measures."""
