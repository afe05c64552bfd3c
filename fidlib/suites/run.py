"""Runs notebooks in batch: first the models that they want are made, then papermill.

Both in parallel, on this machine or on a Dask cluster. Only suites write to `figures/`.
"""

import contextlib
import io
import json
import linecache
import logging
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from fidlib.runs import keys, machine, pool, store
from fidlib.study.jobs import Asked, noting, tasks
from fidlib.suites import publish
from fidlib.suites.output import sign
from fidlib.suites.read import Job, Result, Suite, check

LONGEST = 80
"""Characters of a folder in which a socket may have a name: a system allows 107."""


def run(
    suite: Suite,
    *,
    only: Sequence[str] = (),
    jobs: int | None = None,
    backend: pool.Backend = "loky",
    scheduler: str = "",
) -> list[Result]:
    """Make a suite's models, run its notebooks, publish; goes on after failures.

    Args:
        suite: As `read` returned it.
        only: Names of jobs or notebooks to run; all when empty.
        jobs: Models or notebooks at a time; like the next two, as in `pool.run`.
        backend: This machine or a cluster.
        scheduler: The cluster's.

    Returns:
        A result for each job that was run, in the suite's order.

    Raises:
        ValueError: If `only` names no job, or an option is not the backend's.
        OSError: If results cannot be written where they belong.
    """
    chosen = _chosen(suite, only)
    for job in suite.jobs:
        check(job)
    pool.check(jobs, backend, scheduler)
    root, kept = where = store.project_root(), store.runs_root()
    for folder in (root / "figures" / suite.name, kept):
        store.check_writable(folder)
    results: dict[str, Result] = {}
    asked: dict[str, list[Asked]] = {}
    for job in chosen:
        try:
            if store.is_made("notebook", job.key):
                results[job.name] = execute(job, *where)
            else:
                asked[job.name] = wanted(job)
        except Exception as error:
            results[job.name] = _failed(job, error)
    models, waits = tasks(asked.values())
    by_name = {job.name: job for job in chosen}
    notebooks = [
        pool.Task(name, name, partial(execute, by_name[name], *where), after)
        for name, after in zip(asked, waits, strict=True)
    ]
    todo = [*models, *notebooks]
    with tqdm(total=len(todo), desc=suite.name, unit="step", file=sys.stderr) as bar:

        def finished(task: pool.Task, result: Any) -> None:
            bar.set_postfix_str(task.title, refresh=False)
            bar.update()
            if job := by_name.get(task.key):
                lost = isinstance(result, Exception)
                results[job.name] = _failed(job, result) if lost else result

        pool.run(todo, finished, jobs=jobs, backend=backend, scheduler=scheduler)
    publish.publish(suite, results)
    return [results[job.name] for job in chosen]


def _chosen(suite: Suite, only: Sequence[str]) -> list[Job]:
    names = {n for job in suite.jobs for n in (job.name, job.notebook.stem)}
    if unknown := sorted({*only} - names):
        raise ValueError(
            f"suite {suite.name} has no notebook {', '.join(unknown)}; use one of "
            f"{', '.join(job.name for job in suite.jobs)}."
        )
    return [j for j in suite.jobs if not only or {j.name, j.notebook.stem} & set(only)]


def wanted(job: Job) -> list[Asked]:
    """The models that a notebook will ask for: what its cell tagged `models` makes.

    The code cells up to that one are executed here, and make nothing. A notebook
    without such a cell asks for none beforehand.
    """
    cells = [cell for cell in job.cells() if cell.cell_type == "code"]
    tags = [cell.metadata.get("tags", []) for cell in cells]
    last = next((n for n, labels in enumerate(tags) if "models" in labels), -1)
    names: dict[str, Any] = {"__name__": "__main__"}
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.redirect_stdout(io.StringIO()),
        noting() as asked,
    ):
        for cell, labels in zip(cells[: last + 1], tags, strict=False):
            # A name of its own, under which the text of what it defines is found.
            place = f"<{job.notebook.stem}, {keys.digest(cell.source)}>"
            lines = cell.source.splitlines(keepends=True)
            linecache.cache[place] = len(cell.source), None, lines, place
            exec(compile(cell.source, place, "exec"), names)
            if "parameters" in labels:
                names |= {**job.parameters, "output": folder}
    return asked


def execute(job: Job, root: Path, runs: Path) -> Result:
    """Run one notebook, unless its run is finished; never raises for its errors.

    Args:
        job: Which, with its parameters.
        root: The project root, the kernel's working folder.
        runs: The runs root, shared by all workers.
    """
    with store.stored_in(runs):
        return _execute(job, root)


def _failed(job: Job, error: Exception) -> Result:
    text = f"{type(error).__name__}: {error}"
    return Result(job.name, "FAILED", _failed_folder(job), traceback=text)


def _execute(job: Job, root: Path) -> Result:
    import papermill

    shutil.rmtree(_failed_folder(job), ignore_errors=True)  # of an earlier failure
    folders = []

    def build(folder: Path) -> None:
        folders.append(folder)
        try:
            _papermill(job, folder, root)
        except BaseException:
            shutil.copytree(folder, _failed_folder(job), dirs_exist_ok=True)
            raise

    try:
        folder = store.make("notebook", job.key, build)
    except Exception as error:
        known = isinstance(error, papermill.PapermillExecutionError)
        lines = error.traceback if known else [f"{type(error).__name__}: {error}"]
        text = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(lines))
        return Result(job.name, "FAILED", _failed_folder(job), traceback=text)
    seconds = json.loads((folder / "done.json").read_text("utf-8"))["seconds"]
    return Result(job.name, "made" if folders else "read back", folder, seconds)


def _papermill(job: Job, folder: Path, root: Path) -> None:
    import papermill
    from traitlets.config import Config

    from fidlib.suites.kernel import OwnPython

    logging.getLogger("papermill").setLevel(logging.ERROR)
    output, code = folder / "pictures", job.code  # as they are now
    sockets = tempfile.mkdtemp(prefix="fk-")
    # TCP ports are raced for by kernels that start together; sockets are their own, but
    # the system bounds the length of their names.
    ipc = {"transport": "ipc", "ip": f"{sockets}/k"}
    tcp = os.name == "nt" or len(sockets) > LONGEST
    try:
        with (folder / "log.txt").open("w", encoding="utf-8") as log:
            papermill.execute_notebook(
                str(job.notebook),
                str(folder / "notebook.ipynb"),
                {**job.parameters, "output": os.path.relpath(output, root)},
                kernel_name="python3",
                progress_bar=False,
                stdout_file=log,
                store_widget_state=False,
                resources={"metadata": {"path": str(root)}},
                config=Config({} if tcp else {"KernelManager": ipc}),
                kernel_manager_class=OwnPython,
            )
    finally:
        shutil.rmtree(sockets, ignore_errors=True)
    record = output / "provenance.json"
    if record.exists():
        content = json.loads(record.read_text("utf-8"))
        if content["library"] != machine.library():
            raise RuntimeError(
                "fidlib was changed since the suite began: start it again."
            )
        store.write_json(record, content | {"cells": code, "asked": job.parameters})
        for picture in output.glob("*.png"):
            sign(picture, record.read_text("utf-8"))


def _failed_folder(job: Job) -> Path:
    return store.runs_root() / "failed" / f"{job.name}-{keys.digest(job.parameters)}"
