"""fidlib: after a backdoor watermark, is it still the same classifier?

Names are imported when they are first used, so that a machine without the packages that
draw and run notebooks can train and measure.
"""

from importlib import import_module

_HOMES = {
    "ATTACKS": "attacks",
    "Classifier": "models",
    "Config": "config",
    "FLOORS": "methods",
    "Fidelity": "measures.fidelity",
    "LEARNED": "methods",
    "Lineage": "lineage",
    "MEASURES": "measures.catalogue",
    "METHODS": "methods",
    "Method": "methods",
    "NETWORKS": "networks",
    "PAPER": "methods",
    "Step": "methods",
    "Study": "study",
    "TERMS": "methods",
    "TRIGGERS": "triggers",
    "compare": "measures.fidelity",
    "explore": "explorer",
    "make": "study",
    "over_seeds": "study",
}
"""Name -> the module that defines it."""

_MODULES = (
    *("attacks", "claims", "data", "lineage", "measures", "methods", "models"),
    *("networks", "plots", "report", "runs", "study", "suites", "training", "triggers"),
)

__all__ = [*_HOMES, *_MODULES]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(f"fidlib.{_HOMES[name]}"), name)
    if name in _MODULES:
        return import_module(f"fidlib.{name}")
    raise AttributeError(f"fidlib has no {name!r}.")


def __dir__() -> list[str]:
    return sorted(__all__)
