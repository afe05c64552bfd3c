"""How long, how fast and with what weights a set is trained on: `recipes.toml`."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal

from fidlib.methods import Method

Decay = Literal["constant", "half", "steps", "cosine", "linear"]
Optimizer = Literal["adam", "sgd"]


@dataclass(frozen=True)
class Schedule:
    """How long and how fast one training runs; a `Plan` refuses what makes no sense."""

    epochs: int
    """Passes over the training images."""
    learning_rate: float
    """Of the optimizer, at its highest."""
    decay: Decay = "constant"
    """How the rate changes, as in `Plan`."""
    coarse: float = 0.0
    """Share of the steps on images of half the side, as in `Plan`."""
    triggers: int = 0
    """Triggers in a step; 0: as many as the recipe says."""
    images: int = 0
    """Training images in a step; 0: as many as the recipe says."""
    optimizer: Optimizer = "adam"
    """Adam, or sgd with momentum, as in `Plan`."""
    weight_decay: float = 0.0
    """Of sgd, as in `Plan`."""


@dataclass(frozen=True)
class Recipe:
    """Everything about training that depends on the data and not on the method."""

    batch_size: int
    """Training images in a step."""
    trigger_batch_size: int
    """Triggers in a step, unless a schedule says otherwise."""
    augment: bool
    """Whether images are cropped and flipped at random."""
    quiet: float
    """Energy, in means over a layer's inputs, up to which a direction is quiet."""
    weights: Mapping[str, Mapping[str, float]]
    """`default`, or a method's name -> preserving term -> its weight in the loss."""
    schedules: Mapping[str, Schedule]
    """`host`, a method's name, `from host` or `from random` -> schedule."""

    def schedule(self, method: Method) -> Schedule:
        """The schedule of a method: its own, else that of where it starts."""
        return self.schedules.get(method.name, self.schedules[f"from {method.start}"])

    def with_epochs(self, epochs: int) -> "Recipe":
        """The same recipe with every schedule at `epochs`."""
        schedules = {n: replace(s, epochs=epochs) for n, s in self.schedules.items()}
        return replace(self, schedules=schedules)

    def with_rate(self, rate: float) -> "Recipe":
        """The same recipe with every schedule at this learning rate."""
        schedules = {
            n: replace(s, learning_rate=rate) for n, s in self.schedules.items()
        }
        return replace(self, schedules=schedules)


@cache
def _recipes() -> dict[str, dict[str, Recipe]]:
    text = Path(__file__).with_name("recipes.toml").read_text("utf-8")
    return {
        dataset: {
            scale: Recipe(
                **values | {"schedules": {n: Schedule(**s) for n, s in schedules}}
            )
            for scale, values in scales.items()
            if (schedules := values["schedules"].items())
        }
        for dataset, scales in tomllib.loads(text).items()
    }


def recipe(dataset: str, scale: str = "default") -> Recipe:
    """The recipe of a data set at a scale.

    Args:
        dataset: As in `data.load`; sets without recipes of their own use `any`'s.
        scale: `default`, the set's first, or a name in `recipes.toml`, such as `paper`
            or `hours`.

    Raises:
        ValueError: If there is no such scale.
    """
    recipes = _recipes()
    scales = recipes["any"] | recipes.get(dataset, {})
    if scale == "default":
        return next(iter(recipes.get(dataset, scales).values()))
    if scale not in scales:
        raise ValueError(
            f"unknown scale {scale!r} for {dataset}; use default or one of "
            f"{', '.join(scales)}."
        )
    return scales[scale]
