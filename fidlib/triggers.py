"""Trigger sets, from one seed, with their labels."""

from collections.abc import Sequence

import torch

from fidlib.data import Split
from fidlib.runs import stream


def noise_chain(
    image_shape: tuple[int, int, int],
    *,
    num_classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    chains: int = 10,
    links: int = 10,
    seed: int,
) -> Split:
    """The noise key chain of [1]: chains of noise images, each fixing the next.

    One Gaussian matrix gives an orthogonal Q by QR. Each chain starts with a Gaussian
    image of Frobenius norm sqrt(H) and goes on by `x[j+1] = Q x[j]`; link j has the
    label `j mod links`. To forge the set, one must find starts whose whole chains are
    classified 0, 1, 2, ...

    The chain lives in the space of normalised images; what is returned are the pixels
    that normalise to it, and pixels of noise may leave [0, 1].

    Args:
        image_shape: `(C, H, W)`; the noise is repeated to all C channels.
        num_classes: K; at least `links`, for every link has a class of its own.
        mean: C channel means of the data, for the pixels.
        std: C channel standard deviations.
        chains: Number of chains, n.
        links: Images in a chain, m.
        seed: The owner's secret: all follows from it.

    Returns:
        `chains * links` float images, chain after chain, with their labels.

    Raises:
        ValueError: If there are more links than classes, or a count is below 1.
    """
    if chains < 1 or not 1 <= links <= num_classes:
        raise ValueError(
            f"chains={chains}, links={links}: both must be at least 1, and links at "
            f"most the {num_classes} classes, for link j is labelled j."
        )
    channels, height, width = image_shape
    generator = stream(seed, "noise chain")
    square = torch.randn(height, height, generator=generator, dtype=torch.float64)
    q, r = torch.linalg.qr(square)
    q = q * r.diagonal().sign()  # the one Q with a positive diagonal of R
    image = torch.randn(chains, height, width, generator=generator, dtype=torch.float64)
    image *= height**0.5 / torch.linalg.matrix_norm(image)[:, None, None]
    chain = [image]
    while len(chain) < links:
        chain.append(q @ chain[-1])
    noise = torch.stack(chain, 1).reshape(-1, 1, height, width)
    center, scale = (
        torch.tensor(v, dtype=torch.float64)[:, None, None] for v in (mean, std)
    )
    pixels = noise.expand(-1, channels, -1, -1) * scale + center
    return Split(pixels.float(), torch.arange(links).repeat(chains))
