"""An attack as data: a function with its settings, and one of them as its strength."""

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, Literal

import torch

from fidlib.data import Split
from fidlib.models import Classifier
from fidlib.runs import keys

Function = Callable[..., Classifier]
"""`function(model, split, seed, ...)`: the fourth argument, if any, is its strength,
and it and all after it have defaults."""

Images = Literal["attacker", "unlabelled", "photographs"]
"""What he is given: images of his own, a tenth of the training images; all but those
that he tries his model on, without labels; or images of something else."""


@dataclass(frozen=True)
class Strength:
    """What the number in `prune:0.4` may be."""

    what: str
    """The number in words."""
    least: float
    most: float
    whole: bool = False
    """Whether it is a whole number."""

    def read(self, value: float, attack: str) -> float:
        """The number, in its range.

        Raises:
            ValueError: If it is not.
        """
        number = isinstance(value, Real)
        fits = number and self.least <= value <= self.most
        if fits and (not self.whole or value % 1 == 0):
            return int(value) if self.whole else float(value)
        kind = "a whole number " if self.whole else ""
        came = f"{value:g}" if number else repr(value)
        raise ValueError(
            f"{attack}: {self.what} is {came}; it is {kind}from {self.least:g} to "
            f"{self.most:g}."
        )


@dataclass(frozen=True)
class Preset:
    """A function with its settings, under a name in `ATTACKS`."""

    of: Function
    """What it does."""
    kind: str = "own"
    """Of attack, in a word or two: what pictures tell apart."""
    strength: Strength | None = None
    """What its fourth argument may be; None: anything."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Settings other than the function's defaults."""
    images: Images = "attacker"
    """What it is given."""
    wraps: bool = False
    """Whether it gives another architecture, without a look at any image."""

    def __call__(
        self, model: Classifier, split: Split, seed: int, **options: Any
    ) -> Classifier:
        """The attacked model, in eval mode; the given one is not changed.

        Raises:
            ValueError: If the strength makes no sense, or the function gives no
                classifier.
        """
        name = next(iter(self.settings()), None)
        if self.strength is not None and name in options:
            self.strength.read(options[name], str(name))
        result = self.of(model, split, seed, **{**self.options, **options})
        if not isinstance(result, Classifier):
            raise ValueError(
                f"{getattr(self.of, '__name__', self.of)} returned a "
                f"{type(result).__name__}; an attack returns a fidlib.Classifier."
            )
        return result.eval()

    def settings(self) -> dict[str, Any]:
        """Every option with its value here, the strength first."""
        options = [*inspect.signature(self.of).parameters.values()][3:]
        return {p.name: self.options.get(p.name, p.default) for p in options}


_NOTHING = Split(torch.zeros(0, 1, 1, 1), torch.zeros(0).long())


@dataclass(frozen=True)
class Attack:
    """An attack at a strength, as a lineage names it: `prune:0.4`."""

    name: str
    """In `ATTACKS`, without `/`."""
    preset: Preset
    """What stands there."""
    strength: float | None = None
    """The preset's own when None."""

    def __str__(self) -> str:
        if self.strength is None:
            return self.name
        return f"{self.name}:{self.strength!r}".removesuffix(".0")

    def __call__(self, model: Classifier, split: Split, seed: int) -> Classifier:
        """The attacked model, in eval mode."""
        return self.preset(model, split, seed, **self._option())

    def at(self) -> float:
        """Its strength as a number, also where it is the preset's own; NaN: none."""
        value = next(iter((self.preset.settings() | self._option()).values()), None)
        return float(value) if isinstance(value, int | float) else math.nan

    def like(self, model: Classifier) -> Classifier:
        """A model of the architecture that it makes of this one, with any weights."""
        return self(model, _NOTHING, 0) if self.preset.wraps else model

    def definition(self) -> list[object]:
        """JSON values that change when the attack does; part of a run's hash."""
        if not self.preset.of.__module__.startswith("fidlib."):
            options = [dict(self.preset.options), self.strength]
            return [self.name, keys.code(self.preset.of), *options]
        return [self.name, self.preset.settings() | self._option()]

    def _option(self) -> dict[str, Any]:
        """The strength, by its name as an option."""
        if self.strength is None:
            return {}
        return {next(iter(self.preset.settings())): self.strength}
