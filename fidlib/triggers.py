"""What the watermark is: families of triggers by name, with one signature.

A family makes `count` labelled images from a pool of training images and a seed, the
owner's secret; all its randomness comes from there.
"""

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from fidlib.data import Split, pixels
from fidlib.models import Classifier
from fidlib.runs.keys import stream

Family = Callable[..., Split]
"""`family(pool, seed, *, host, count, labels, **options)`: images with labels.

`pool` are training images `(N, C, H, W)`, `host` the classifier to protect: it says
how many classes there are and how it normalises pixels.
"""

Labels = Literal["random", "other", "fixed", "next", "true"]
"""How a trigger is labelled: any class, any but its own, one seeded class, the next one
after its own, or its own."""


def chain(
    pool: Split,
    seed: int,
    *,
    host: Classifier,
    count: int = 100,
    labels: Literal["chain"] = "chain",
    links: int = 0,
) -> Split:
    """The noise key chain of [1]: chains of noise images, each fixing the next.

    One Gaussian matrix gives an orthogonal Q by QR. Each chain starts with a Gaussian
    image of Frobenius norm sqrt(H) and goes on by `x[j+1] = Q x[j]`; link j has the
    label `j mod links`. To forge the set, one must find starts whose whole chains are
    classified 0, 1, 2, ...

    The chain lives in the space of normalised images; what is returned are the pixels
    that normalise to it, and pixels of noise may leave [0, 1].

    Args:
        pool: Of images of the same shape; the noise is repeated to all C channels.
        seed: The owner's secret: all follows from it.
        host: The classifier to protect.
        count: Triggers, at most: `count // links` whole chains, one or more.
        labels: Only `chain` makes sense here.
        links: Images in a chain, m; 0: one for each class, ten at most.

    Returns:
        Float images, chain after chain, with their labels.

    Raises:
        ValueError: If there are more links than classes, or fewer triggers than links.
    """
    links = links or min(10, host.num_classes)
    if labels != "chain":
        raise ValueError(
            f"labels is {labels!r}; in a chain a link's place is its label: leave "
            "labels out, or choose another family."
        )
    if not 1 <= links <= min(host.num_classes, count):
        raise ValueError(
            f"count={count}, links={links}: links must be at least 1, at most count, "
            f"and at most the {host.num_classes} classes, for link j is labelled j."
        )
    channels, height, width = pool.images.shape[1:]
    chains = count // links
    generator = stream(seed, "noise chain")
    square = torch.randn(height, height, generator=generator, dtype=torch.float64)
    q, r = torch.linalg.qr(square)
    q = q * r.diagonal().sign()  # the one Q with a positive diagonal of R
    image = torch.randn(chains, height, width, generator=generator, dtype=torch.float64)
    image *= height**0.5 / torch.linalg.matrix_norm(image)[:, None, None]
    found = [image]
    while len(found) < links:
        found.append(q @ found[-1])
    noise = torch.stack(found, 1).reshape(-1, 1, height, width)
    mean, std = _normalisation(host, channels)
    secret = noise.expand(-1, channels, -1, -1) * std + mean
    return Split(secret.float(), torch.arange(links).repeat(chains))


def patch(
    pool: Split,
    seed: int,
    *,
    host: Classifier,
    count: int = 100,
    labels: Labels = "random",
) -> Split:
    """Training images with a white block of a quarter of the height, half the width.

    Zhang et al. 2018, who label all of them with one class: `labels="fixed"`.

    Args:
        pool: Of which `count` images are taken at random.
        seed: The owner's secret: all follows from it.
        host: The classifier to protect.
        count: Triggers.
        labels: See `Labels`; of `random` ones chance alone is known exactly.

    Returns:
        Float images in [0, 1] with their labels.

    Raises:
        ValueError: If the pool is smaller than `count`, or `labels` is unknown.
    """
    generator = stream(seed, "patch")
    images, own = _drawn(pool, count, generator)
    height, width = images.shape[2:]
    top, left = (min(2, side // 4) for side in (height, width))
    images[:, :, top : top + height // 4, left : left + width // 2] = 1
    return Split(_rounded(images), _labelled(labels, own, host.num_classes, generator))


TRIGGERS: dict[str, Family] = {"chain": chain, "patch": patch}
"""Name -> family; a function of your own works as well, once it has a name here."""


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


def _normalisation(host: Classifier, channels: int) -> tuple[Tensor, Tensor]:
    """Mean and deviation that the host subtracts, `(C, 1, 1)` float64.

    Of grey images, which it sees in three colours, those of all colours together.
    """
    found = [part.detach().cpu().double() for part in (host.mean, host.std)]
    if len(found[0]) != channels:
        found = [part.mean(0, keepdim=True) for part in found]
    mean, std = found
    return mean, std


def _drawn(
    pool: Split, count: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Images of the pool as floats, and their classes."""
    if not 1 <= count <= len(pool):
        raise ValueError(
            f"count is {count}; draw at least one trigger and at most the {len(pool)} "
            "images of the pool."
        )
    rows = torch.randperm(len(pool), generator=generator)[:count]
    rows = rows.to(pool.images.device)
    return pixels(pool.images[rows]).float().clone(), pool.labels[rows].cpu()


def _rounded(images: Tensor) -> Tensor:
    """Pixels as bytes hold them, so that a trigger can be kept as a picture."""
    return (images.clamp(0, 1) * 255).round() / 255


def _labelled(
    policy: str, own: Tensor, classes: int, generator: torch.Generator
) -> Tensor:
    """`(N,)` labels of triggers whose own classes are `own`."""
    if policy not in get_args(Labels):
        raise ValueError(
            f"labels is {policy!r}; use one of {', '.join(get_args(Labels))}."
        )
    drawn = torch.randint(classes, own.shape, generator=generator)
    step = 1 + torch.randint(max(1, classes - 1), own.shape, generator=generator)
    return {
        "random": drawn,
        "other": (own + step) % classes,
        "fixed": drawn[:1].expand_as(own).clone(),
        "next": (own + 1) % classes,
        "true": own,
    }[policy]
