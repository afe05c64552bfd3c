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
from fidlib import training
from fidlib.measures.catalogue import value
from fidlib.measures.pair import Pair
from fidlib.runs import machine

METHODS = ("FixLL+PFL", "FTAL+TWL")
MEASURES = ("pfl", "spl", "twl", "trigger_accuracy")


@dataclass
class Options:
    """What to embed, and on what."""

    train_images: int = 6000
    """Of MNIST, spread over set and classes."""
    feature_dim: int = 64
    """D, the inputs of the head."""
    triggers: int = 20
    """Few enough to be learned, for so short a training."""
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
        epochs=options.host_epochs,
        precision="float32",
    )
    study = fl.Study(config)
    host, train, test = study.model(), study.train, study.test
    known = study.outputs("host", "train")
    recipe = replace(
        training.recipe("mnist", "hours").with_epochs(options.epochs),
        batch_size=options.batch_size,
        trigger_batch_size=options.batch_size,
    )
    types = torch.float32, machine.training_type("auto", study.device)
    rows = []
    for seed, name, precision in itertools.product(options.seeds, METHODS, types):
        secret = fl.triggers.chain(train, seed, host=host, count=options.triggers)
        secret = secret.to(study.device)
        plan = training.Plan.of(
            fl.METHODS[name], recipe, seed=seed, precision=precision
        )
        start, given = training.start(host, plan), {"host": host, "known": known}
        model = training.train(start, plan, train, triggers=secret, **given).model
        pair = Pair(host, model, test, secret, run=study.outputs)  # the host's are kept
        row = {"method": name, "type": str(precision)[6:], "seed": seed}
        rows.append(row | {measure: value(pair, measure) for measure in MEASURES})
        print(rows[-1], flush=True)
    return pd.DataFrame(rows)


def summary(table: pd.DataFrame) -> str:
    """Mean and range over the seeds, of a method and measure a line.

    The last columns: the fast type's value by float32's of the same seed, and whether
    the fast mean lies in the range of float32's seeds.
    """
    lines = [
        "| method | measure | float32 | fast | fast / float32, by seed | within |",
        "|---|---|---|---|---|---|",
    ]
    for method, rows in table.groupby("method", sort=False):
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
    if machine.training_type("auto", machine.device()) == torch.float32:
        raise SystemExit("float32 is what fidlib chooses here: nothing to compare.")
    table = models(options)
    if options.csv:
        table.to_csv(options.csv, index=False, float_format="%.5g")
    print(f"\n{machine.name()}; {options}\n\n{summary(table)}")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
