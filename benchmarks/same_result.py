"""Whether the fast path ends where float32 does: real MNIST, three seeds of each.

One host, trained in float32; from it the same epochs, triggers and order of images in
float32 and in the type fidlib chooses here. What counts is whether the two differ by
more than seeds do.

    python benchmarks/same_result.py --csv benchmarks/same_result.csv
"""

import itertools
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import torch
import tyro

import fidlib as fl
from fidlib import runs

METHODS = ("FTAL+TWL", "FixLL+PFL", "FixLL+SPL")
MEASURES = ("pfl", "spl", "twl", "trigger_accuracy")


@dataclass
class Options:
    """What to embed, and on what."""

    train_images: int = 6000
    """The first so many of MNIST."""
    feature_dim: int = 64
    """D."""
    epochs: int = 2
    """Of an embedding."""
    batch_size: int = 16
    """Training images of a step, and triggers."""
    host_epochs: int = 4
    """Of the host."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Each decides the triggers and the order of the images."""
    csv: Path | None = None
    """Write a row per method, type and seed there."""


def models(options: Options) -> pd.DataFrame:
    """A row per method, type and seed, measured on the test images."""
    config = fl.Config(
        "mnist",
        scale="hours",
        feature_dim=options.feature_dim,
        train_images=options.train_images,
        precision="float32",
    )
    host = fl.Study(replace(config, epochs=options.host_epochs)).host()
    known = None
    rows = []
    for seed in options.seeds:
        study = fl.Study(replace(config, seed=seed), host=host)
        known = known or fl.features.outputs(host, study.train.images)
        compared = fl.fidelity.Comparison(
            host, study.test, study.triggers, boundary=False
        )
        recipe = replace(
            study.recipe.with_epochs(options.epochs),
            batch_size=options.batch_size,
            trigger_batch_size=options.batch_size,
        )
        given = study.train, study.triggers, recipe
        fast = runs.pick_precision("auto", study.device)
        for method, precision in itertools.product(METHODS, (torch.float32, fast)):
            how = {"seed": seed, "precision": precision, "known": known}
            model = fl.training.embed(host, fl.METHODS[method], *given, **how).model
            report = compared(model)
            row = {"method": method, "type": str(precision)[6:], "seed": seed}
            rows.append(row | {name: getattr(report, name) for name in MEASURES})
            print(rows[-1], flush=True)
    return pd.DataFrame(rows)


def main(options: Options) -> None:
    """Mean and range over the seeds, and whether the fast type lies within."""
    found = models(options)
    if options.csv:
        found.to_csv(options.csv, index=False, float_format="%.5g")
    exact = found[found.type == "float32"].groupby("method")
    fast = found[found.type != "float32"].groupby("method")
    print(f"\n{runs.machine()}; {options}\n")
    print("| method | measure | float32 | fast | fast / float32, seed by seed |")
    print("|---|---|---|---|---|")
    for method in METHODS:
        pair = [group.get_group(method).set_index("seed") for group in (exact, fast)]
        for measure in MEASURES:
            a, b = (table[measure] for table in pair)
            cells = [f"{x.mean():.3g} ({x.min():.3g} to {x.max():.3g})" for x in (a, b)]
            ratios = ", ".join(f"{r:.3f}" for r in b / a)
            print(f"| {method} | {measure} | {' | '.join(cells)} | {ratios} |")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
