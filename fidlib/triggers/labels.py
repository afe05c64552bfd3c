"""How triggers are labelled, and what all families share."""

from typing import Literal, get_args

import torch
from torch import Tensor

from fidlib.data import Split, pixels

Labels = Literal["random", "other", "fixed", "next", "chain", "permuted", "true"]
"""How a trigger is labelled: any class; any but its own; one seeded class; the next one
after its own; its place in a chain of a link for each class, ten at most; the same, the
places of each chain in an order of their own; its own class.

Of `random` and `permuted` it is known exactly what a model that is independent of the
seed answers by chance, whatever it is, and of `other` a bound: who knows the images
answers none (`fidlib.measures.chance`)."""


def drawn(pool: Split, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Images of the pool as floats, and their classes, both on the CPU.

    Raises:
        ValueError: If the pool is smaller than `count`.
    """
    if not 1 <= count <= len(pool):
        raise ValueError(
            f"count is {count}; draw at least one trigger and at most the {len(pool)} "
            "images of the pool."
        )
    rows = torch.randperm(len(pool), generator=generator)[:count]
    rows = rows.to(pool.images.device)
    images = pixels(pool.images[rows]).float().cpu().clone()
    return images, pool.labels[rows].cpu()


def secret(
    images: Tensor,
    truth: Tensor | None,
    policy: str,
    classes: int,
    generator: torch.Generator,
) -> Split:
    """Triggers, their pixels as bytes hold them, so that one can be kept as a picture.

    Args:
        images: `(N, C, H, W)` floats.
        truth: `(N,)` classes of the images; None if they show no class.
        policy: One of `Labels`.
        classes: K, the number of classes.
        generator: Of the family.

    Raises:
        ValueError: As `labelled`.
    """
    labels = labelled(policy, truth, len(images), classes, generator)
    return Split(rounded(images), labels)


def rounded(images: Tensor) -> Tensor:
    """The nearest pixels that bytes hold, in [0, 1]."""
    return (images.clamp(0, 1) * 255).round() / 255


def labelled(
    policy: str,
    truth: Tensor | None,
    count: int,
    classes: int,
    generator: torch.Generator,
    *,
    links: int = 0,
) -> Tensor:
    """`(N,)` labels of triggers.

    Args:
        policy: One of `Labels`.
        truth: `(N,)` classes of the images; None if they show no class.
        count: N, the number of triggers.
        classes: K, the number of classes.
        generator: Of the family.
        links: Of a chain; 0: a link for each class, ten at most.

    Raises:
        ValueError: If the policy is unknown, or rests on classes that the images lack.
    """
    if policy not in get_args(Labels):
        raise ValueError(
            f"labels is {policy!r}; use one of {', '.join(get_args(Labels))}."
        )
    if truth is None and policy in ("other", "next", "true"):
        raise ValueError(
            f"labels is {policy!r}, but these triggers show no class of their own: use "
            "random, fixed, chain or permuted."
        )
    truth = torch.zeros(count, dtype=torch.long) if truth is None else truth
    links = links or min(10, classes)
    any_class = torch.randint(classes, (count,), generator=generator)
    step = 1 + torch.randint(max(1, classes - 1), (count,), generator=generator)
    place = torch.arange(count) % links
    orders = [torch.randperm(links, generator=generator) for _ in place[::links]]
    return {
        "random": any_class,
        "other": (truth + step) % classes,
        "fixed": any_class[:1].expand(count).clone(),
        "next": (truth + 1) % classes,
        "chain": place,
        "permuted": torch.cat(orders)[:count],
        "true": truth,
    }[policy]
