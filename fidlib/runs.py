"""Where results live: configuration hash, atomic folders, locks, manifests, seeds.

A run is a folder `<root>/<kind>/<hash>/`. It is made under a temporary name, sealed
with `done.json` and renamed, so a killed run leaves nothing that looks finished; two
processes that want the same run share one through a file lock.
"""

import contextlib
import dataclasses
import dis
import hashlib
import inspect
import itertools
import json
import os
import platform
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Literal

import numpy as np
import torch
from filelock import FileLock

SCHEMA = 4
"""Raised when the meaning of stored results changes; older ones are then not read."""

Precision = Literal["auto", "float32", "bfloat16"]


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


def runs_root() -> Path:
    """The folder of all runs: `$FIDLIB_RUNS`, else `runs/` in the project root."""
    named = Path(os.environ.get("FIDLIB_RUNS") or "runs").expanduser()
    return project_root() / named


def canonical(value: object) -> str:
    """JSON text that is the same for equal values: sorted keys, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=_plain)


def digest(value: object) -> str:
    """Sixteen hex digits of the SHA-256 of `canonical(value)`."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:16]


def code(thing: Callable) -> list[str]:
    """What tells a user's function or class from others, as text.

    Its source, defaults and closure, and the functions, classes and values that it
    uses: those of its own module with their text, others by name.

    Raises:
        ValueError: If its source cannot be read, or it uses an object that may hold
            state its text does not show.
    """
    if not inspect.isfunction(thing) and not inspect.isclass(thing):
        raise ValueError(
            f"{thing!r} may hold state that its text does not show: pass a function."
        )
    return _code(thing, set())


def _code(thing: Callable, seen: set[int]) -> list[str]:
    if id(thing) in seen:
        return []
    seen.add(id(thing))
    try:
        found = [inspect.getsource(thing)]
    except (OSError, TypeError) as error:
        raise ValueError(
            f"{thing!r} has no text to tell its runs apart by: define it with def or "
            "class, in a module or a notebook cell."
        ) from error
    for base in getattr(thing, "__bases__", ()):
        found += _value(base, thing.__module__, seen)
    for function in _functions(thing):
        used = {"defaults": (function.__defaults__, function.__kwdefaults__)}
        used |= _used(function)
        for name, value in sorted(used.items()):
            found += [name, *_value(value, thing.__module__, seen)]
    return found


def _functions(thing: Callable) -> list[FunctionType]:
    """The function itself, or a class's methods and properties."""
    if not inspect.isclass(thing):
        return [thing] if isinstance(thing, FunctionType) else []
    found = []
    for member in vars(thing).values():
        parts = [getattr(member, name, None) for name in ("fget", "fset", "__func__")]
        found += [f for f in (member, *parts) if isinstance(f, FunctionType)]
    return found


def _used(function: FunctionType) -> dict[str, object]:
    """Globals and closure of a function and of those written inside it, by name."""
    names, codes = set(), [function.__code__]
    for text in codes:  # grows
        codes += [c for c in text.co_consts if isinstance(c, CodeType)]
        loads = (i for i in dis.get_instructions(text) if i.opname == "LOAD_GLOBAL")
        names |= {i.argval for i in loads}
    within = inspect.getclosurevars(function).nonlocals
    known = function.__globals__
    return {name: known[name] for name in names if name in known} | dict(within)


def _value(value: object, module: str, seen: set[int]) -> list[str]:
    """What tells one value from another."""
    if isinstance(value, ModuleType):
        return [value.__name__]
    if isinstance(value, torch.nn.Module):
        value = [str(value), value.state_dict()]
    if isinstance(value, torch.Tensor):
        flat = value.detach().cpu().flatten().view(torch.uint8)
        return [digest([str(value.dtype), value.shape, flat.numpy().tobytes().hex()])]
    if isinstance(value, np.ndarray):
        return [digest([value.dtype.str, value.shape, value.tobytes().hex()])]
    if isinstance(value, dict):
        value = [item for pair in value.items() for item in pair]
    if isinstance(value, list | tuple | set | frozenset):
        parts = [_value(part, module, seen) for part in value]
        if isinstance(value, set | frozenset):
            parts.sort()  # a set of texts has another order in every process
        return [type(value).__name__, *itertools.chain(*parts)]
    if inspect.isfunction(value) or inspect.isclass(value):
        if value.__module__ == module:
            return _code(value, seen)
        return [f"{value.__module__}.{value.__qualname__}"]
    if inspect.isbuiltin(value):
        return [value.__qualname__]
    text = repr(value)
    if re.search(r" at 0x[0-9a-f]+>", text):
        raise ValueError(
            f"{text} may hold state that its text does not show: pass what it is made "
            "of, numbers, tensors or functions."
        )
    return [text]


def stream(seed: int, *names: str) -> torch.Generator:
    """A CPU random generator of its own for one purpose of one study.

    Streams with different names are independent, so what is trained first, or not at
    all, changes nothing in what is trained next.
    """
    text = canonical([seed, *names]).encode()
    number = int.from_bytes(hashlib.sha256(text).digest()[:8], "big", signed=True)
    return torch.Generator().manual_seed(number)


def pick_device() -> torch.device:
    """The GPU when there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def pick_precision(precision: Precision, device: torch.device) -> torch.dtype:
    """The type to train in: bfloat16 where `auto` finds hardware that is fast at it.

    That is any GPU of CUDA capability 8 and later, and CPUs with AMX or AVX512-BF16.
    """
    if precision != "auto":
        return getattr(torch, precision)
    if device.type == "cuda":
        fast = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        flags = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
        fast = any(getattr(torch.cpu, flag, bool)() for flag in flags)
    return torch.bfloat16 if fast else torch.float32


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


def write_json(path: Path, value: object) -> None:
    """Write readable JSON, whole or not at all."""
    with written(path) as temporary:
        text = json.dumps(value, indent=1, sort_keys=True, default=_plain)
        temporary.write_text(text + "\n")


def make(kind: str, key: dict, build: Callable[[Path], None]) -> Path:
    """The finished run of `key`, built first when there is none.

    Args:
        kind: The sort of result, a folder name: `host`, `marked`, `notebook`...
        key: All that decides the result, as JSON values.
        build: Fills the folder it is given; called at most once over all processes
            that ask for this run at the same time.

    Returns:
        The folder `<runs root>/<kind>/<hash>/`, complete.

    Raises:
        ValueError: If the finished run was changed since it was sealed.
    """
    folder = place(kind, key)
    if not _finished(folder):
        with locked(folder):
            if not _finished(folder):
                _build(folder, key, build)
    return folder


def unfinished(kind: str, key: dict) -> Path:
    """Where the run of `key` is being made, if it is."""
    folder = place(kind, key)
    found = sorted(folder.parent.glob(f".{folder.name}.making-*"))
    return found[-1] if found else folder.with_name(f".{folder.name}.making-")


def place(kind: str, key: dict) -> Path:
    """Where the run of `key` lies once it is finished."""
    return runs_root() / kind / digest({"schema": SCHEMA, **key})


def _build(folder: Path, key: dict, build: Callable[[Path], None]) -> None:
    for leftover in folder.parent.glob(f".{folder.name}.making-*"):
        shutil.rmtree(leftover)  # of a killed process: we hold the lock
    # A name of our own: a killed runner's kernel may still be writing to the old one.
    temporary = folder.with_name(f".{folder.name}.making-{os.urandom(4).hex()}")
    temporary.mkdir(parents=True)
    started = time.perf_counter()
    try:
        build(temporary)
        write_json(temporary / "config.json", {"schema": SCHEMA, **key})
        files = sorted(p for p in temporary.rglob("*") if p.is_file())
        sealed = {
            "seconds": round(time.perf_counter() - started, 2),
            "files": {str(p.relative_to(temporary)): _checksum(p) for p in files},
            **provenance(),
        }
        write_json(temporary / "done.json", sealed)
        if folder.exists():  # without done.json: never one of ours
            shutil.rmtree(folder)
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _finished(folder: Path) -> bool:
    """Whether the run is sealed; a run changed since then is an error."""
    done = folder / "done.json"
    if not done.exists():
        return False
    try:
        files = json.loads(done.read_text())["files"]
        damaged = [n for n, c in files.items() if _checksum(folder / n) != c]
    except (ValueError, KeyError, OSError) as error:
        damaged = [str(error)]
    if damaged:
        raise ValueError(
            f"the run {folder} is damaged ({', '.join(damaged)}): delete that folder, "
            "and it is made again."
        )
    return True


def provenance() -> dict[str, object]:
    """What a result was made with: versions, commit, machine, time (UTC)."""
    packages = ("fidlib", "torch", "torchvision", "numpy", "scikit-learn", "umap-learn")
    versions = {"python": platform.python_version()}
    for package in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return {
        "versions": versions,
        "commit": _commit(),
        "machine": machine(),
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def machine() -> str:
    """The processor, or GPU, in words, and the number of cores used."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((x.split(": ")[1] for x in lines if x[:10] == "model name"), name)
    return f"{name}, {torch.get_num_threads()} threads"


def _commit() -> str:
    folder = Path(__file__).parent
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        found = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    except OSError:
        return "unknown"
    return found.stdout.strip() or "unknown"


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} is no JSON value: {value!r}")
