"""Runs notebooks in batch: first the models that they want are made, then papermill.

Both in parallel, on this machine or on a Dask cluster. A suite is
`notebooks/suites/<name>.yaml`: what it is about, parameters common to all its
notebooks, and the notebooks with parameters of their own. Only suites write to
`figures/`.
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
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any, Literal

import nbformat
import pandas as pd
import yaml
from tqdm import tqdm

from fidlib import data, pool, report, runs, training
from fidlib.jobs import Asked, noting, tasks
from fidlib.lineage import Lineage


@dataclass(frozen=True)
class Job:
    """One notebook of a suite with its parameters."""

    name: str
    """Unique in the suite; the start of its files' names."""
    notebook: Path
    """Where it is."""
    parameters: dict[str, Any]
    """What the suite sets, by name; the rest is the notebook's own."""

    @cached_property
    def key(self) -> dict[str, object]:
        """What decides its pictures: cells, parameters, data and the library's code."""
        cells = nbformat.read(self.notebook, 4).cells
        return {
            "data": _data_digest(str(self.parameters.get("dataset", "digits"))),
            "notebook": self.notebook.stem,
            "cells": runs.digest([[c.cell_type, c.source] for c in cells]),
            "parameters": self.parameters,
            "library": runs.LIBRARY,
        }

    def question(self) -> str:
        """The notebook's first heading."""
        first = nbformat.read(self.notebook, 4).cells[0].source
        return first.splitlines()[0].lstrip("# ")


@dataclass(frozen=True)
class Suite:
    """A list of notebooks with parameters, run as one batch."""

    name: str
    about: str
    jobs: tuple[Job, ...]

    def setting(self, name: str, default: Any) -> Any:
        """A parameter as the first notebook that is given it gets it, or `default`."""
        told = (job.parameters for job in self.jobs)
        return next((known[name] for known in told if name in known), default)


@dataclass(frozen=True)
class Result:
    """How one job ended."""

    name: str
    """Of the job."""
    status: Literal["made", "read back", "FAILED"]
    """Whether it was run, found finished, or failed."""
    folder: Path
    """Its executed copy `notebook.ipynb`, and its pictures if it did not fail."""
    seconds: float = 0.0
    """Of the run that made it."""
    traceback: str = ""
    """Of a failed notebook, without colour codes."""


def read(name: str, scale: str = "") -> Suite:
    """The suite of that name, every parameter checked against its notebook.

    Args:
        name: A file of `notebooks/suites`.
        scale: In place of the suite's own, but for notebooks with one of theirs.

    Raises:
        ValueError: If there is no such suite, scale or notebook, a parameter is not in
            the notebook's parameters cell or of another type, or two jobs share a name.
    """
    folder = runs.project_root() / "notebooks"
    known = sorted(p.stem for p in (folder / "suites").glob("*.yaml"))
    if not known:
        raise ValueError(
            f"there are no suites in {folder / 'suites'}: run fidlib in a clone of "
            "its repository, which holds the notebooks."
        )
    if name not in known:
        raise ValueError(f"unknown suite {name!r}; use one of {', '.join(known)}.")
    path = folder / "suites" / f"{name}.yaml"
    try:
        content = yaml.safe_load(path.read_text())
        about, common = content["about"], content.get("parameters") or {}
        common |= {"scale": scale} if scale else {}
        listed = [{**item} for item in content["notebooks"]]
        jobs = tuple(_job(folder, item, common) for item in listed)
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path.name} cannot be read ({error}); it needs about, parameters and a "
            "list of notebooks, as in digits.yaml."
        ) from error
    names = [job.name for job in jobs]
    if not jobs:
        raise ValueError(f"{path.name} lists no notebook: name one under notebooks.")
    if len(set(names)) < len(names):
        raise ValueError(
            f"{path.name} has two jobs of one name ({', '.join(names)}): give the "
            "second a name: of its own."
        )
    return Suite(name, about, jobs)


def _job(folder: Path, item: dict[str, object], common: dict[str, object]) -> Job:
    stem = str(item.pop("notebook"))
    name = str(item.pop("name", stem))
    if not re.fullmatch(r"\w+", name):
        raise ValueError(
            f"a job is called {name!r}: use letters, digits and _, for its files are "
            "named after it."
        )
    path = folder / f"{stem}.ipynb"
    if not path.exists():
        here = ", ".join(sorted(p.stem for p in folder.glob("*.ipynb")))
        raise ValueError(f"there is no notebook {stem!r}; use one of {here}.")
    job = Job(name, path, common | item)
    check(job)
    return job


def check(job: Job) -> None:
    """Raise unless every parameter is in the notebook's parameters cell, typed alike.

    papermill itself only warns of an unknown name, and goes on with the default. An
    unknown scale or method would be noticed when all before it is trained.
    """
    import papermill

    known = papermill.inspect_notebook(str(job.notebook))
    for name, value in job.parameters.items():
        if name not in known or name == "output":
            own = ", ".join(n for n in known if n != "output")
            raise ValueError(
                f"{job.name}: unknown parameter {name!r}; {job.notebook.name} has "
                f"{own}."
            )
        expected = known[name]["inferred_type_name"]
        if type(value).__name__ != expected and (type(value), expected) != (
            int,
            "float",
        ):
            raise ValueError(
                f"{job.name}: parameter {name} is {value!r}; {job.notebook.name} wants "
                f"{expected}, such as {known[name]['default']}."
            )
    told = job.parameters
    training.recipe(
        str(told.get("dataset", "digits")), str(told.get("scale", "default"))
    )
    for name in (*told.get("methods", ()), *told.get("repeated", ())):
        Lineage.read(name)
    for seed in told.get("other_seeds", ()):
        if type(seed) is not int:
            raise ValueError(
                f"{job.name}: other_seeds has {seed!r}; use whole numbers."
            )


def run(
    suite: Suite,
    *,
    only: Sequence[str] = (),
    jobs: int | None = None,
    backend: pool.Backend = "loky",
    scheduler: str = "",
) -> list[Result]:
    """Make a suite's models, run its notebooks, publish pictures and the page.

    A notebook starts when its models are there. Goes on after failures.

    Args:
        suite: As `read` returned it.
        only: Names of jobs or notebooks to run; all when empty.
        jobs: Models or notebooks at a time, as in `pool.run`.
        backend: As in `pool.run`.
        scheduler: As in `pool.run`.

    Returns:
        A result for each job that was run, in the suite's order.

    Raises:
        ValueError: If `only` names no job, the backend lacks its scheduler, or an
            option is not the backend's.
    """
    chosen = [
        j for j in suite.jobs if not only or {j.name, j.notebook.stem} & set(only)
    ]
    found = {n for j in chosen for n in (j.name, j.notebook.stem)}
    if set(only) - found:
        raise ValueError(
            f"suite {suite.name} has no notebook "
            f"{', '.join(sorted(set(only) - found))}; use one of "
            f"{', '.join(j.name for j in suite.jobs)}."
        )
    pool.check(jobs, backend, scheduler)
    results: dict[str, Result] = {}
    asked: dict[str, list[Asked]] = {}
    for job in chosen:
        try:
            made = runs.is_made("notebook", job.key)
            asked[job.name] = [] if made else wanted(job)
        except Exception as error:
            results[job.name] = _failed(job, error)
    models, waits = tasks(asked.values())
    left = {job.name: job for job in chosen if job.name in asked}
    root, store = runs.project_root(), runs.runs_root()
    notebooks = [
        pool.Task(name, name, partial(execute, left[name], root, store), after)
        for name, after in zip(asked, waits, strict=True)
    ]
    with _bar(suite.name, [*left.values()], len(models)) as finished:

        def ended(task: pool.Task, result: Any) -> None:
            if job := left.get(task.key):
                lost = isinstance(result, Exception)
                results[job.name] = _failed(job, result) if lost else result
            finished(task.key)

        pool.run(
            [*models, *notebooks],
            ended,
            jobs=jobs,
            backend=backend,
            scheduler=scheduler,
        )
    publish(suite, results)
    return [results[job.name] for job in chosen]


def wanted(job: Job) -> list[Asked]:
    """The models that a notebook will ask for: what its cell tagged `models` makes.

    The code cells up to that one are executed here, and make nothing. A notebook
    without such a cell asks for none beforehand.
    """
    cells = [c for c in nbformat.read(job.notebook, 4).cells if c.cell_type == "code"]
    tags = [cell.metadata.get("tags", []) for cell in cells]
    last = next((n for n, found in enumerate(tags) if "models" in found), -1)
    names: dict[str, Any] = {"__name__": "__main__"}
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.redirect_stdout(io.StringIO()),
        noting() as asked,
    ):
        for cell, found in zip(cells[: last + 1], tags, strict=False):
            # A name of its own, under which the text of what it defines is found.
            place = f"<{job.notebook.stem}, {runs.digest(cell.source)}>"
            lines = cell.source.splitlines(keepends=True)
            linecache.cache[place] = len(cell.source), None, lines, place
            exec(compile(cell.source, place, "exec"), names)
            if "parameters" in found:
                names |= {**job.parameters, "output": folder}
    return asked


def execute(job: Job, root: Path, store: Path) -> Result:
    """Run one notebook, unless its run is finished; never raises for its errors.

    Args:
        job: Which, with its parameters.
        root: The project root, the kernel's working folder.
        store: The runs root, shared by all workers.
    """
    with runs.stored_in(store):
        return _execute(job, root)


def _failed(job: Job, error: Exception) -> Result:
    text = f"{type(error).__name__}: {error}"
    return Result(job.name, "FAILED", _failed_folder(job), traceback=text)


def _execute(job: Job, root: Path) -> Result:
    import papermill

    shutil.rmtree(_failed_folder(job), ignore_errors=True)  # of an earlier failure
    made = []

    def build(folder: Path) -> None:
        made.append(folder)
        try:
            _papermill(job, folder, root)
        except BaseException:
            shutil.copytree(folder, _failed_folder(job), dirs_exist_ok=True)
            raise

    try:
        folder = runs.make("notebook", job.key, build)
    except Exception as error:
        known = isinstance(error, papermill.PapermillExecutionError)
        lines = error.traceback if known else [f"{type(error).__name__}: {error}"]
        text = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(lines))
        return Result(job.name, "FAILED", _failed_folder(job), traceback=text)
    seconds = json.loads((folder / "done.json").read_text())["seconds"]
    return Result(job.name, "made" if made else "read back", folder, seconds)


def _papermill(job: Job, folder: Path, root: Path) -> None:
    import papermill
    from traitlets.config import Config

    logging.getLogger("papermill").setLevel(logging.ERROR)
    output = folder / "pictures"
    sockets = tempfile.mkdtemp(prefix="fk-")
    # TCP ports are raced for by kernels that start together; sockets are their own.
    ipc = {"transport": "ipc", "ip": f"{sockets}/k"}
    try:
        with (folder / "log.txt").open("w") as log:
            papermill.execute_notebook(
                str(job.notebook),
                str(folder / "notebook.ipynb"),
                {**job.parameters, "output": os.path.relpath(output, root)},
                kernel_name="python3",
                progress_bar=False,
                stdout_file=log,
                store_widget_state=False,
                resources={"metadata": {"path": str(root)}},
                config=Config({} if os.name == "nt" else {"KernelManager": ipc}),
            )
    finally:
        shutil.rmtree(sockets, ignore_errors=True)
    record = output / "provenance.json"
    if record.exists() and json.loads(record.read_text())["library"] != runs.LIBRARY:
        raise RuntimeError("fidlib was changed since the suite began: start it again.")


def _failed_folder(job: Job) -> Path:
    return runs.runs_root() / "failed" / f"{job.name}-{runs.digest(job.parameters)}"


def publish(suite: Suite, results: dict[str, Result]) -> Path:
    """Copy finished pictures to `figures/<suite>/` and write its page.

    Jobs that were not run this time are shown as they were last published.
    """
    folder = runs.project_root() / "figures" / suite.name
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for job in sorted(suite.jobs, key=lambda job: job.name):  # as they are read
        result = results.get(job.name)
        traceback = result.traceback if result else ""
        if result and not traceback:
            _replace(folder, job, result.folder / "pictures")
        files = sorted(p.name for p in folder.glob(f"{job.name}-*"))
        record = f"{job.name}-provenance.json"
        made, recorded = record in files and not traceback, {}
        if made:
            try:
                recorded = _recorded(folder / record)
            except ValueError as error:
                made, traceback = False, str(error)
        if made or traceback:
            entry = report.Entry(
                name=job.name,
                question=job.question(),
                parameters=_as_made(job, recorded),
                files=[f for f in files if f != record] if made else [],
                provenance=recorded,
                traceback=traceback,
            )
            entries.append(entry)
    return report.write_page(folder, suite.name, suite.about, entries)


def _replace(folder: Path, job: Job, pictures: Path) -> None:
    """Put a job's files in place of its earlier ones; the record, their seal, last."""
    seal = "provenance.json"
    (folder / f"{job.name}-{seal}").unlink(missing_ok=True)
    for old in folder.glob(f"{job.name}-*"):
        old.unlink()
    for file in sorted(pictures.glob("*"), key=lambda file: file.name == seal):
        shutil.copyfile(file, folder / f"{job.name}-{file.name}")


def published(suite: Suite, table: str) -> tuple[str, pd.DataFrame] | None:
    """A table that a notebook of the suite left in `figures/`; None if none did.

    Args:
        suite: Whose.
        table: `fidelity`, `seeds` or `claims`.

    Returns:
        A line on how it was made, and the table of the suite's first notebook with one.

    Raises:
        ValueError: If that file, or its record, is damaged.
    """
    folder = runs.project_root() / "figures" / suite.name
    for job in suite.jobs:
        path, record = (
            folder / f"{job.name}-{end}" for end in (f"{table}.csv", "provenance.json")
        )
        if path.exists() and record.exists():
            how = _how_made(job, _recorded(record))
            try:
                return how, pd.read_csv(path).set_index(_INDEX[table])
            except (ValueError, KeyError) as error:
                raise ValueError(_damaged(path, error)) from error
    return None


_INDEX = {
    "fidelity": ["method"],
    "seeds": ["method", "seed"],
    "claims": ["claim", "measured", "borne_out"],
}
"""What names the rows of a published table."""


def _recorded(path: Path) -> dict[str, Any]:
    """What a notebook recorded of itself, by `report.Output.provenance`."""
    parts = {"parameters": dict, "versions": dict, "seconds": float | int}
    parts |= {"made": str, "machine": str, "commit": str}
    try:
        record = json.loads(path.read_text())
        if unlike := [
            n for n, kind in parts.items() if not isinstance(record[n], kind)
        ]:
            raise ValueError(f"{', '.join(unlike)} of another type")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(_damaged(path, error)) from error
    return record


def _damaged(path: Path, error: Exception) -> str:
    return f"{path} is damaged ({error}): run its notebook again by fidlib figures."


def _how_made(job: Job, record: dict[str, Any]) -> str:
    said = record["parameters"]
    names = ("dataset", "scale", "epochs", "seed", "feature_dim", "train_images")
    names += ("test_images", "split", "precision")
    settings = ", ".join(f"{n} {said[n]}" for n in names if n in said)
    made, machine, commit = (record[n] for n in ("made", "machine", "commit"))
    return f"{job.name}, made {made[:10]}: {settings}; {machine}; commit {commit}"


def _as_made(job: Job, recorded: dict[str, Any]) -> dict[str, Any]:
    """A job's parameters, as they were when what is shown of it was made."""
    then = recorded.get("parameters", {})
    return {name: then[name] for name in job.parameters if name in then}


@contextlib.contextmanager
def _bar(title: str, jobs: Sequence[Job], models: int) -> Iterator:
    """One progress bar over models and the code cells of all jobs, and what is done."""
    cells = {job.name: _code_cells(job.notebook) for job in jobs}
    done: set[str] = set()
    stop = threading.Event()
    layout = (
        "{desc}: {percentage:3.0f}%|{bar:24}| {n}/{total} steps [{elapsed}]{postfix}"
    )
    bar = tqdm(
        total=models + sum(cells.values()),
        desc=title,
        bar_format=layout,
        file=sys.stderr,
    )

    def look() -> None:
        count, doing = sum(cells.get(key, 1) for key in tuple(done)), ""
        for job in jobs:
            if job.name not in done:
                seen, line = _seen(job)
                count += min(seen, cells[job.name])
                if seen and not doing:
                    doing = f"{job.name} {line}"
        bar.n = max(bar.n, count)
        bar.set_postfix_str(doing[:60])

    def watch() -> None:
        while not stop.wait(1.0):
            with contextlib.suppress(OSError, ValueError):
                look()

    def finished(key: str) -> None:
        done.add(key)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield finished
    finally:
        stop.set()
        watcher.join()
        with contextlib.suppress(OSError, ValueError):
            look()
        bar.close()


def _seen(job: Job) -> tuple[int, str]:
    """Cells executed so far and the last line printed, of a run in progress."""
    folder = runs.unfinished("notebook", job.key)
    notebook = folder / "notebook.ipynb"
    if not notebook.exists():
        return 0, ""
    lines = (folder / "log.txt").read_text().splitlines()
    text = re.sub(r"\s+", " ", lines[-1] if lines else "")
    cells = json.loads(notebook.read_text())["cells"]
    code = [c["metadata"].get("papermill") for c in cells if c["cell_type"] == "code"]
    return sum((c or {}).get("status") == "completed" for c in code), text


def _code_cells(notebook: Path) -> int:
    cells = nbformat.read(notebook, 4).cells
    return 1 + sum(cell.cell_type == "code" for cell in cells)  # papermill adds one


@cache
def _data_digest(dataset: str) -> str:
    images = data.load(dataset)  # by number, in pictures, and with their names
    order = [images.train.fingerprint, images.test.fingerprint]
    return runs.digest([images.manifest(), order, images.classes])
