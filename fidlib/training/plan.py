"""Method x recipe, resolved once: all that a training is told of how to train."""

import math
from dataclasses import dataclass, fields
from typing import get_args

import torch

from fidlib.methods import Method, Term
from fidlib.training.recipes import Decay, Optimizer, Recipe

HOST = Method("host", start="random", learns="train")
"""A host's own training, described as if it were a method."""

_LATER: dict[str, object]
_LATER = {"optimizer": "adam", "weight_decay": 0.0, "trains_norm": False}
"""Settings that came after models were released, whose keys do not name them: they were
trained at these values, and at these a key is silent."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One training's settings: from a method and a recipe by `of`, or written down."""

    method: Method
    """What is trained towards what."""
    epochs: int
    """Passes over the training images."""
    learning_rate: float
    """Of the optimizer, at its highest."""
    batch_size: int
    """Training images in a step."""
    seed: int
    """Decides random starts, the order of images and triggers, augmentation, dropout;
    each method has draws of its own, by its name."""
    decay: Decay = "cosine"
    """How the rate changes: not at all; x 0.1 after half the epochs; x 0.5 after each
    sixth; or up over the first tenth, then along a cosine, or a straight line, to 0."""
    coarse: float = 0.0
    """Share of the steps, from the first, that see images of half the side, in a third
    of the time; for a body that is trained and takes any size. A preserving term holds
    their features to the host's of the whole image."""
    trigger_batch_size: int = 0
    """Triggers in a step; used where the method learns them."""
    augment: bool = False
    """Whether images are cropped and flipped at random."""
    weights: tuple[tuple[str, float], ...] = ()
    """Name and weight of each term that the method preserves, in its order."""
    quiet: float = 0.0
    """Energy, in means over a layer's inputs, up to which a direction is quiet; 0: all
    directions are used."""
    optimizer: Optimizer = "adam"
    """`sgd` has Nesterov's momentum, 0.9."""
    weight_decay: float = 0.0
    """Of sgd: times a weight, it is added to its gradient; not to those of BatchNorm,
    nor to biases."""
    trains_norm: bool = False
    """Whether BatchNorm is trained, and follows the batches, from the host as well."""
    precision: torch.dtype = torch.float32
    """Type of the forward and backward pass."""

    @classmethod
    def of(
        cls,
        method: Method,
        recipe: Recipe,
        *,
        seed: int,
        precision: torch.dtype = torch.float32,
    ) -> "Plan":
        """The plan of a method on the data that a recipe is for.

        Args:
            method: Its own weights and quiet go before the recipe's; `HOST` for a host.
            recipe: Schedule, batch sizes, weights by term.
            seed: As in `Plan`.
            precision: As in `Plan`.

        Raises:
            ValueError: If a term has no weight, or the recipe makes no sense.
        """
        schedule = recipe.schedule(method)
        triggers = schedule.triggers or recipe.trigger_batch_size
        weights = recipe.weights.get(method.name, {})
        return cls(
            method=method,
            epochs=schedule.epochs,
            learning_rate=schedule.learning_rate,
            batch_size=schedule.images or recipe.batch_size,
            seed=seed,
            decay=schedule.decay,
            coarse=schedule.coarse,
            trigger_batch_size=triggers if method.learns_triggers else 0,
            augment=recipe.augment,
            weights=method.weighted({**recipe.weights["default"], **weights}),
            quiet=recipe.quiet if method.quiet is None else method.quiet,
            optimizer=schedule.optimizer,
            weight_decay=schedule.weight_decay,
            precision=precision,
        )

    def __post_init__(self) -> None:
        least = {"epochs": 1, "batch_size": 1}
        least |= {"trigger_batch_size": int(self.method.learns_triggers)}
        for name, number in least.items():
            if (value := getattr(self, name)) < number:
                raise ValueError(f"{name} is {value}; use {number:d} or more.")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate is {self.learning_rate}; it is above 0.")
        for name, choices in {"decay": Decay, "optimizer": Optimizer}.items():
            if getattr(self, name) not in get_args(choices):
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}; use one of "
                    f"{', '.join(get_args(choices))}."
                )
        sgd = self.optimizer == "sgd"
        if self.weight_decay < 0 or (self.weight_decay and not sgd):
            raise ValueError(
                f"weight_decay is {self.weight_decay:g} with {self.optimizer}; it is 0 "
                "or more, and sgd's alone."
            )
        if self.quiet and sgd:
            raise ValueError(
                f"quiet is {self.quiet:g} with sgd; quiet directions are adam's alone."
            )
        if not 0 <= self.coarse < 1:
            raise ValueError(f"coarse is {self.coarse:g}; use a share in [0, 1).")
        terms = [name for name, _ in self.method.terms]
        if [name for name, _ in self.weights] != terms:
            raise ValueError(
                f"weights are {self.weights}, but {self.method.name} preserves "
                f"{', '.join(terms) or 'nothing'}: give each of its terms a weight, or "
                "use Plan.of."
            )
        if self.method.quiet not in (None, self.quiet):
            raise ValueError(
                f"quiet is {self.quiet}, the method's {self.method.quiet}: make them "
                "alike, or use Plan.of."
            )

    @property
    def terms(self) -> list[tuple[Term, float]]:
        """What the method preserves, as functions with their weights in the loss."""
        pairs = zip(self.method.terms, self.weights, strict=True)
        return [(term, weight) for (_, term), (_, weight) in pairs]

    def steps(self, count: int) -> int:
        """Steps of an epoch over so many images."""
        return max(1, -(-count // self.batch_size))

    def rate(self, progress: float) -> float:
        """The learning rate after `progress` of the steps, a share in [0, 1)."""
        factor, warm = 1.0, 0.1
        along = (progress - warm) / (1 - warm)
        if self.decay == "half" and progress >= 0.5:
            factor = 0.1
        elif self.decay == "steps":
            factor = 0.5 ** int(6 * progress)
        elif self.decay in ("cosine", "linear") and progress < warm:
            factor = max(progress / warm, 0.01)  # Adam's first steps are its largest
        elif self.decay == "cosine":
            factor = 0.5 * (1 + math.cos(math.pi * along))
        elif self.decay == "linear":
            factor = 1 - along
        return self.learning_rate * factor

    def key(self) -> dict[str, object]:
        """All here that decides the trained weights, as JSON values; no precision.

        Which type is chosen depends on the machine: what was asked for is the caller's
        to add. Without triggers there is nothing about them, so that a host is the same
        whatever is done to it later.
        """
        values: dict[str, object]
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        values = {n: v for n, v in values.items() if n not in _LATER or v != _LATER[n]}
        del values["precision"]
        if not self.method.learns_triggers:
            del values["trigger_batch_size"]
        values["weights"] = [list(pair) for pair in self.weights]
        values["method"] = self.method.definition()
        return values
