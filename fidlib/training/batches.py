"""Which images a step sees, and how they are changed, on the images' device."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from fidlib.data import pixels


def batches(
    count: int, steps: int, generator: torch.Generator, device: torch.device
) -> tuple[Tensor, ...]:
    """One epoch of shuffled indices, all `count` of them once, a batch a step.

    Batches differ by one index at most, so that no step rests on a handful of images.
    """
    order = torch.randperm(count, generator=generator).to(device)
    return order.tensor_split(steps)


def endless_batches(
    count: int, size: int, generator: torch.Generator, device: torch.device
) -> Iterator[Tensor]:
    """Batches of exactly `min(size, count)` indices, for ever, no index favoured.

    One shuffled pass follows another, so any two indices have been drawn equally
    often, give or take one.
    """
    size, queue = min(size, count), torch.empty(0, dtype=torch.long, device=device)
    while True:
        while len(queue) < size:
            shuffled = torch.randperm(count, generator=generator).to(device)
            queue = torch.cat([queue, shuffled])
        yield queue[:size]
        queue = queue[size:]


def crop_and_flip(
    images: Tensor, generator: torch.Generator, padding: int = 4
) -> Tensor:
    """Shift each image by up to `padding` pixels and mirror every other one.

    The usual CIFAR augmentation, for a whole batch in one gather on its device.

    Args:
        images: `(N, C, H, W)` of any type; black (0) moves in at the sides.
        generator: Source of the shifts and flips (on the CPU).
        padding: Largest shift, pixels.

    Returns:
        `(N, C, H, W)`, the type of `images`.
    """
    count, _, height, width = images.shape
    device = images.device
    shifts = torch.randint(0, 2 * padding + 1, (2, count, 1), generator=generator)
    flips = torch.rand(count, 1, generator=generator) < 0.5
    rows = torch.arange(height) + shifts[0]
    columns = torch.arange(width).expand(count, -1)
    columns = torch.where(flips, columns.flip(1), columns) + shifts[1]
    padded = F.pad(images, [padding] * 4)
    picked = padded[
        torch.arange(count, device=device)[:, None, None],
        :,
        rows.to(device)[:, :, None],
        columns.to(device)[:, None, :],
    ]
    return picked.permute(0, 3, 1, 2)


def mix(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image mixed with another of the batch, in shares drawn from [0, 1].

    What a network does between the images of a class, and between classes, is seen on
    such mixtures (Zhang et al., "mixup", ICLR 2018, without its labels).

    Args:
        images: `(N, C, H, W)` pixels.
        generator: Source of the shares and the pairs (on the CPU).

    Returns:
        `(N, C, H, W)` float pixels, 0 to 1 where `images` are.
    """
    count, device = len(images), images.device
    share = torch.rand(count, 1, 1, 1, generator=generator).to(device)
    other = torch.randperm(count, generator=generator).to(device)
    whole = pixels(images)
    return whole.lerp(whole[other], share)
