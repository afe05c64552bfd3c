"""Where results live: configuration hash, atomic folders, locks, manifests, seeds.

A run is a folder `<root>/<kind>/<hash>/`. It is made under a temporary name, sealed
with `done.json` and renamed, so a killed run leaves nothing that looks finished; two
processes that want the same run share one through a file lock. Models that come with
the repository, in `RELEASED`, are runs like any other, and are read from there.
"""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock

from fidlib.runs import machine
from fidlib.runs.keys import digest, plain

SCHEMA = 7
"""Raised when the meaning of stored results changes; older ones are then not read."""

RELEASED = Path(__file__).resolve().parents[2] / "figures" / "models"
"""Models that come with the repository, from wherever the package is used."""


def project_root() -> Path:
    """The folder that holds `notebooks/`: here, or the nearest one above.

    JupyterLab starts kernels in `notebooks/`, papermill where it is called; both find
    the same root. Elsewhere it is the current folder.
    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "notebooks" / "suites").is_dir():
            return folder
    return here


def shelf(name: str) -> Path:
    """`notebooks` or `figures` of the project, else those that fidlib came with."""
    for place in (project_root(), machine.PACKAGE, machine.PACKAGE.parent):
        if (place / "notebooks" / "suites").is_dir():
            return place / name
    return project_root() / name


def runs_root() -> Path:
    """The folder of all runs: `$FIDLIB_RUNS`, else `runs/` in the project root."""
    named = Path(os.environ.get("FIDLIB_RUNS") or "runs").expanduser()
    return project_root() / named


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of `path`; released by the system when the process dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")):
        yield


@contextlib.contextmanager
def written(path: Path) -> Iterator[Path]:
    """A temporary path that becomes `path` when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(folder: Path) -> None:
    """Raise OSError unless files can be written in a folder, there or to be made."""
    try:
        there = next(path for path in (folder, *folder.parents) if path.exists())
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise OSError(
            f"results cannot be written to {folder} ({error.strerror or error}): work "
            "in a copy that is yours to change, or name another run store in "
            "FIDLIB_RUNS."
        ) from error


def write_json(path: Path, value: object) -> None:
    """Write readable JSON, whole or not at all."""
    with written(path) as temporary:
        text = json.dumps(value, indent=1, sort_keys=True, default=plain)
        temporary.write_text(text + "\n", "utf-8")


def make(kind: str, key: dict, build: Callable[[Path], float | None]) -> Path:
    """The finished run of `key`, built first when there is none.

    Args:
        kind: The sort of result, a folder name: `host`, `marked`, `notebook`...
        key: All that decides the result, as JSON values.
        build: Fills the folder it is given; called at most once over all processes
            that ask for this run at the same time. It may return how many seconds the
            result had taken before, in a process that was stopped.

    Returns:
        The folder `<runs root>/<kind>/<hash>/`, complete.

    Raises:
        ValueError: If the finished run was changed since it was sealed.
        OSError: If there is none, and none can be written.
    """
    folder = place(kind, key)
    if not finished(folder):
        check_writable(folder)
        with locked(folder):
            if not finished(folder):
                _build(folder, key, build)
    return folder


def state(kind: str, key: dict, circumstances: dict) -> Path:
    """A file in which a run that is being made may keep how far it has come.

    Args:
        kind: As in `make`, which deletes the file when the run is sealed.
        key: As in `make`.
        circumstances: What must be the same for the run to go on from there.
    """
    folder, text = (
        place(kind, key),
        digest([circumstances, machine.name(), machine.library()]),
    )
    return folder.with_name(f".{folder.name}.{text}.state")


def unfinished(kind: str, key: dict) -> Path:
    """Where the run of `key` is being made, if it is."""
    folder = place(kind, key)
    folders = sorted(folder.parent.glob(f".{folder.name}.making-*"))
    return folders[-1] if folders else folder.with_name(f".{folder.name}.making-")


def place(kind: str, key: dict) -> Path:
    """Where the run of `key` lies once it is finished, or lies already if released.

    What is released goes before a run of one's own: its marked models are of its host.
    """
    name = digest({"schema": SCHEMA, **key})
    released = RELEASED / kind / name
    sealed = (released / "done.json").exists()
    return released if sealed else runs_root() / kind / name


def is_made(kind: str, key: dict) -> bool:
    """Whether there is a finished run of `key`.

    Raises:
        ValueError: If it was changed since it was sealed.
    """
    return finished(place(kind, key))


@contextlib.contextmanager
def stored_in(store: Path) -> Iterator[None]:
    """Tells this process and its kernels where runs are, for a time."""
    before = os.environ.get("FIDLIB_RUNS")
    os.environ["FIDLIB_RUNS"] = str(store)
    try:
        yield
    finally:
        del os.environ["FIDLIB_RUNS"]
        if before is not None:
            os.environ["FIDLIB_RUNS"] = before


def _build(folder: Path, key: dict, build: Callable[[Path], float | None]) -> None:
    for leftover in folder.parent.glob(f".{folder.name}.making-*"):
        shutil.rmtree(leftover)  # of a killed process: we hold the lock
    for leftover in folder.parent.glob(f"..{folder.name}.*"):
        leftover.unlink()  # half-written states
    # A name of our own: a killed runner's kernel may still be writing to the old one.
    temporary = folder.with_name(f".{folder.name}.making-{os.urandom(4).hex()}")
    temporary.mkdir(parents=True)
    machine.own_commit()  # as it is now: the checkout may change meanwhile
    started = time.perf_counter()
    try:
        started -= build(temporary) or 0.0
        write_json(temporary / "config.json", {"schema": SCHEMA, **key})
        files = sorted(p for p in temporary.rglob("*") if p.is_file())
        sealed = {
            "seconds": round(time.perf_counter() - started, 2),
            "files": {str(p.relative_to(temporary)): checksum(p) for p in files},
            **machine.provenance(),
        }
        write_json(temporary / "done.json", sealed)
        if folder.exists():  # without done.json: never one of ours
            shutil.rmtree(folder)
        os.replace(temporary, folder)
        for kept in folder.parent.glob(f".{folder.name}.*.state"):
            kept.unlink()
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def finished(folder: Path) -> bool:
    """Whether the folder is a sealed run.

    Raises:
        ValueError: If it was changed since it was sealed.
    """
    done = folder / "done.json"
    if not done.exists():
        return False
    try:
        files = json.loads(done.read_text("utf-8"))["files"]
        damaged = [n for n, c in files.items() if checksum(folder / n) != c]
        damaged += [] if files else ["done.json names no files"]
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        damaged = [str(error)]
    if damaged:
        raise ValueError(
            f"the run {folder} is damaged ({', '.join(damaged)}): delete that folder, "
            "and it is made again."
        )
    return True


def checksum(path: Path) -> str:
    """Sixteen hex digits that change with a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
