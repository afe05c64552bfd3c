"""What a study is about."""

import dataclasses
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Integral
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from fidlib.runs import keys
from fidlib.runs.machine import Precision


@dataclass(frozen=True)
class Config:
    """What a study is about; equal configurations share their results."""

    dataset: str = "digits"
    """digits, mnist, cifar10, cifar100, or the path of an .npz in Keras' layout."""
    model: str = ""
    """resnet18 (the paper's), resnet18_8 (half as wide), wrn28_10, smallnet, or one of
    yours in fidlib.NETWORKS. Empty: resnet18, but for digits (8 x 8), resnet18_8."""
    feature_dim: int = 2
    """D, the penultimate features; at 2 their picture is exact."""
    seed: int = 0
    """Decides weights, order and triggers."""
    scale: str = "default"
    """How long to train: default, or a scale in recipes.toml, such as hours."""
    epochs: int = 0
    """Epochs of every training; 0: the recipe's."""
    embed_epochs: int = 0
    """Epochs of every training but the host's; 0: as above."""
    embed_rate: float = 0.0
    """Learning rate of every training but the host's; 0: the recipe's."""
    train_images: int = 0
    """Train on so many images, spread over set and classes; 0: on all."""
    triggers: str = "chain"
    """The watermark: chain (the paper's), noise, patch, or any of fidlib.TRIGGERS."""
    trigger_count: int = 100
    """Triggers, at most: some families make fewer."""
    trigger_options: Mapping[str, Any] = field(default_factory=dict)
    """Options of their family by name, such as labels, or links of a chain."""
    precision: Precision = "auto"
    """Type to train in; auto: bfloat16 where the hardware is fast at it. What another
    machine made with auto is read back in the type that it chose."""

    def __post_init__(self) -> None:
        if isinstance(self.trigger_options, Mapping):  # a copy: what is frozen stays
            object.__setattr__(self, "trigger_options", dict(self.trigger_options))
        for name, value in vars(self).items():
            if isinstance(value, Path):
                object.__setattr__(self, name, str(value))
            elif isinstance(value, Integral) and not isinstance(value, bool):
                object.__setattr__(self, name, int(value))  # numpy's, too

    @classmethod
    def of(cls, names: dict[str, Any]) -> "Config":
        """The configuration in a notebook's parameters, all of which are checked.

        Args:
            names: `globals()` of the notebook, whose parameters cell says what each is.
                One value where a list is wanted becomes a list of one, there too.

        Raises:
            ValueError: If a parameter has another type than its annotation says.
        """
        for name, kind in names.get("__annotations__", {}).items():
            value = names.get(name)
            if kind is list and isinstance(value, str | int | float):
                names[name] = [value]
            elif kind is float and type(value) is int:
                names[name] = float(value)
            elif kind in (int, float, str, list) and type(value) is not kind:
                raise ValueError(
                    f"{name} is {value!r}; expected {kind.__name__}, as in the cell of "
                    "parameters."
                )
        fields = {option.name for option in dataclasses.fields(cls)}
        return cls(**{name: names[name] for name in fields & names.keys()})

    @property
    def network(self) -> str:
        """The name of its network, also where `model` names none."""
        suited = "resnet18_8" if self.dataset == "digits" else "resnet18"
        return self.model or suited

    def check(self) -> None:
        """Raise ValueError if a field has a type or value that makes no sense."""
        from fidlib import networks, triggers

        for option in dataclasses.fields(self):
            if option.name == "trigger_options":
                continue
            value = getattr(self, option.name)
            kind = type(option.default)
            if not isinstance(value, kind) or isinstance(value, bool):
                raise ValueError(
                    f"{option.name} is {value!r}; expected {kind.__name__}, such as "
                    f"{option.default!r}."
                )
        least_values = {"feature_dim": 2, "epochs": 0, "embed_epochs": 0}
        least_values |= {"embed_rate": 0, "train_images": 0, "trigger_count": 1}
        for name, least in least_values.items():
            if not least <= (value := getattr(self, name)) < 2**63:
                raise ValueError(
                    f"{name} is {value}; it must be at least {least}, below 2^63."
                )
        if self.precision not in get_args(Precision):
            raise ValueError(
                f"precision is {self.precision!r}; use auto, float32 or bfloat16."
            )
        networks.find(self.network)
        family = inspect.signature(triggers.find(self.triggers))
        try:
            keys.canonical(self.trigger_options)
            family.bind(None, 0, host=None, count=1, **self.trigger_options)
        except TypeError as error:
            raise ValueError(
                f"trigger_options are {self.trigger_options!r}, which {self.triggers} "
                f"does not take ({error}): give names with numbers or texts, as its "
                "function has them."
            ) from error
        for name, value in self.trigger_options.items():
            _check_option(family.parameters.get(name), value)


def _check_option(known: inspect.Parameter | None, value: object) -> None:
    """Raise ValueError if an option of triggers has another type than its default, or
    is none of its choices.
    """
    default = known.default if known else None
    if known is None or type(default) not in (bool, int, float, str):
        return
    wanted = (int, float) if type(default) is float else type(default)
    literal = get_origin(known.annotation) is Literal
    choices = get_args(known.annotation) if literal else ()
    odd = isinstance(value, bool) and wanted is not bool
    if odd or not isinstance(value, wanted) or (choices and value not in choices):
        expected = ", ".join(map(repr, choices)) or type(default).__name__
        raise ValueError(
            f"trigger_options: {known.name} is {value!r}; expected {expected}, such as "
            f"{default!r}."
        )
