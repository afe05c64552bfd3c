"""How a schedule of recipes.toml was found: on a part of the training set held out.

The host sees all but the last images of the training set, a method's marked model is
measured on those, and triggers come from a seed that no suite has. The test set is not
looked at. What is asked for twice is read back.

    python benchmarks/tune.py mnist FixLL+SPL --set weights.SPL=8 --set epochs=2
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

import fidlib as fl
from fidlib import runs, training
from fidlib.training import Recipe, Schedule


@dataclass
class Options:
    """What to try."""

    dataset: tyro.conf.Positional[str]
    """As in fidlib.Config."""
    methods: tyro.conf.Positional[tuple[str, ...]]
    """Embedded one after the other; none: the host alone."""
    scale: str = "hours"
    """Where to start from: a scale in recipes.toml."""
    set: Annotated[
        tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(name="set")
    ] = ()
    """name=value for the methods: epochs, learning_rate or decay of their schedule,
    weights.TERM, or a field of the recipe, such as trigger_batch_size."""
    host: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """The same for the host's schedule, such as epochs=10."""
    feature_dim: int = 2
    """D."""
    seed: int = 101
    """Not one of those that the suites take."""
    held_out: int = 5000
    """Images to measure on."""


def held_out(dataset: str, count: int) -> Path:
    """The training set as a set of its own, its last `count` images for testing."""
    path = runs.project_root() / "runs" / "held_out" / f"{dataset}-{count}.npz"
    if not path.exists():
        train = fl.data.load(dataset).train
        images = train.images.permute(0, 2, 3, 1).numpy()
        labels = train.labels.numpy()
        arrays = {"x_train": images[:-count], "y_train": labels[:-count]}
        arrays |= {"x_test": images[-count:], "y_test": labels[-count:]}
        with runs.written(path) as temporary:
            np.savez_compressed(temporary, allow_pickle=False, **arrays)
    return path


def changed(recipe: Recipe, methods: list[str], told: tuple[str, ...]) -> Recipe:
    """A recipe with `name=value` applied to methods' schedules, weights, or itself."""
    for text in told:
        name, value = _read(text)
        if name in ("epochs", "learning_rate", "decay"):
            own = {
                m: replace(recipe.schedule(fl.METHODS[m]), **{name: value})
                for m in methods
            }
            recipe = replace(recipe, schedules={**recipe.schedules, **own})
        elif name.startswith("weights."):
            term = {name.removeprefix("weights."): value}
            own = {m: {**recipe.weights.get(m, {}), **term} for m in methods}
            recipe = replace(recipe, weights={**recipe.weights, **own})
        else:
            recipe = replace(recipe, **{name: value})
    return recipe


def _read(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    known = {f for kind in (Recipe, Schedule) for f in kind.__dataclass_fields__}
    if not value or (name not in known and not name.startswith("weights.")):
        raise SystemExit(f"{text!r}: write name=value, such as epochs=2.")
    try:
        return name, int(value) if value.isdigit() else float(value)
    except ValueError:
        return name, value


def main(options: Options) -> None:
    """Print a line for the host and for every method."""
    recipe = training.recipe(options.dataset, options.scale)
    recipe = changed(recipe, ["ref"], options.host)
    methods = list(options.methods)
    path = held_out(options.dataset, options.held_out)
    study = fl.Study(
        fl.Config(str(path), feature_dim=options.feature_dim, seed=options.seed)
    )
    study.recipe = changed(recipe, methods, options.set)
    for name in ["host", *methods]:
        report = study.fidelity(name)
        print(
            f"{study.describe(name)}; TWL {report.twl:.4g}, PFL {report.pfl:.4g}, "
            f"SPL {report.spl:.4g}",
            flush=True,
        )


if __name__ == "__main__":
    main(tyro.cli(Options))
