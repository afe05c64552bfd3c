"""The paper's family: chains of noise images, each of which fixes the next."""

from typing import Literal

import torch
from torch import Tensor

from fidlib.data import Split
from fidlib.models import Classifier
from fidlib.runs.keys import stream
from fidlib.triggers.labels import labelled


def chain(
    pool: Split,
    seed: int,
    *,
    host: Classifier,
    count: int = 100,
    labels: Literal["chain", "permuted"] = "chain",
    links: int = 0,
) -> Split:
    """The noise key chain of Hua et al. (2023): noise images, each fixing the next.

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
        labels: `permuted`: each chain's labels in an order of their own, of which it is
            known what any model answers by chance.
        links: Images in a chain, m; 0: one for each class, ten at most.

    Returns:
        Float images, chain after chain, with their labels.

    Raises:
        ValueError: If there are more links than classes, or fewer triggers than links.
    """
    links = links or min(10, host.num_classes)
    if labels not in ("chain", "permuted"):
        raise ValueError(
            f"labels is {labels!r}; in a chain a link's place is its label: leave "
            "labels out, use permuted, or choose another family."
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
    noise = linked(q, image, links).reshape(-1, 1, height, width)
    images = seen(noise.expand(-1, channels, -1, -1), host).float()
    arguments = len(images), host.num_classes, generator
    return Split(images, labelled(labels, None, *arguments, links=links))


def linked(q: Tensor, starts: Tensor, links: int) -> Tensor:
    """`(chains, links, H, W)`: starts `(chains, H, W)`, and what q makes of them."""
    images = [starts]
    while len(images) < links:
        images.append(q @ images[-1])
    return torch.stack(images, 1)


def seen(noise: Tensor, host: Classifier) -> Tensor:
    """Pixels that a host normalises to `(N, C, H, W)` noise.

    Grey images, which it may see in three colours, have the mean and deviation of all
    colours together.
    """
    parts = [part.detach().to(noise) for part in (host.std, host.mean)]
    if len(parts[0]) != noise.shape[1]:
        parts = [part.mean(0, keepdim=True) for part in parts]
    return noise * parts[0] + parts[1]
