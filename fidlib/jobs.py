"""A job is one model with its reports and outputs; what is missing is made at once."""

import contextlib
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from tqdm import tqdm

from fidlib import pool, runs
from fidlib.lineage import Lineage


class Maker(Protocol):
    """What makes models, such as a `Study`; it can be sent to another process."""

    @property
    def key(self) -> str:
        """Alike for those that make the same."""
        ...

    def is_missing(self, lineage: Lineage, parts: Iterable[str]) -> bool:
        """Whether a model, a report or its outputs on some images are to be made."""
        ...

    def complete(self, lineage: Lineage, parts: Iterable[str]) -> None:
        """Make them."""
        ...

    def describe(self, of: Lineage, /) -> str:
        """One line on a model."""
        ...


@dataclass(frozen=True)
class Job:
    """One model, to be made in any process."""

    maker: Maker
    lineage: Lineage
    parts: frozenset[str]
    """Images on which its outputs are wanted."""
    store: Path
    """The runs root, shared by all processes."""

    def __call__(self) -> str:
        """Make it; a line that describes it."""
        with runs.stored_in(self.store):
            self.maker.complete(self.lineage, self.parts)
            return self.maker.describe(self.lineage)


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


def is_noting() -> bool:
    """Whether what is asked for is only noted."""
    return _noted is not None


def make(
    asked: Iterable[Asked],
    *,
    jobs: int | None = None,
    backend: pool.Backend = "loky",
    scheduler: str = "",
) -> dict[str, Exception]:
    """Make what is missing of several models, in parallel.

    A job starts when the model that it is made of is there; what a killed one had
    reached is gone on from.

    Args:
        asked: The models.
        jobs: As in `pool.run`.
        backend: As in `pool.run`.
        scheduler: As in `pool.run`.

    Returns:
        What went wrong, by the model's title; all others are made.
    """
    asked = list(asked)
    if _noted is not None:
        _noted.extend(asked)
        return {}
    pool.check(jobs, backend, scheduler)
    found: dict[str, pool.Task] = {}
    for one in asked:
        _plan(found, *one)
    if not found:
        return {}
    tasks, errors = list(found.values()), {}
    with tqdm(total=len(tasks), unit="model", file=sys.stderr, disable=None) as bar:

        def finished(task: pool.Task, result: object) -> None:
            bar.update()
            if isinstance(result, Exception):
                errors[task.title] = result
            else:
                bar.write(f"made {result}", file=sys.stdout)

        pool.run(tasks, finished, jobs=jobs, backend=backend, scheduler=scheduler)
    return errors


def _plan(
    tasks: dict[str, pool.Task], maker: Maker, lineage: Lineage, parts: tuple[str, ...]
) -> tuple[str, ...]:
    """Add a model's task, after its parent's; the key of the task, if there is one."""
    parent = lineage.parent
    after = () if parent is None else _plan(tasks, maker, parent, ())
    key = runs.digest([maker.key, lineage.key])
    wanted = frozenset(parts)
    if key in tasks:
        known = tasks[key]
        assert isinstance(known.call, Job)
        job = replace(known.call, parts=known.call.parts | wanted)
        tasks[key] = replace(known, call=job)
    elif after or maker.is_missing(lineage, parts):
        job = Job(maker, lineage, wanted, runs.runs_root())
        tasks[key] = pool.Task(key, str(lineage), job, after)
    return (key,) if key in tasks else ()
