"""Numbers about models, by what they are made of."""

from importlib import import_module

_MODULES = (
    *("alignment", "boundary", "catalogue", "conditions", "controls", "curve"),
    *("fidelity", "geometry", "intervals", "losses", "maps", "measure", "pair"),
    *("ranking", "shift", "truth"),
)


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return import_module(f"fidlib.measures.{name}")
    raise AttributeError(f"fidlib.measures has no {name!r}.")
