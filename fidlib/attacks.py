"""What tries to remove a watermark: attacks by name, with one signature.

`attack(model, split, seed, strength)`: a model and the attacker's own images in, a
model out. Host, triggers and test images cannot be passed, so nothing of them can leak.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from fidlib import training
from fidlib.data import Split
from fidlib.measures import controls
from fidlib.methods import Method
from fidlib.models import Classifier
from fidlib.runs import keys

Function = Callable[..., Classifier]
"""`function(model, split, seed, strength)`, the strength with a default."""


def prune(model: Classifier, split: Split, seed: int, share: float = 0.5) -> Classifier:
    """The smallest weights of all convolutions and linear layers set to 0, untrained.

    By size over the whole network (global L1 pruning).

    Args:
        model: Not changed.
        split: Not looked at.
        seed: Decides nothing.
        share: Of the weights, in [0, 1).

    Raises:
        ValueError: If `share` is no such fraction.
    """
    if not 0 <= share < 1:
        raise ValueError(f"prune:{share:g}: the share of weights must be in [0, 1).")
    model = copy.deepcopy(model)
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    if odd := [type(layer).__name__ for layer in layers if is_parametrized(layer)]:
        raise ValueError(
            f"a weight of {odd[0]} is computed from others (a parametrization), which "
            "would undo zeros: remove it first."
        )
    sizes = torch.cat([layer.weight.detach().abs().flatten() for layer in layers])
    if count := round(share * len(sizes)):
        threshold = sizes.kthvalue(count).values
        with torch.no_grad():
            for layer in layers:
                layer.weight.mul_(layer.weight.abs() > threshold)
    return model


def fine_tune(
    model: Classifier, split: Split, seed: int, epochs: int = 5
) -> Classifier:
    """All layers trained on by the attacker's images; BatchNorm stays as it is.

    Args:
        model: Not changed.
        split: The attacker's labelled images.
        seed: Decides their order.
        epochs: Passes over them.

    Raises:
        ValueError: If there are no epochs.
        Diverged: If the loss is no longer a number.
    """
    if epochs % 1 or epochs < 1:
        raise ValueError(f"fine-tune:{epochs:g}: name a whole number of epochs.")
    plan = training.Plan(
        method=Method("fine-tune", learns="train"),
        epochs=int(epochs),
        learning_rate=1e-3,
        batch_size=64,
        seed=seed,
    )
    return training.train(copy.deepcopy(model), plan, split).model


def flip(model: Classifier, split: Split, seed: int, share: float = 0.05) -> Classifier:
    """A share of the answers changed by a weight change as small as a gradient finds.

    No removal, but a control: see `measures.controls.flipped`.

    Args:
        model: Not changed.
        split: 300 of the attacker's images, whose labels are not looked at.
        seed: Decides nothing.
        share: Of the answers to these images, in (0, 1].

    Raises:
        ValueError: If `share` is no such fraction, or cannot be reached.
    """
    return controls.flipped(model, split.sample(300).images, share)


ATTACKS: dict[str, Function] = {"fine-tune": fine_tune, "flip": flip, "prune": prune}
"""Name -> attack; a function of your own works as well, once it has a name here."""


@dataclass(frozen=True)
class Attack:
    """An attack at a strength, as a lineage names it: `prune:0.4`."""

    name: str
    """In `ATTACKS`, without `:` and `/`."""
    function: Function
    """What it does."""
    strength: float | None = None
    """The function's own default when None."""

    def __str__(self) -> str:
        if self.strength is None:
            return self.name
        return f"{self.name}:{self.strength!r}".removesuffix(".0")

    def __call__(self, model: Classifier, split: Split, seed: int) -> Classifier:
        """The attacked model, in eval mode."""
        given = () if self.strength is None else (self.strength,)
        found = self.function(model, split, seed, *given)
        if not isinstance(found, Classifier):
            raise ValueError(
                f"{self} returned a {type(found).__name__}; an attack returns a "
                "fidlib.Classifier."
            )
        return found.eval()

    def definition(self) -> list[object]:
        """JSON values that change when the attack does; part of a run's hash."""
        own = self.function.__module__ != __name__
        return [self.name, keys.code(self.function) if own else None, self.strength]


def find(text: str) -> Attack:
    """The attack that `name` or `name:strength` names.

    Raises:
        ValueError: If there is none of that name, or the strength is no number.
    """
    name, colon, strength = text.partition(":")
    if name not in ATTACKS:
        raise ValueError(
            f"unknown attack {name!r}; use one of {', '.join(ATTACKS)}, or add your "
            "own to fidlib.ATTACKS."
        )
    try:
        number = float(strength) if colon else None
        if number is not None and not math.isfinite(number):
            raise ValueError
        return Attack(name, ATTACKS[name], number)
    except ValueError as error:
        raise ValueError(
            f"{text}: the strength {strength!r} is no number; write such as prune:0.4."
        ) from error
