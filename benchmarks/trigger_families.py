"""Whether every family of triggers can be learned, and at what cost: digits, D = 64.

What is not learned in the recipe's epochs is trained three times as long, from the same
host on the same triggers.

    python benchmarks/trigger_families.py --csv benchmarks/trigger_families.csv
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import tyro

import fidlib as fl
from fidlib import training
from fidlib.runs import machine

METHODS = ("FTAL", "FixLL+PFL")
LEARNED = 0.95
"""Trigger accuracy from which a family counts as learned."""
MEASURES = ("trigger_accuracy", "host_trigger_accuracy", "accuracy", "host_accuracy")
MEASURES += ("pfl", "spl")


@dataclass
class Options:
    """What to embed, on how many hosts."""

    seeds: tuple[int, ...] = (0, 1, 2)
    """Each decides a host and the triggers."""
    csv: Path | None = None
    """Write a row per family, seed, method and number of epochs there."""


def rows(seeds: tuple[int, ...]) -> Iterator[dict[str, Any]]:
    """A row per model, measured on the test images; of three times the epochs where
    one was not enough.
    """
    for seed, family in itertools.product(seeds, fl.TRIGGERS):
        config = fl.Config(
            feature_dim=64, triggers=family, seed=seed, precision="float32"
        )
        plain = fl.Study(config)
        for method in METHODS:
            epochs = training.recipe("digits").schedule(fl.METHODS[method]).epochs
            for times in (1, 3):
                longer = fl.Study(replace(config, embed_epochs=times * epochs))
                study = plain if times == 1 else longer
                report = study.fidelity(method, measures=MEASURES)
                row = {"family": family, "method": method, "seed": seed}
                row |= {"labels": fl.triggers.policy(family, {})}
                row |= {"triggers": len(study.triggers), "epochs": times * epochs}
                yield row | {name: report[name].value for name in MEASURES}
                if (report.trigger_accuracy or 0) >= LEARNED:
                    break


def summary(table: pd.DataFrame) -> str:
    """Of a family, method and number of epochs a line: the least and the most over the
    seeds.
    """

    def span(values: pd.Series) -> str:
        low, high = values.min(), values.max()
        return f"{low:.2f}" + f" to {high:.2f}" * (f"{low:.2f}" != f"{high:.2f}")

    lines = [
        "| family | labels | method | epochs | seeds | triggers answered | "
        "by the host | accuracy lost |",
        "|---|---|---|---|---|---|---|---|",
    ]
    names = ["family", "labels", "method", "epochs"]
    for values, part in table.groupby(names, sort=False):
        cells = [*map(str, values), str(len(part)), span(part.trigger_accuracy)]
        cells.append(span(part.host_trigger_accuracy))
        cells.append(span(part.host_accuracy - part.accuracy))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(options: Options) -> None:
    """Embed all families, and say how far each is learned."""
    made = []
    for row in rows(options.seeds):
        print(row, flush=True)
        made.append(row)
    table = pd.DataFrame(made)
    if options.csv:
        table.to_csv(options.csv, index=False, float_format="%.5g")
    print(f"\n{machine.name()}; {options}\n\n{summary(table)}")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
