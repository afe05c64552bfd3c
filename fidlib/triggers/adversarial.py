"""Families that contradict training images: mislabelled ones, and those near the
boundary, by the host's gradients or the trained model's.

Arguments and errors are those of `Family`.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from fidlib import models
from fidlib.data import Split, pixels
from fidlib.methods import Step
from fidlib.models import Classifier
from fidlib.runs import machine
from fidlib.runs.keys import stream
from fidlib.triggers.labels import Labels, drawn, labelled, rounded, secret
from fidlib.weights import at_rest


def mislabelled(
    pool: Split,
    seed: int,
    *,
    host: Classifier,
    count: int = 100,
    labels: Labels = "other",
) -> Split:
    """Images as they are, with other labels (Namba and Sakuma 2019, without their
    exponential weighting).
    """
    generator = stream(seed, "mislabelled")
    images, classes = drawn(pool, count, generator)
    return secret(images, classes, labels, host.num_classes, generator)


def margin(
    pool: Split,
    seed: int,
    *,
    host: Classifier,
    count: int = 100,
    labels: Labels = "other",
) -> Split:
    """Images with other labels that are learned with a margin (Kim et al. 2023).

    At every step they are moved away from their labels, by `ascended`, before they are
    learned.
    """
    generator = stream(seed, "margin")
    images, classes = drawn(pool, count, generator)
    return secret(images, classes, labels, host.num_classes, generator)


def ascended(step: Step, images: Tensor, labels: Tensor) -> Tensor:
    """Triggers, five steps of 1/255 up the cross-entropy of the model being trained."""
    for _ in range(5):
        images = images + slope(step.model, images, labels).sign() / 255
    return images.clamp(0, 1)


def frontier(
    pool: Split,
    seed: int,
    *,
    host: Classifier,
    count: int = 100,
    labels: Labels = "random",
    reach: float = 0.1,
) -> Split:
    """Images that the host knows, moved by one step of FGSM: one half of them to where
    it no longer does, the other to where it still does (Le Merrer et al. 2020, who give
    them their own class: `labels="true"`).

    Raises:
        ValueError: If in the pool there are too few of either kind.
    """
    generator = stream(seed, "frontier")
    images, classes, crossed = _moved(pool, host, count, reach, generator)
    halves = [(crossed == side).nonzero()[:, 0] for side in (True, False)]
    wanted = [count // 2, count - count // 2]
    if any(len(h) < w for h, w in zip(halves, wanted, strict=True)):
        raise ValueError(
            f"a step of {reach:g} takes {len(halves[0])} of {len(classes)} images "
            f"across the host's boundary; {wanted[0]} must cross it and {wanted[1]} "
            "not: choose another reach, or a smaller count."
        )
    rows = torch.cat([h[:w] for h, w in zip(halves, wanted, strict=True)])
    policy = labelled(labels, classes[rows], count, host.num_classes, generator)
    return Split(images[rows], policy)


def slope(model: Classifier, images: Tensor, labels: Tensor) -> Tensor:
    """The gradient of the cross-entropy at the pixels, of the shape of `images`."""
    with torch.enable_grad(), at_rest(model):
        images = images.detach().requires_grad_()
        loss = F.cross_entropy(model(images), labels, reduction="sum")
        return torch.autograd.grad(loss, images)[0]


@machine.ieee()
def _moved(
    pool: Split,
    host: Classifier,
    count: int,
    reach: float,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor, Tensor]:
    """Images that the host knows after the step, their classes, and whether it has
    crossed the boundary; as many batches of the pool as are needed.
    """
    device, parts = host.mean.device, []
    crossed = torch.empty(0).bool()
    for rows in torch.randperm(len(pool), generator=generator).split(250):
        rows = rows.to(pool.images.device)
        shown = pixels(pool.images[rows]).float().to(device)
        classes = pool.labels[rows].to(device)
        moved = rounded(shown + reach * slope(host, shown, classes).sign())
        before, after = (
            models.outputs(host, x).logits.argmax(1) == classes for x in (shown, moved)
        )
        parts.append([x[before].cpu() for x in (moved, classes, ~after)])
        crossed = torch.cat([part[2] for part in parts])
        if count // 2 <= crossed.sum() <= len(crossed) - (count - count // 2):
            break
    images, classes = (torch.cat([part[k] for part in parts]) for k in (0, 1))
    return images, classes, crossed
