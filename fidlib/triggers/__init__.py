"""What the watermark is: families of triggers by name, with one signature.

A family makes `count` labelled images from a pool of training images and a seed, the
owner's secret; all its randomness comes from there.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from fidlib.data import Split, pixels
from fidlib.methods import Shows
from fidlib.models import Classifier
from fidlib.triggers.adversarial import ascended, frontier, margin, mislabelled
from fidlib.triggers.drawings import abstract, unrelated
from fidlib.triggers.keychain import chain
from fidlib.triggers.labels import Labels
from fidlib.triggers.overlays import blend, mask, noise, patch, sine, warp

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Family", "Labels", "find", "policy", "show"]

Family = Callable[..., Split]
"""`family(pool, seed, *, host, count, labels, **options)`: images with labels.

`pool` are training images `(N, C, H, W)`, `seed` is the owner's secret, `host` the
classifier to protect: it says how many classes there are and how it normalises pixels.
`labels` is one of `Labels`. What comes are float images, in [0, 1] as bytes hold them
but for the chain's. A ValueError says what cannot be made.
"""

TRIGGERS: dict[str, Family] = {
    "chain": chain,
    "abstract": abstract,
    "unrelated": unrelated,
    "noise": noise,
    "mask": mask,
    "patch": patch,
    "blend": blend,
    "sine": sine,
    "warp": warp,
    "mislabelled": mislabelled,
    "frontier": frontier,
    "margin": margin,
}
"""Name -> family; a function of your own works as well, once it has a name here."""

RESERVED = {"mislabelled": 1, "frontier": 4, "margin": 1}
"""Families that keep their pool from the training images of marked and attacked models,
for a trigger's label would contradict its own -> images of the pool for a trigger."""

SHOWN: dict[str, Shows] = {"margin": ascended}
"""Families whose triggers are changed at every step -> how, for `Method.shows`."""


def find(name: str) -> Family:
    """The family of that name in `TRIGGERS`.

    Raises:
        ValueError: If there is none.
    """
    if name not in TRIGGERS:
        raise ValueError(
            f"unknown triggers {name!r}; use one of {', '.join(TRIGGERS)}, or add your "
            "own to fidlib.TRIGGERS."
        )
    return TRIGGERS[name]


def policy(name: str, options: Mapping[str, Any]) -> str:
    """How a family labels its triggers, one of `Labels`; empty if it does not say."""
    known = inspect.signature(find(name)).parameters.get("labels")
    return str(options.get("labels", known.default if known else ""))


def show(
    pool: Split,
    host: Classifier,
    names: Iterable[str] = (),
    *,
    seed: int = 0,
    count: int = 8,
) -> "Figure":
    """A contact sheet: some triggers of each family, with their labels.

    Args:
        pool: Training images.
        host: The classifier to protect.
        names: Families; all that there are when empty.
        seed: Of all of them.
        count: Triggers of each; of a chain, its first links.

    Raises:
        ValueError: If a family is unknown, or cannot be made of this pool.
    """
    from fidlib import plots

    most = max(count, 10)  # a chain is made whole
    sets = {n: find(n)(pool, seed, host=host, count=most) for n in names or TRIGGERS}
    rows = {n: pixels(s.images[:count]).cpu().numpy() for n, s in sets.items()}
    return plots.contact_sheet(rows, {n: s.labels.tolist() for n, s in sets.items()})
