"""A job is one model with its reports and outputs; what is missing is made at once."""

import contextlib
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from tqdm import tqdm

from fidlib.runs import keys, pool, store
from fidlib.study.lineage import Lineage, Name, several


class Maker(Protocol):
    """What makes models, such as a `Study`; it can be sent to another process."""

    @property
    def key(self) -> str:
        """A digest, the same for all that make the same models."""
        ...

    @property
    def host_key(self) -> str:
        """A digest, the same for all that make the same host."""
        ...

    def is_missing(self, lineage: Lineage, parts: Iterable[str]) -> bool:
        """Whether a model, a report or its outputs on some images are to be made."""
        ...

    def complete(self, lineage: Lineage, parts: Iterable[str]) -> None:
        """Make a model, its report and its outputs on these images."""
        ...

    def describe(self, of: Name, /) -> str:
        """One line on a model that is made."""
        ...


@dataclass(frozen=True)
class Job:
    """One model, to be made in any process."""

    maker: Maker
    lineage: Lineage
    parts: frozenset[str]
    """Images on which its outputs are wanted."""
    runs: Path
    """The runs root, shared by all processes."""

    def __call__(self) -> None:
        """Make the model and what is asked of it, in this process."""
        with store.stored_in(self.runs):
            self.maker.complete(self.lineage, self.parts)


Asked = tuple[Maker, Lineage, tuple[str, ...]]
"""A study, a model of it, and images on which its outputs will be read."""

_noted: list[Asked] | None = None


@contextlib.contextmanager
def noting() -> Iterator[list[Asked]]:
    """Note what is asked for, and make nothing."""
    global _noted
    before, _noted = _noted, []
    try:
        yield _noted
    finally:
        _noted = before


def make(
    wanted: Iterable[tuple[Maker, Iterable[Name]]],
    *,
    outputs: Iterable[str] = (),
    jobs: int | None = None,
    backend: pool.Backend = "loky",
    scheduler: str = "",
) -> None:
    """Make what is missing of several studies' models, in parallel, and list them.

    A job is one model with its reports and outputs. It starts when the model that it is
    made of is there, and goes on from what a killed one had reached.

    Args:
        wanted: Studies, each with the lineages that are asked of it; hosts come along.
        outputs: Images on which every model's outputs will be read; or one
            of `ON_REQUEST`, levels of measures that will be.
        jobs: As in `pool.run`.
        backend: As in `pool.run`.
        scheduler: As in `pool.run`.

    Raises:
        ValueError: If a lineage names nothing, or a model cannot be made.
        Diverged: If training one diverges; the others are made before.
    """
    if not isinstance(outputs, Iterable):
        raise ValueError(f"outputs is {outputs!r}; name images, such as test.")
    parts = (outputs,) if isinstance(outputs, str) else tuple(outputs)
    asked = [
        (maker, lineage, parts)
        for maker, names in wanted
        for lineage in [Lineage(), *several(names)]
    ]
    if _noted is not None:
        _noted.extend(asked)
        return
    pool.check(jobs, backend, scheduler)
    queue, errors = tasks([asked])[0], []
    with tqdm(total=len(queue), unit="model", file=sys.stderr, disable=None) as bar:

        def finished(task: pool.Task, result: object) -> None:
            bar.update()
            if isinstance(result, Exception):
                errors.append(result)

        pool.run(queue, finished, jobs=jobs, backend=backend, scheduler=scheduler)
    for error in errors:
        raise error
    for maker, lineage, _ in asked:
        print(maker.describe(lineage))


def _is_missing(maker: Maker, lineage: Lineage, parts: Iterable[str]) -> bool:
    try:
        return maker.is_missing(lineage, parts)
    except (ValueError, OSError):
        return True  # a damaged run, say: its own job will tell


def tasks(
    groups: Iterable[Iterable[Asked]],
) -> tuple[list[pool.Task], list[tuple[str, ...]]]:
    """A task for each model that is not there, after that of what it is made of.

    Args:
        groups: Models, as several notebooks ask for them; one that is asked for twice
            is made once.

    Returns:
        The tasks, and for each group the keys of those that it waits for.
    """
    jobs: dict[str, Job] = {}
    after: dict[str, tuple[str, ...]] = {}
    hosts: dict[str, str] = {}  # of several studies that share one, the first makes it

    def add(maker: Maker, lineage: Lineage, parts: Iterable[str]) -> tuple[str, ...]:
        key, wanted = keys.digest([maker.key, lineage.key]), frozenset(parts)
        if lineage.parent is not None:
            before = add(maker, lineage.parent, ())
        else:
            first = hosts.get(maker.host_key, key)
            before = () if first == key else (first,)
        if key in jobs:
            jobs[key] = replace(jobs[key], parts=jobs[key].parts | wanted)
        elif before or _is_missing(maker, lineage, wanted):
            jobs[key] = Job(maker, lineage, wanted, store.runs_root())
            after[key] = before
            if lineage.parent is None:
                hosts.setdefault(maker.host_key, key)
        return (key,) if key in jobs else ()

    waits = [tuple({key for one in group for key in add(*one)}) for group in groups]
    queue = [pool.Task(k, str(job.lineage), job, after[k]) for k, job in jobs.items()]
    return queue, waits
