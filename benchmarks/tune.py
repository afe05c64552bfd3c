"""How a schedule of recipes.toml is found: on a part of the training set held out.

The host sees all but the last images of the training set, a method's marked model is
measured on those, and triggers come from a seed that no suite has. The test set is not
looked at. What is asked for twice is read back.

    python benchmarks/tune.py mnist FixLL+SPL --scale hours --set weights.default.SPL=8
"""

import dataclasses
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

import fidlib as fl
from fidlib import methods, training
from fidlib.runs import store
from fidlib.training import Recipe, Schedule


@dataclass
class Options:
    """What to try."""

    dataset: tyro.conf.Positional[str]
    """mnist, cifar10 or another of fidlib's."""
    methods: tyro.conf.Positional[tuple[str, ...]] = ()
    """Embedded one after the other; none: the host alone."""
    scale: str = "default"
    """A scale in recipes.toml, whose values are the start."""
    set: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A line of a recipe in place of its own, in TOML: schedules.host.epochs=10 for the
    host, 'schedules."from host".learning_rate=1e-3' for what starts from it."""
    feature_dim: int = 2
    """D, the inputs of the head."""
    seed: int = 101
    """Not one of those that the suites take."""
    held_out: int = 5000
    """Images to measure on."""


def without_test_set(dataset: str, held_out: int) -> Path:
    """The training set as a set of its own, its last `held_out` images for testing.

    Returns:
        Its file, from the project root.
    """
    images = fl.data.load(dataset).train
    if not 0 < held_out < len(images):
        raise ValueError(
            f"held_out is {held_out}; hold out 1 to {len(images) - 1} of the "
            f"{len(images)} training images."
        )
    path = Path("runs", "held_out", f"{images.fingerprint}-{held_out}.npz")
    whole = store.project_root() / path
    if not whole.exists():
        pixels = images.images.permute(0, 2, 3, 1).numpy()
        labels = images.labels.numpy()
        arrays = {"x_train": pixels[:-held_out], "y_train": labels[:-held_out]}
        arrays |= {"x_test": pixels[-held_out:], "y_test": labels[-held_out:]}
        with store.written(whole) as temporary:
            np.savez_compressed(temporary, allow_pickle=False, **arrays)
    return path


def changed(recipe: Recipe, lines: tuple[str, ...]) -> Recipe:
    """The recipe with lines of TOML in place of its own.

    Raises:
        ValueError: If a line is no TOML, or names nothing that a recipe has.
    """
    values = dataclasses.asdict(recipe)
    _merge(values, tomllib.loads("\n".join(lines)), "")
    schedules = {n: Schedule(**s) for n, s in values.pop("schedules").items()}
    return Recipe(**values, schedules=schedules)


def _merge(values: dict[str, Any], new: dict[str, Any], place: str) -> None:
    for name, value in new.items():
        old = values.get(name)
        if old is None and place in ("schedules.", "weights."):
            # A method that has had none of its own.
            of_host = (place, name) == ("schedules.", "host")
            start = f"from {(training.HOST if of_host else methods.find(name)).start}"
            whole = values[start] if place == "schedules." else {}
            old = values.setdefault(name, dict(whole))
        if place.startswith("weights.") and name in fl.TERMS:
            old = 0.0
        if isinstance(old, dict) and isinstance(value, dict):
            _merge(old, value, f"{place}{name}.")
        elif isinstance(old, float) and isinstance(value, int | float):
            values[name] = float(value)
        elif type(value) is type(old):
            values[name] = value
        else:
            raise ValueError(f"{place}{name}={value!r} is no line of a recipe.")


def main(options: Options) -> None:
    """Print a line for the host and for every method."""
    for name in options.methods:
        methods.find(name)
    recipe = changed(training.recipe(options.dataset, options.scale), options.set)
    path = without_test_set(options.dataset, options.held_out)
    study = fl.Study(
        fl.Config(str(path), feature_dim=options.feature_dim, seed=options.seed)
    )
    study._store.recipe = recipe  # no configuration holds what is only tried
    for name in ["host", *options.methods]:
        report = study.fidelity(name)
        print(
            f"{study.describe(name)}; TWL {report.twl:.4g}, PFL {report.pfl:.4g}, "
            f"SPL {report.spl:.4g}",
            flush=True,
        )


if __name__ == "__main__":
    try:
        main(tyro.cli(Options))
    except (ValueError, OSError, fl.training.Diverged) as error:
        raise SystemExit(f"tune.py: {error}") from None
