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

METHODS = ("FixLL+PFL", "FTAL+TWL")
MEASURES = ("pfl", "spl", "twl", "trigger_accuracy")


@dataclass
class Options:
    """What to embed, and on what."""

    train_images: int = 6000
    """The first so many of MNIST."""
    feature_dim: int = 64
    """D."""
    chains: int = 2
    """Of triggers, ten each: few enough to be learned, for so short a training."""
    epochs: int = 1
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
        chosen = replace(config, seed=seed, chains=options.chains)
        study = fl.Study(chosen, host=host)
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


def summary(found: pd.DataFrame) -> str:
    """Mean and range over the seeds, of a method and measure a line.

    The last columns: the fast type's value by float32's of the same seed, and whether
    the fast mean lies in the range of float32's seeds.
    """
    lines = [
        "| method | measure | float32 | fast | fast / float32, by seed | within |",
        "|---|---|---|---|---|---|",
    ]
    for method, rows in found.groupby("method", sort=False):
        exact, fast = (
            rows[(rows.type == "float32") == wanted].set_index("seed")
            for wanted in (True, False)
        )
        for name in MEASURES:
            a, b = exact[name], fast[name]
            cells = [f"{x.mean():.3g} ({x.min():.3g} to {x.max():.3g})" for x in (a, b)]
            cells.append(", ".join(f"{ratio:.2f}" for ratio in b / a))
            cells.append("yes" if a.min() <= b.mean() <= a.max() else "no")
            lines.append(f"| {method} | {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(options: Options) -> None:
    """Embed, and say whether the fast type ends elsewhere than float32."""
    if runs.pick_precision("auto", runs.pick_device()) == torch.float32:
        raise SystemExit("float32 is what fidlib chooses here: nothing to compare.")
    found = models(options)
    if options.csv:
        found.to_csv(options.csv, index=False, float_format="%.5g")
    print(f"\n{runs.machine()}; {options}\n\n{summary(found)}")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
