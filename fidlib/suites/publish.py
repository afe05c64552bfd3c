"""What a suite publishes in `figures/`: files, pages, and tables read back."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from fidlib.runs import keys, store
from fidlib.suites.page import Entry, write_page
from fidlib.suites.read import Job, Result, Suite
from fidlib.suites.readme import write_readme


def publish(suite: Suite, results: Mapping[str, Result]) -> Path:
    """Copy finished pictures to `figures/<suite>/`; write its page and README.md.

    Jobs that were not run this time are shown as they were last published.
    """
    folder = store.project_root() / "figures" / suite.name
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for job in sorted(suite.jobs, key=lambda job: job.name):  # as they are read
        result = results.get(job.name)
        if result and not result.traceback:
            _replace(folder, job, result.folder / "pictures")
        record = folder / f"{job.name}-provenance.json"
        if result and result.traceback:
            entries.append(Entry(job, traceback=result.traceback))
        elif record.exists():
            files = sorted(p.name for p in folder.glob(f"{job.name}-*"))
            files.remove(record.name)
            entries.append(Entry(job, files, json.loads(record.read_text())))
    if any(result.status == "made" for result in results.values()):
        explorer(suite, folder)
    write_readme(folder, suite.name, suite.about, entries)
    return write_page(folder, suite.name, suite.about, entries)


def explorer(suite: Suite, folder: Path) -> None:
    """Write the explorer of a suite's study, of the models that are there, if any.

    What it shows is gathered anew only if the models, what was measured of them, the
    sweep or the code that gathers are others than those of the page that is there.
    """
    from fidlib.explorer import explore, gather, page
    from fidlib.measures import maps
    from fidlib.study.study import Study

    study, path = Study(suite.config()), folder / "explorer.html"
    if not (names := gather.trained(study)):
        return
    tables = _more_models(folder)
    shown = [study.fingerprint(name) for name in ("host", *names)]
    values = [study.fidelity(name).values() for name in names]
    files = [Path(maps.__file__), *sorted(page.FOLDER.parent.glob("*.py"))]
    code = [file.read_text("utf-8") for file in files]
    rows = [table.to_csv() for table in tables.values()]
    key = keys.digest([names, shown, study.test.content, values, rows, code])
    if not path.exists() or page.read(path)[0].get("key") != key:
        explore(study, names, tables=tables).page(path, planes=PLANES)
    about, blob = page.read(path)
    with store.written(path) as temporary:  # with the script of today
        temporary.write_text(page.page(about | {"key": key}, blob), encoding="utf-8")


PLANES = 2
"""In pixel space, kept for a page, which cannot ask the models."""


def _more_models(folder: Path) -> dict[str, pd.DataFrame]:
    """Models of other settings and hosts, of which the suite left tables, by title."""
    sweep, hosts = (
        folder / f"{name}.csv"
        for name in ("06_tradeoffs-models", "10_replicates-hosts")
    )
    tables = {"sweep of notebook 06": pd.read_csv(sweep)} if sweep.exists() else {}
    if hosts.exists():
        names, rows = ["method", "seed"], pd.read_csv(hosts)
        wide = rows.pivot(index=names, columns="measure", values="value")
        tables["every host of notebook 10"] = wide
    return tables


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
        suite: The suite that its notebooks are of.
        table: `fidelity`, `seeds` or `claims`.

    Returns:
        A line on how it was made, and the table of the suite's first notebook with one.
    """
    folder = store.shelf("figures") / suite.name
    for job in suite.jobs:
        path = folder / f"{job.name}-{table}.csv"
        record = folder / f"{job.name}-provenance.json"
        if path.exists() and record.exists():
            how = _how_made(job, json.loads(record.read_text()))
            return how, pd.read_csv(path).set_index(_INDEX[table])
    return None


_INDEX = {
    "fidelity": ["method"],
    "seeds": ["method", "seed"],
    "claims": ["claim", "measured", "borne_out"],
}
"""What names the rows of a published table."""


def _how_made(job: Job, record: dict[str, Any]) -> str:
    said = record["parameters"]
    names = ("dataset", "scale", "epochs", "seed", "feature_dim", "train_images")
    names += ("test_images", "split", "precision")
    settings = ", ".join(f"{n} {said[n]}" for n in names if n in said)
    date, machine, commit = (record[n] for n in ("made", "machine", "commit"))
    return f"{job.name}, made {date[:10]}: {settings}; {machine}; commit {commit}"
