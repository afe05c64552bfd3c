"""Where a host's boundary is looked at, and what a marked model changes there."""

from typing import NamedTuple

import torch
from torch import Tensor

from fidlib import boundary, estimates, metrics
from fidlib.data import Split, pixels
from fidlib.estimates import Estimate
from fidlib.features import outputs
from fidlib.models import Classifier
from fidlib.runs import stream

PLANES = 16
"""Planes of each kind, of 9 x 9 points."""

SEGMENTS = 60
"""Segments between images of different classes, of 16 points."""


class Probe(NamedTuple):
    """Points at which two models are compared."""

    points: Tensor
    """`(P, Q, C, H, W)` pixels in [0, 1]: Q on each of P planes or segments."""
    host: Tensor
    """`(P, Q, K)` the host's logits there."""


class Probes:
    """Planes and segments between images, with the host's answers on them.

    Planes go through three images of three classes, and through a trigger, an image of
    the class the host gives it and one of the class its label says; segments from an
    image to one of another class.

    Args:
        host: The reference.
        split: Images the planes and segments go through.
        triggers: The watermark, if there is one.
        seed: Decides the images, and the resamples of the intervals.
    """

    def __init__(
        self, host: Classifier, split: Split, triggers: Split | None, *, seed: int
    ) -> None:
        self.host, self.split, self.seed = host, split, seed
        generator = stream(seed, "probes")
        corners, ends = (
            pixels(split.images[rows.to(split.images.device)]).float()
            for rows in (
                boundary.class_tuples(
                    split.labels, 3, count=PLANES, generator=generator
                ),
                boundary.class_tuples(
                    split.labels, 2, count=SEGMENTS, generator=generator
                ),
            )
        )
        points = {
            "plane_disagreement": boundary.plane_grids(corners),
            "boundary_shift": boundary.segments(ends),
        }
        if triggers is not None:
            corners = self._trigger_corners(triggers, generator)
            points["trigger_plane_disagreement"] = boundary.plane_grids(corners)
        self.probes = {
            measure: Probe(part, _logits(host, part))
            for measure, part in points.items()
            if len(part)
        }

    def __call__(
        self, marked: Classifier
    ) -> tuple[dict[str, list[Estimate]], list[float]]:
        """Measures of the boundary by name, and the share of each plane of images.

        The measures are overall and of each class; one is missing where no plane or
        segment can be laid.
        """
        found, options = {}, {"classes": self.host.num_classes, "seed": self.seed}
        planes: list[float] = []
        for measure, (points, host) in self.probes.items():
            logits = host if marked is self.host else _logits(marked, points)
            answers = host.argmax(2)
            if measure == "boundary_shift":
                moved = _reach(points, logits) - _reach(points, host)
                rows = estimates.of_segments(moved, answers[:, 0], **options)
            else:
                rows = estimates.of_planes(answers, logits.argmax(2), **options)
            if measure == "plane_disagreement":
                planes = (answers != logits.argmax(2)).double().mean(1).tolist()
            found[measure] = rows
        return found, planes

    def _trigger_corners(self, triggers: Split, generator: torch.Generator) -> Tensor:
        """`(P, 3, C, H, W)`: a trigger, an image of its source, one of its target."""
        labels, shape = self.split.labels, triggers.images.shape[1:]
        if shape != self.split.images.shape[1:]:
            raise ValueError(
                f"triggers are {tuple(shape)}, the images "
                f"{tuple(self.split.images.shape[1:])} (channels, height, width); make "
                "them alike."
            )
        sources = outputs(self.host, triggers.images).logits.argmax(1)
        found = [torch.empty(0, 3, *shape, device=labels.device)]
        for place in torch.randperm(len(triggers), generator=generator).tolist():
            source, target = sources[place], triggers.labels[place]
            ends = [(labels == label).nonzero()[:, 0] for label in (source, target)]
            if source == target or not all(map(len, ends)):
                continue
            pair = [
                end[torch.randint(len(end), (), generator=generator)] for end in ends
            ]
            trigger = pixels(triggers.images[place : place + 1]).float()
            images = pixels(self.split.images[torch.stack(pair)]).float()
            found.append(torch.cat([trigger, images])[None])
        return torch.cat(found[: PLANES + 1])


def _logits(model: Classifier, points: Tensor) -> Tensor:
    """`(P, Q, K)` float64 at `(P, Q, C, H, W)` points."""
    found = outputs(model, points.flatten(0, 1)).logits.double()
    return found.view(*points.shape[:2], -1)


def _reach(points: Tensor, logits: Tensor) -> Tensor:
    """`(S,)` distances from the start of segments to where the answer changes."""
    named = logits[:, :1].argmax(2).expand(logits.shape[:2])
    margins = metrics.margins(logits.flatten(0, 1), named.flatten())
    lengths = (points[:, -1] - points[:, 0]).flatten(1).norm(dim=1)
    return boundary.crossings(margins.view(named.shape)) * lengths
