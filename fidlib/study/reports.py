"""Outputs and measures that are kept: made when first asked for, then read back.

Outputs are known by the model and the images, a measure by the two models, the images
and its own version: a new measure is computed from what is kept, and nothing else is.
"""

import json
from collections.abc import Callable, Iterable
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from fidlib import data, models
from fidlib.measures.boundary import Plane, Regions
from fidlib.measures.catalogue import MEASURES, Measured, measure
from fidlib.measures.fidelity import Fidelity
from fidlib.measures.intervals import Estimate
from fidlib.measures.pair import Pair
from fidlib.models import Classifier, Outputs
from fidlib.runs import keys, store


def outputs(model: Classifier, fingerprint: str, images: Tensor) -> Outputs:
    """Features and logits of a model on images, float32, on the images' device.

    Args:
        model: Run only if they are not kept.
        fingerprint: Its `models.fingerprint`.
        images: `(N, C, H, W)` pixels.
    """

    def build(folder: Path) -> None:
        result = models.outputs(model, images)
        tensors = {n: t.contiguous().cpu() for n, t in result._asdict().items()}
        save_file(tensors, folder / "outputs.safetensors")

    folder = store.make("outputs", _outputs_key(fingerprint, images), build)
    stored = load_file(folder / "outputs.safetensors")
    # Those that came in a parcel are of half precision.
    parts = {name: part.to(images.device).float() for name, part in stored.items()}
    return Outputs(**parts)


def regions(
    model: Classifier, fingerprint: str, corners: Tensor, resolution: int
) -> Regions:
    """The classes a model names in the triangle of three images.

    Args:
        model: Run only if they are not kept.
        fingerprint: Its `models.fingerprint`.
        corners: `(3, C, H, W)` images, on the model's device.
        resolution: Points a side.
    """
    plane = Plane.through(data.pixels(corners))
    extent = plane.extent(border=0.03)

    def build(folder: Path) -> None:
        def decide(points: Tensor) -> Tensor:
            return models.outputs(model, points).logits

        grid = {"resolution": resolution, "triangle": True}
        labels = plane.regions(decide, extent, **grid).labels
        save_file({"labels": labels.short()}, folder / "regions.safetensors")

    key = {"model": fingerprint, "corners": data.digest(corners)}
    folder = store.make("regions", key | {"resolution": resolution}, build)
    labels = load_file(folder / "regions.safetensors")["labels"].long()
    return Regions(labels, extent)


def is_kept(fingerprint: str, images: Tensor) -> bool:
    """Whether a model's outputs on images are kept."""
    return store.is_made("outputs", _outputs_key(fingerprint, images))


def runs(
    fingerprint: str, shown: Iterable[Tensor], pairs: Iterable[dict[str, object]]
) -> list[Path]:
    """Where a model's outputs on images, its regions and reports of it are kept."""
    folders = [store.place("outputs", _outputs_key(fingerprint, x)) for x in shown]
    for kind in (*map(_kind, pairs), "regions"):
        for config in sorted(store.runs_root().glob(f"{kind}/*/config.json")):
            known = json.loads(config.read_text("utf-8"))
            if kind != "regions" or known["model"] == fingerprint:
                folders.append(config.parent)
    return folders


def fidelity(
    key: dict[str, object], names: Iterable[str], pair: Callable[[], Pair], images: int
) -> Fidelity:
    """The report of a pair: measures that are kept are read, others computed and kept.

    Args:
        key: What tells the pair from others: models, images, triggers, seed.
        names: Measures to have.
        pair: Makes the pair, if a measure is missing.
        images: N.
    """
    names = list(names)
    results = _kept(key)
    if missing := [name for name in names if name not in results]:

        def build(folder: Path) -> None:
            write(folder, measure(pair(), missing))

        versions = {name: _version(name) for name in missing}
        folder = store.make(_kind(key), key | {"measures": versions}, build)
        results |= _read(folder)
    return Fidelity({name: results[name] for name in names}, images)


def missing(key: dict[str, object], names: Iterable[str]) -> list[str]:
    """Measures of a pair that are not kept."""
    results = _kept(key)
    return [name for name in names if name not in results]


def write(folder: Path, measured: dict[str, Measured]) -> None:
    """A report's file, which says each measure's version."""
    rows = {
        name: {"version": _version(name), **result._asdict()}
        for name, result in measured.items()
    }
    store.write_json(folder / "measures.json", rows)


def _outputs_key(fingerprint: str, images: Tensor) -> dict[str, object]:
    return {"model": fingerprint, "images": data.digest(images)}


def _kind(key: dict[str, object]) -> str:
    """A pair has a folder of its own: a run for each time that measures were added."""
    return f"report/{keys.digest(key)}"


def _kept(key: dict[str, object]) -> dict[str, Measured]:
    results: dict[str, Measured] = {}
    for root in (store.RELEASED, store.runs_root()):
        for folder in sorted((root / _kind(key)).glob("[!.]*")):
            if store.finished(folder):
                results |= _read(folder)
    return results


def _read(folder: Path) -> dict[str, Measured]:
    rows = json.loads((folder / "measures.json").read_text("utf-8"))
    return {
        name: Measured(
            Estimate(*row["estimate"]),
            [Estimate(*each) for each in row["by_class"]],
            row["parts"],
        )
        for name, row in rows.items()
        if name in MEASURES and row["version"] == _version(name)
    }


def _version(name: str) -> object:
    """Of a measure that is not fidlib's own, its text as well."""
    row = MEASURES[name]
    if row.of.__module__.startswith("fidlib."):
        return row.version
    code = [keys.code(part) for part in (row.of, row.parts) if part is not None]
    return [row.version, keys.digest([code, row.by_class, row.level])]
