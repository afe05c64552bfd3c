"""What the user added to fidlib's registries, which goes along to other processes."""

import inspect
from typing import Any

from fidlib import attacks, methods, networks, triggers
from fidlib.attacks.preset import Preset
from fidlib.measures.catalogue import MEASURES, Measure
from fidlib.methods import Method
from fidlib.runs import keys

Entries = dict[str, dict[str, Any]]
"""Registry -> name -> what is entered."""

_REGISTRIES: Entries = {
    "ATTACKS": attacks.ATTACKS,
    "MEASURES": MEASURES,
    "METHODS": methods.METHODS,
    "NETWORKS": networks.NETWORKS,
    "TERMS": methods.TERMS,
    "TRIGGERS": triggers.TRIGGERS,
}


def user_entries() -> Entries:
    """The user's entries, and all methods, which are data."""
    return {
        name: {n: entry for n, entry in entries.items() if _is_own(entry)}
        for name, entries in _REGISTRIES.items()
    }


def add(entries: Entries) -> None:
    """Enter what `user_entries` gave in another process."""
    for name, rows in entries.items():
        _REGISTRIES[name].update(rows)


def _is_own(entry: object) -> bool:
    row = isinstance(entry, Measure | Preset)
    functions = [entry.of, getattr(entry, "parts", None)] if row else [entry]
    functions = [f for f in functions if inspect.isroutine(f) or inspect.isclass(f)]
    outsiders = [f for f in functions if not f.__module__.startswith("fidlib.")]
    for function in outsiders:
        keys.code(function)  # its text goes along
    return bool(outsiders) or isinstance(entry, Method)
