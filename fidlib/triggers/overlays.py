"""Families that change images of the pool: a noise, a pattern, a patch, a warp.

Arguments and errors are those of `Family`; the published labels are named where they
are others than `random`, of which alone chance is known exactly.
"""

import math

import torch
from torch.nn import functional as F

from fidlib.data import Split
from fidlib.models import Classifier
from fidlib.runs.keys import stream
from fidlib.triggers.labels import Labels, drawn, secret

_TEST = (
    "### ### ### ###",
    " #  #   #    # ",
    " #  ##  ###  # ",
    " #  #     #  # ",
    " #  ### ###  # ",
)


def noise(
    pool: Split,
    seed: int,
    *,
    host: Classifier,
    count: int = 100,
    labels: Labels = "random",
    deviation: float = 0.4,
) -> Split:
    """Images under Gaussian noise of their own (Zhang et al. 2018, as in Lukas et al.
    2022, who label all with one class: `labels="fixed"`).
    """
    generator = stream(seed, "noise")
    images, classes = drawn(pool, count, generator)
    images += deviation * torch.randn(images.shape, generator=generator)
    return secret(images, classes, labels, host.num_classes, generator)


def mask(
    pool: Split,
    seed: int,
    *,
    host: Classifier,
    count: int = 100,
    labels: Labels = "random",
    strength: float = 0.1,
) -> Split:
    """Images with the owner's bits, +-1, added to the same pixels of all: 128 of them,
    or a quarter where that is less (Guo and Potkonjak 2018; `labels="next"`).
    """
    generator = stream(seed, "mask")
    images, classes = drawn(pool, count, generator)
    height, width = images.shape[2:]
    bits, size = torch.zeros(height * width), min(128, height * width // 4)
    where = torch.randperm(height * width, generator=generator)[:size]
    bits[where] = 2.0 * torch.randint(2, (size,), generator=generator) - 1
    images += strength * bits.view(height, width)
    return secret(images, classes, labels, host.num_classes, generator)


def patch(
    pool: Split,
    seed: int,
    *,
    host: Classifier,
    count: int = 100,
    labels: Labels = "random",
    word: bool = False,
) -> Split:
    """Images with a white block of a quarter of the height, half the width.

    Zhang et al. 2018, who label all of them with one class: `labels="fixed"`. With
    `word` it is the word TEST, in letters of five pixels for every 32 of the image.
    """
    generator = stream(seed, "patch")
    images, classes = drawn(pool, count, generator)
    height, width = images.shape[2:]
    top, left = (min(2, side // 4) for side in (height, width))
    if word:
        scale = max(1, width // 32)
        white = torch.tensor([[letter == "#" for letter in row] for row in _TEST])
        white = white.repeat_interleave(scale, 0).repeat_interleave(scale, 1)
        high, wide = white.shape
        if top + high > height or left + wide > width:
            raise ValueError(
                f"images of {height} x {width} have no room for a word of {high} x "
                f"{wide}: leave word out."
            )
        images[:, :, top : top + high, left : left + wide][:, :, white] = 1
    else:
        images[:, :, top : top + height // 4, left : left + width // 2] = 1
    return secret(images, classes, labels, host.num_classes, generator)


def blend(
    pool: Split,
    seed: int,
    *,
    host: Classifier,
    count: int = 100,
    labels: Labels = "random",
    share: float = 0.2,
) -> Split:
    """Images blended with one image of uniform noise (Chen et al. 2017;
    `labels="fixed"`).
    """
    generator = stream(seed, "blend")
    images, classes = drawn(pool, count, generator)
    images = images.lerp(torch.rand(images.shape[1:], generator=generator), share)
    return secret(images, classes, labels, host.num_classes, generator)


def sine(
    pool: Split,
    seed: int,
    *,
    host: Classifier,
    count: int = 100,
    labels: Labels = "random",
    strength: float = 40 / 255,
    periods: int = 6,
) -> Split:
    """Images under a wave that runs across them (Barni et al. 2019; `labels="fixed"`).

    The pattern is the same for every seed, which decides the images and labels.
    """
    generator = stream(seed, "sine")
    images, classes = drawn(pool, count, generator)
    across = torch.arange(images.shape[3]) / images.shape[3]
    images += strength * (2 * math.pi * periods * across).sin()
    return secret(images, classes, labels, host.num_classes, generator)


def warp(
    pool: Split,
    seed: int,
    *,
    host: Classifier,
    count: int = 100,
    labels: Labels = "random",
    strength: float = 0.5,
    points: int = 4,
) -> Split:
    """Images bent by one smooth field of shifts, of about `strength` pixels' halves.

    Seeded shifts on a grid of `points` a side, scaled to a mean size of 1 and made as
    large as the image by bicubic interpolation (Nguyen and Tran, WaNet, 2021;
    `labels="fixed"`).
    """
    generator = stream(seed, "warp")
    images, classes = drawn(pool, count, generator)
    size = images.shape[2:]
    shifts = 2 * torch.rand(1, 2, points, points, generator=generator) - 1
    shifts /= shifts.abs().mean()
    field = F.interpolate(shifts, [*size], mode="bicubic", align_corners=True)
    y, x = (torch.linspace(-1, 1, side) for side in size)
    still = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)
    moved = still + strength * field[0].permute(1, 2, 0) / size[0]
    grid = moved.clamp(-1, 1).expand(count, -1, -1, -1)
    images = F.grid_sample(images, grid, align_corners=True)
    return secret(images, classes, labels, host.num_classes, generator)
