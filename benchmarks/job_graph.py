"""How long a suite takes on many cores: its job graph with the seconds of each job.

Read from a run of it: a model's seconds with those of its reports and outputs, a
notebook's. A job starts when what it waits for is done, in the suite's order.

    fidlib figures --suite digits --jobs 2
    python benchmarks/job_graph.py --suite digits
"""

import json
from dataclasses import dataclass

import tyro

from fidlib.runs import store
from fidlib.study.lineage import Lineage
from fidlib.study.study import Study, jobs, reports
from fidlib.suites.read import Suite, read
from fidlib.suites.run import wanted


@dataclass
class Options:
    """What to simulate."""

    suite: str = "digits"
    """A suite that has been run as it is now."""
    scale: str = ""
    """The scale it was run at, if not the suite's own."""
    cores: tuple[int, ...] = (1, 2, 4, 16)
    """Jobs at a time."""


@dataclass(frozen=True)
class Timed:
    """A job that was done."""

    title: str
    seconds: float
    after: tuple[str, ...] = ()


def graph(suite: Suite) -> dict[str, Timed]:
    """Every model and notebook of a suite, by a key of its own.

    Raises:
        ValueError: If it was not run as it is now.
    """
    nodes: dict[str, Timed] = {}
    for job in suite.jobs:
        needs = tuple({_model(nodes, *asked[:2]) for asked in wanted(job)})
        folder = store.place("notebook", job.key)
        if not (folder / "done.json").exists():
            raise ValueError(
                f"{job.name} was not run as it is now: fidlib figures --suite "
                f"{suite.name} first."
            )
        nodes[job.name] = Timed(job.name, _seconds(folder), needs)
    return nodes


def _model(nodes: dict[str, Timed], study: jobs.Maker, lineage: Lineage) -> str:
    """Add a model, with its reports, and what it is made of; its key."""
    assert isinstance(study, Study)
    parent, folder = lineage.parent, study.folder(lineage)
    after = () if parent is None else (_model(nodes, study, parent),)
    if str(folder) not in nodes:
        keys = [study._pair(lineage, "host", part)[0] for part in ("test", "train")]
        kinds = (store.runs_root() / reports._kind(key) for key in keys)
        folders = [folder, *(run for kind in kinds for run in kind.glob("[!.]*"))]
        nodes[str(folder)] = Timed(str(lineage), sum(map(_seconds, folders)), after)
    return str(folder)


def _seconds(folder) -> float:
    return json.loads((folder / "done.json").read_text())["seconds"]


def longest(nodes: dict[str, Timed], key: str) -> tuple[float, list[str]]:
    """Seconds of the longest path that ends with a job, and its jobs."""
    before = max((longest(nodes, k) for k in nodes[key].after), default=(0.0, []))
    return before[0] + nodes[key].seconds, [*before[1], nodes[key].title]


def simulated(nodes: dict[str, Timed], cores: int) -> float:
    """Seconds until all is done, with so many jobs at a time."""
    left, going, now = dict(nodes), {}, 0.0
    done: set[str] = set()
    while left or going:
        for key in [k for k, job in left.items() if done >= {*job.after}]:
            if len(going) < cores:
                going[key] = now + left.pop(key).seconds
        key = min(going, key=going.__getitem__)
        now = going.pop(key)
        done.add(key)
    return now


def main(options: Options) -> None:
    """Print the sum, the longest path and the simulated seconds."""
    nodes = graph(read(options.suite, options.scale))
    models = sum("/" in key for key in nodes)
    print(f"{models} models and {len(nodes) - models} notebooks of {options.suite}")
    print(f"sum {sum(job.seconds for job in nodes.values()):.0f} s")
    seconds, path = max(longest(nodes, key) for key in nodes)
    parts = ", ".join(path)
    print(f"longest path {seconds:.0f} s: {parts}")
    for cores in options.cores:
        print(f"{cores} jobs at a time: {simulated(nodes, cores):.0f} s")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
