"""A model's name: what was done to it, from the host on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fidlib import attacks, methods
from fidlib.attacks import Attack
from fidlib.methods import Method
from fidlib.runs.keys import digest


@dataclass(frozen=True)
class Lineage:
    """`host`, `FixLL+PFL`, `FixLL+PFL/prune:0.4`, `host/fine-tune`."""

    method: Method | None = None
    """How the watermark was embedded; None: not at all, this is the host."""
    attacks: tuple[Attack, ...] = ()
    """What was then done to remove it, in order."""

    @classmethod
    def read(cls, name: str | Method | Lineage) -> Lineage:
        """The lineage of that name; a method of your own is a lineage of one step.

        Raises:
            ValueError: If it names no method or no attack.
        """
        if isinstance(name, Lineage):
            return name
        if isinstance(name, Method):
            return cls() if name.name == "host" else cls(name)
        if not isinstance(name, str):
            raise ValueError(
                f"a model is named by {name!r}; use a name such as 'host', 'FixLL+PFL' "
                "or 'FixLL+PFL/prune:0.4', or a fidlib.Method of your own."
            )
        first, *rest = name.split("/")
        method = None if first == "host" else methods.find(first)
        return cls(method, tuple(map(attacks.find, rest)))

    def __str__(self) -> str:
        first = "host" if self.method is None else self.method.name
        return "/".join([first, *map(str, self.attacks)])

    def __truediv__(self, attack: str | Attack) -> Lineage:
        """This model, attacked: `Lineage(method) / "prune:0.4"`."""
        last = attacks.find(attack) if isinstance(attack, str) else attack
        return Lineage(self.method, (*self.attacks, last))

    @property
    def parent(self) -> Lineage | None:
        """What it was made of; None for the host."""
        if self.attacks:
            return Lineage(self.method, self.attacks[:-1])
        return None if self.method is None else Lineage()

    @property
    def key(self) -> str:
        """Sixteen hex digits that change with a method's or an attack's definition."""
        method = self.method and self.method.definition()
        return digest([method, [attack.definition() for attack in self.attacks]])


Name = str | Method | Lineage
"""What names a model: `host`, a method, a lineage, or the text of one."""


def several(names: Name | Iterable[Name]) -> list[Lineage]:
    """The lineages of those names; one name is a list of one.

    Raises:
        ValueError: If one names no method or no attack.
    """
    if isinstance(names, str | Method | Lineage) or not isinstance(names, Iterable):
        return [Lineage.read(names)]
    return [Lineage.read(name) for name in names]
