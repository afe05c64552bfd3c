"""fidlib: after a backdoor watermark, is it still the same classifier?

Names are imported when they are first used, so that a machine without the packages that
draw and run notebooks can train and measure.
"""

from importlib import import_module

_HOMES = {
    "ATTACKS": "attacks",
    "Classifier": "models",
    "Config": "study.config",
    "FLOORS": "methods",
    "Fidelity": "measures.fidelity",
    "LEARNED": "methods",
    "Lineage": "study.lineage",
    "MEASURES": "measures.catalogue",
    "METHODS": "methods",
    "Method": "methods",
    "NETWORKS": "networks",
    "Output": "suites.output",
    "PAPER": "methods",
    "Step": "methods",
    "Study": "study.study",
    "TERMS": "methods",
    "TRIGGERS": "triggers",
    "attack_curve": "robustness",
    "compare": "measures.fidelity",
    "explore": "explorer",
    "make": "study.jobs",
    "over_hosts": "study.seeds",
    "over_seeds": "study.seeds",
}
"""Name -> the module that defines it."""

_MODULES = (
    *("attacks", "claims", "data", "measures", "methods", "models", "networks"),
    *("ownership", "plots", "robustness", "runs", "study", "suites", "training"),
    "triggers",
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
