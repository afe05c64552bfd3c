"""The machine that trains and measures, and what a result was made with."""

import contextlib
import hashlib
import platform
import subprocess
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

Precision = Literal["auto", "float32", "bfloat16"]

PACKAGE = Path(__file__).parents[1]


def device() -> "torch.device":
    """The GPU when there is one, else the CPU."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def training_type(precision: Precision, device: "torch.device") -> "torch.dtype":
    """The type to train in: bfloat16 where `auto` finds hardware that is fast at it.

    That is any GPU of CUDA capability 8 and later, and CPUs with AMX or AVX512-BF16.
    """
    import torch

    if precision != "auto":
        return getattr(torch, precision)
    if device.type == "cuda":
        fast = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        flags = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
        fast = any(getattr(torch.cpu, flag, bool)() for flag in flags)
    return torch.bfloat16 if fast else torch.float32


@contextlib.contextmanager
def ieee(*, benchmark: bool = False) -> "Iterator[None]":
    """For a time float32 is float32 on a GPU too, which else computes it in TF32.

    A small PFL, say, is lost in the ten bits of TF32. Whatever was set before is set
    again after it.

    Args:
        benchmark: Whether cuDNN may try which kernels are fastest, once for each shape.
    """
    import torch

    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    convolutions = getattr(cudnn, "conv", None)
    name, wanted = "fp32_precision", "ieee"
    if convolutions is None:  # before PyTorch 2.9
        convolutions, name, wanted = cudnn, "allow_tf32", False
    settings = [(convolutions, name), (matmul, name), (cudnn, "benchmark")]
    before = [getattr(place, name) for place, name in settings]
    try:
        _set(settings, [wanted, wanted, benchmark])
        yield
    finally:
        _set(settings, before)


def _set(settings: list[tuple[Any, str]], values: list[Any]) -> None:
    for (place, name), value in zip(settings, values, strict=True):
        setattr(place, name, value)


def provenance() -> dict[str, object]:
    """What a result was made with: versions, commit, machine, time (UTC)."""
    return {
        "versions": dict(_versions()),
        "commit": own_commit(),
        "library": library(),
        "machine": name(),
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
    }


@cache
def _versions() -> dict[str, str]:
    packages = ("fidlib", "torch", "torchvision", "numpy", "scipy", "scikit-learn")
    packages += ("umap-learn", "matplotlib")
    versions = {"python": platform.python_version()}
    for package in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions


def name() -> str:
    """The processor, or GPU, in words, and the number of threads."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    chip = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        chip = next((x.split(": ")[1] for x in lines if x[:10] == "model name"), chip)
    threads = torch.get_num_threads()
    return f"{chip}, {threads} thread{'s' * (threads > 1)}"


@cache
def library() -> str:
    """Digest of fidlib's own text, as it was when this process first asked."""
    text = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.*")):
        if path.suffix in (".py", ".toml"):
            text.update(path.read_bytes())
    return text.hexdigest()[:16]


@cache
def own_commit() -> str:
    """The commit of fidlib's own checkout, as it was when this process first asked."""
    return commit(PACKAGE)


def commit(package: Path) -> str:
    """The commit of the package's checkout, "-dirty" if code or notebooks have changed.

    Pictures that are being made are no change. "unknown" where there is no checkout, or
    it is of something else that the package is installed in.
    """
    try:
        _git(package, "ls-files", "--error-unmatch", "__init__.py")
        head = _git(package, "rev-parse", "--short=12", "HEAD")
        changed = _git(package, "status", "--porcelain", ".", ":/notebooks")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{head}-dirty" if changed else head


def is_behind(commit: str, package: Path = PACKAGE) -> bool:
    """Whether the package's checkout has that commit in its history."""
    try:
        _git(package, "merge-base", "--is-ancestor", commit, "HEAD")
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


def _git(folder: Path, *command: str) -> str:
    return subprocess.check_output(
        ["git", *command], cwd=folder, stderr=subprocess.DEVNULL, text=True
    ).strip()
