"""Where the seconds of `make figures` went, notebook by notebook, stage by stage.

Read from the executed notebooks of the last run, and from the models that were made
before them; two ran side by side, so the sum is about twice what one waited.

    python benchmarks/figure_stages.py --suite digits
"""

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pandas as pd
import tyro

from fidlib.runs import store
from fidlib.suites.read import Job, read
from fidlib.suites.run import wanted


@dataclass
class Options:
    """What to read."""

    suite: str = "digits"
    """A suite that has been run: its notebooks are in the run store."""
    scale: str = ""
    """The scale it was run at, if not the suite's own."""


def stages(folder: Path) -> dict[str, float]:
    """Seconds of an executed notebook, by the heading its cells stand under."""
    total = json.loads((folder / "done.json").read_text())["seconds"]
    seconds: dict[str, float] = defaultdict(float)
    heading = "imports, data"
    for cell in nbformat.read(folder / "notebook.ipynb", 4).cells:
        if cell.cell_type == "markdown" and cell.source.startswith("## "):
            heading = cell.source.splitlines()[0].removeprefix("## ")
        elif cell.cell_type == "code":
            seconds[heading] += cell.metadata.papermill.duration or 0.0
    return {"kernel": total - sum(seconds.values()), **seconds, "all": total}


def model_seconds(jobs: Iterable[Job]) -> float:
    """Seconds of the models that these notebooks look at, their reports not counted."""
    asked = [entry for job in jobs for entry in wanted(job)]
    folders = {study.folder(lineage) for study, lineage, _ in asked}
    return sum(json.loads((f / "done.json").read_text())["seconds"] for f in folders)


def main(options: Options) -> None:
    """Seconds of every stage of every notebook, as a table, and of their models."""
    rows, jobs = {}, read(options.suite, options.scale).jobs
    for job in jobs:
        folder = store.place("notebook", job.key)
        if not (folder / "done.json").exists():
            raise SystemExit(
                f"{job.name} has not been run as it is now: fidlib figures --suite "
                f"{options.suite} first."
            )
        rows[job.name] = stages(folder)
    table = pd.DataFrame(rows).T
    table.loc["all"] = table.sum()
    print(f"| notebook | {' | '.join(table)} |\n{'|---' * (len(table.columns) + 1)}|")
    for name, row in table.iterrows():
        cells = ("" if pd.isna(x) else f"{x:.0f}" for x in row)
        print(f"| {name} | {' | '.join(cells)} |")
    print(f"\nmodels: {model_seconds(jobs):.0f} s")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
