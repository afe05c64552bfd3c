"""What chance decides of each step, drawn on the CPU, and how images are changed by it.

The draws of a training depend on its plan alone, so that they are the same on every
device, and are made again when a training that was stopped goes on.
"""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from fidlib.data import pixels
from fidlib.runs.keys import stream
from fidlib.training.plan import Plan

PADDING = 4
"""Largest shift of an augmented image, pixels."""

AHEAD = 64
"""Steps whose draws are sent to a GPU at a time, while it is at work on others."""


class Draw(NamedTuple):
    """What chance decides of one step: of its B images and T triggers."""

    index: Tensor
    """`(B,)` numbers of its images."""
    secret: Tensor
    """`(T,)` numbers of its triggers; T is 0 where none are learned."""
    shifts: Tensor
    """`(2, B)` by how many rows and columns an image moves, `PADDING` for not at all;
    like the next, of no images where they are not augmented."""
    flips: Tensor
    """`(B,)` bool: whether it is mirrored."""
    shares: Tensor
    """`(B,)` of an image in its mixture; like the next, of none where nothing is mixed.
    """
    others: Tensor
    """`(B,)` number in the batch of the image that it is mixed with."""


def draws(
    plan: Plan, count: int, triggers: int, device: torch.device
) -> Iterator[Draw]:
    """The draws of all steps, one after the other, on a device.

    Args:
        plan: Whose training it is.
        count: Training images.
        triggers: Those that are learned; 0 where none are.
        device: Where the images are.
    """
    drawn = _drawn(plan, count, triggers)
    if device.type == "cpu":
        return drawn
    ahead = iter(lambda: [*itertools.islice(drawn, AHEAD)], [])
    return (draw for some in ahead for draw in sent(some, device))


def sent(drawn: list[Draw], device: torch.device) -> Iterator[Draw]:
    """The same draws on a device: a field of them all goes there in one piece."""
    fields = []
    for parts in zip(*drawn, strict=True):
        whole = torch.cat(parts, -1)
        whole = whole.pin_memory() if device.type == "cuda" else whole  # nobody waits
        whole = whole.to(device, non_blocking=True)
        fields.append(whole.split([part.shape[-1] for part in parts], -1))
    return map(Draw, *fields)


def _drawn(plan: Plan, count: int, triggers: int) -> Iterator[Draw]:
    names = ("order", "triggers", "augmentation")
    order, secret, changes = (stream(plan.seed, plan.method.name, n) for n in names)
    none = torch.empty(0, dtype=torch.long)
    queue = endless_batches(triggers, plan.trigger_batch_size, secret)
    for _ in range(plan.epochs):
        for index in batches(count, plan.steps(count), order):
            shifts, flips = none.expand(2, 0), none.bool()
            shares, others = none.float(), none
            if plan.augment:
                shape = 2, len(index)
                shifts = torch.randint(0, 2 * PADDING + 1, shape, generator=changes)
                flips = torch.rand(len(index), generator=changes) < 0.5
            if plan.method.mixes:
                shares = torch.rand(len(index), generator=changes)
                others = torch.randperm(len(index), generator=changes)
            learned = next(queue) if triggers else none
            yield Draw(index, learned, shifts, flips, shares, others)


def batches(count: int, steps: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    """One epoch of shuffled indices, all `count` of them once, a batch a step.

    Batches differ by one index at most, so that no step rests on a handful of images.
    """
    return torch.randperm(count, generator=generator).tensor_split(steps)


def endless_batches(
    count: int, size: int, generator: torch.Generator
) -> Iterator[Tensor]:
    """Batches of exactly `min(size, count)` indices, for ever, no index favoured.

    One shuffled pass follows another, so any two indices have been drawn equally
    often, give or take one.
    """
    size, queue = min(size, count), torch.empty(0, dtype=torch.long)
    while True:
        while len(queue) < size:
            queue = torch.cat([queue, torch.randperm(count, generator=generator)])
        yield queue[:size]
        queue = queue[size:]


def crop_and_flip(images: Tensor, shifts: Tensor, flips: Tensor) -> Tensor:
    """Shift each image by up to `PADDING` pixels and mirror some.

    The usual CIFAR augmentation, for a whole batch in one gather on its device.

    Args:
        images: `(N, C, H, W)` of any type; black (0) moves in at the sides.
        shifts: `(2, N)` as in `Draw`.
        flips: `(N,)` as in `Draw`.

    Returns:
        `(N, C, H, W)`, the type of `images`.
    """
    count, _, height, width = images.shape
    device = images.device
    rows = torch.arange(height, device=device) + shifts[0][:, None]
    columns = torch.arange(width, device=device).expand(count, -1)
    columns = torch.where(flips[:, None], columns.flip(1), columns)
    columns = columns + shifts[1][:, None]
    picked = F.pad(images, [PADDING] * 4)[
        torch.arange(count, device=device)[:, None, None],
        :,
        rows[:, :, None],
        columns[:, None, :],
    ]
    return picked.permute(0, 3, 1, 2)


def mix(images: Tensor, shares: Tensor, others: Tensor) -> Tensor:
    """Each image mixed with another of the batch.

    What a network does between the images of a class, and between classes, is seen on
    such mixtures (Zhang et al., "mixup", ICLR 2018, without its labels).

    Args:
        images: `(N, C, H, W)` pixels.
        shares: `(N,)` in [0, 1], of the other.
        others: `(N,)` their numbers.

    Returns:
        `(N, C, H, W)` float pixels, 0 to 1 where `images` are.
    """
    whole = pixels(images)
    return whole.lerp(whole[others], shares[:, None, None, None])
