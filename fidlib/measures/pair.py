"""Two models on the same images: what the measures look at."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple, cast

import torch
from torch import Tensor

from fidlib import models, weights
from fidlib.data import Split, pixels
from fidlib.measures import boundary, conditions, geometry
from fidlib.measures.intervals import LEVEL
from fidlib.models import Classifier, Outputs
from fidlib.runs.keys import stream

PLANES = 16
"""Planes of each kind, of 55 points."""

SEGMENTS = 60
"""Segments between images of different classes, of 16 points."""

DISTANT = 1000
"""Images among which all distances are taken, at most."""

ASKED = 500
"""Images whose shifts, or whose activations in every layer, are looked at, at most."""

Run = Callable[[Classifier, Tensor], Outputs]
"""What a model makes of images, computed or kept."""


class Probe(NamedTuple):
    """Points at which two models are compared, and their answers there."""

    points: Tensor
    """`(P, Q, C, H, W)` pixels: Q on each of P planes or segments."""
    host: Tensor
    """`(P, Q, K)` float64 logits of the host."""
    marked: Tensor
    """`(P, Q, K)` float64 logits of the marked model."""


class Shifted(NamedTuple):
    """What two models make of images under one shift."""

    host: Tensor
    """`(N, K)` float64 logits of the host."""
    marked: Tensor
    """`(N, K)` float64 logits of the marked model."""
    labels: Tensor | None
    """`(N,)` class indices; None of images of no class of the models'."""


class Pair:
    """A host and a marked model on the same images, each part made when asked for.

    The two may be any classifiers of the same classes.

    Args:
        host: The reference.
        marked: The model that is compared with it.
        split: Images and labels to compare on, on the models' device.
        triggers: The watermark, if there is one.
        run: Gives a model's outputs; those that a store keeps, or runs the model.
        seed: Decides planes, segments and permutations.

    Raises:
        ValueError: If the two do not have the same number of classes; if there is no
            image, or a label that is none of the host's classes.
    """

    label: int | None = None
    """The class it is restricted to, by `only`."""

    def __init__(
        self,
        host: Classifier,
        marked: Classifier,
        split: Split,
        triggers: Split | None = None,
        *,
        run: Run = models.outputs,
        seed: int = 0,
    ) -> None:
        for model in (host, marked):
            _check_model(model)
        if marked.num_classes != host.num_classes:
            raise ValueError(
                f"the host has {host.num_classes} classes, the marked model "
                f"{marked.num_classes}; compare classifiers of the same classes."
            )
        for name, part in (("split", split), ("triggers", triggers)):
            if part is not None:
                _check_labels(name, part, host.num_classes)
        self.host = cast(Classifier, weights.plain(host))
        other = self.host if marked is host else weights.plain(marked)
        self.marked = cast(Classifier, other)
        self.split, self.triggers, self.seed = split, triggers, seed
        self._run = run
        self._whole: Pair = self

    def __len__(self) -> int:
        return len(self.labels)

    def only(self, label: int) -> Pair:
        """The same two models on the images of one class alone."""
        part = copy.copy(self)
        for name in [n for n in vars(part) if isinstance(_lazy(n), cached_property)]:
            del vars(part)[name]
        part._whole, part.label = self, label
        return part

    @property
    def num_classes(self) -> int:
        """K, the number of classes of either model."""
        return self.host.num_classes

    @property
    def level(self) -> float:
        """Confidence of its intervals: those of the classes hold all at once."""
        alone = self.label is None
        return LEVEL if alone else 1 - (1 - LEVEL) / self.num_classes

    @cached_property
    def rows(self) -> Tensor:
        """Indices of the images in `split`."""
        labels = self.split.labels
        if self.label is None:
            return torch.arange(len(labels), device=labels.device)
        return (labels == self.label).nonzero()[:, 0]

    @cached_property
    def labels(self) -> Tensor:
        """`(N,)` class indices."""
        return self.split.labels[self.rows]

    @cached_property
    def features(self) -> tuple[Tensor, Tensor]:
        """`(N, D)` of the host and `(N, E)` of the marked model, float64."""
        return self._of("features")

    @cached_property
    def logits(self) -> tuple[Tensor, Tensor]:
        """`(N, K)` of the two, float64."""
        return self._of("logits")

    @cached_property
    def answers(self) -> tuple[Tensor, Tensor]:
        """`(N,)` classes that the two name."""
        host, marked = self.logits
        return host.argmax(1), marked.argmax(1)

    @cached_property
    def distances(self) -> tuple[Tensor, Tensor]:
        """`(n, n)` L2 distances among the features of the two, float64.

        Of `DISTANT` images at most, spread over the set and its classes: what follows
        of them depends on how many there are.
        """
        rows = self.split.sample_rows(DISTANT)
        host, marked = (geometry.distances(part[rows]) for part in self.features)
        return host, marked

    @cached_property
    def layers(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Layer -> `(n, C)` activations of the two, float64, averaged over places.

        Of `ASKED` images at most, and of layers that both have.
        """
        images = self.split.sample(ASKED).images
        host, marked = (models.activations(m, images) for m in (self.host, self.marked))
        return {
            n: (x.double(), marked[n].double()) for n, x in host.items() if n in marked
        }

    @cached_property
    def shifted(self) -> dict[str, Shifted]:
        """What the two make of images under every shift of `conditions`, by name.

        Of `ASKED` images at most, spread over the set and its classes.
        """
        asked, shifts = self.split.sample(ASKED), {}
        for condition in conditions.shifted(asked.images, self.host):
            host, marked = (
                self._run(model, condition.images).logits.double()
                for model in (self.host, self.marked)
            )
            labels = asked.labels if condition.strength else None
            shifts[str(condition)] = Shifted(host, marked, labels)
        return shifts

    @cached_property
    def weights(self) -> tuple[dict[str, Tensor], dict[str, Tensor]] | None:
        """Parameters of the two by name, as their layers use them, float64; None if of
        other names or shapes.
        """
        host, marked = (
            {n: p.detach().double() for n, p in weights.used(model).items()}
            for model in (self.host, self.marked)
        )
        shapes = [{n: p.shape for n, p in x.items()} for x in (host, marked)]
        return (host, marked) if shapes[0] == shapes[1] else None

    @cached_property
    def prototypes(self) -> tuple[Tensor, Tensor]:
        """`(K, D)` and `(K, E)` of the two heads, float64; of a class alone its row."""
        rows = slice(None) if self.label is None else slice(self.label, self.label + 1)
        host, marked = (
            model.head.weight.detach().double()[rows]
            for model in (self.host, self.marked)
        )
        return host, marked

    @cached_property
    def trigger_answers(self) -> tuple[Tensor, Tensor] | None:
        """Whether each trigger is answered, `(M,)` bool of the two; of the class alone.

        None without triggers.
        """
        if self.triggers is None:
            return None
        images, labels = self.triggers.images, self.triggers.labels
        if self.label is not None and (whole := self._whole.trigger_answers):
            return whole[0][labels == self.label], whole[1][labels == self.label]
        host, marked = (
            self._run(model, images).logits.argmax(1) == labels
            for model in (self.host, self.marked)
        )
        return host, marked

    @cached_property
    def planes(self) -> Probe | None:
        """Planes through three images of three classes; None where there are no three.

        A plane is the triangle of its corners: every point is a mixture of images.
        """
        if self.label is not None:
            return self._whole.planes
        return self._probe(boundary.triangles(self._corners("planes")))

    @cached_property
    def segments(self) -> Probe | None:
        """Segments from an image to one of another class."""
        if self.label is not None:
            return self._whole.segments
        return self._probe(boundary.segments(self._corners("segments")))

    @cached_property
    def trigger_planes(self) -> Probe | None:
        """Planes through a trigger, an image of the class that the host gives it and
        one of the class that its label says; None where no such three are found.
        """
        if self.label is not None:
            return self._whole.trigger_planes
        if self.triggers is None:
            return None
        return self._probe(boundary.triangles(self._trigger_corners(self.triggers)))

    def _of(self, part: str) -> tuple[Tensor, Tensor]:
        if self.label is not None:
            host, marked = getattr(self._whole, part)
            return host[self.rows], marked[self.rows]
        host, marked = (getattr(outputs, part).double() for outputs in self._outputs)
        return host, marked

    @cached_property
    def _outputs(self) -> tuple[Outputs, Outputs]:
        host = self._run(self.host, self.split.images)
        same = self.marked is self.host
        marked = host if same else self._run(self.marked, self.split.images)
        if not all(tensor.isfinite().all() for tensor in (*host, *marked)):
            raise ValueError(
                "a model's features or logits are not finite on these images: compare "
                "models whose training did not diverge."
            )
        return host, marked

    @cached_property
    def _draws(self) -> dict[str, Tensor]:
        """Images of planes and of segments by number, and where the stream then is."""
        generator = stream(self.seed, "probes")
        drawn = {
            name: boundary.class_tuples(
                self.split.labels, size, count=count, generator=generator
            )
            for name, size, count in (("planes", 3, PLANES), ("segments", 2, SEGMENTS))
        }
        return drawn | {"state": generator.get_state()}

    def _corners(self, name: str) -> Tensor:
        rows = self._draws[name].to(self.split.images.device)
        return pixels(self.split.images[rows]).float()

    def _trigger_corners(self, triggers: Split) -> Tensor:
        """`(P, 3, C, H, W)`: a trigger, an image of its source, one of its target."""
        generator = torch.Generator()
        generator.set_state(self._draws["state"])
        labels, shape = self.split.labels, triggers.images.shape[1:]
        if shape != self.split.images.shape[1:]:
            raise ValueError(
                f"triggers are {tuple(shape)}, the images "
                f"{tuple(self.split.images.shape[1:])} (channels, height, width); make "
                "them alike."
            )
        sources = self._run(self.host, triggers.images).logits.argmax(1)
        corners = [torch.empty(0, 3, *shape, device=labels.device)]
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
            corners.append(torch.cat([trigger, images])[None])
        return torch.cat(corners[: PLANES + 1])

    def _probe(self, points: Tensor) -> Probe | None:
        if not len(points):
            return None
        flat, shape = points.flatten(0, 1), points.shape[:2]
        host, marked = (
            self._run(model, flat).logits.double().view(*shape, -1)
            for model in (self.host, self.marked)
        )
        return Probe(points, host, marked)


def _lazy(name: str) -> object:
    return getattr(Pair, name, None)


def _check_model(model: Classifier) -> None:
    if not isinstance(model, Classifier):
        raise ValueError(
            f"a {type(model).__name__} cannot be compared as it is: pass "
            "fidlib.models.wrap(network, ...)."
        )


def _check_labels(name: str, part: Split, classes: int) -> None:
    if not len(part):
        raise ValueError(f"{name} holds no image; compare on one or more.")
    low, high = int(part.labels.min()), int(part.labels.max())
    if low < 0 or high >= classes:
        raise ValueError(
            f"labels of {name} run from {low} to {high}, but the host has {classes} "
            "classes, numbered from 0: compare on images of the host's own classes."
        )
