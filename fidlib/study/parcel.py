"""Parcels: what a study made of its models, small enough to be carried elsewhere.

Of each model its head, its learning curve, its reports, its outputs on a sample of the
images in half precision, and its regions on a plane; its body if it is small. A study
in whose store they lie reads them as it reads its own.
"""

import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fidlib.models import Classifier
from fidlib.runs import keys, store

HEAD = "head.safetensors"
"""In the place of a model's weights."""

LARGEST = 4_000_000
"""Bytes of weights that come along whole: the narrow ResNet18's do, WRN28-10's do not.
"""

KEPT = {"test": 2000, "sample": 500, "train": 500}
"""Images whose outputs come along, spread over set and classes; the last two are the
same, of the training images."""


class Absent(nn.Module):
    """The body of a model whose weights stayed behind."""

    def forward(self, images: Tensor) -> NoReturn:
        """Refuse.

        Raises:
            ValueError: Always.
        """
        raise ValueError(
            f"{len(images)} images were asked about, but this model came without its "
            "weights: ask for what was measured where it was made, or train it."
        )


def pack(path: Path, fingerprint: str, model: Path, others: Iterable[Path]) -> None:
    """Add what is kept of a model to a zip file; it is there whole, or as it was.

    Args:
        path: The file, there or to be made.
        fingerprint: The model's.
        model: Its run; without its body, if that is of more than `LARGEST` bytes.
        others: Runs of its reports, outputs and regions.
    """
    with (
        store.written(path) as temporary,
        tempfile.TemporaryDirectory() as folder,
    ):
        if path.exists():
            shutil.copy(path, temporary)
        with zipfile.ZipFile(temporary, "a", zipfile.ZIP_DEFLATED) as archive:
            for number, run in enumerate([model, *others]):
                copy = Path(folder, str(number))
                shutil.copytree(run, copy)
                _lighten(copy, fingerprint)
                report = run.parent.parent.name == "report"
                inside = Path(*run.parts[-3 if report else -2 :])
                for file in copy.iterdir():
                    archive.write(file, inside / file.name)


def unpacked(folder: Path) -> Path:
    """A run store with all that the zip files of a folder hold.

    Raises:
        ValueError: If there are none, or one is damaged.
    """
    files = sorted(folder.glob("*.zip"))
    if not files:
        raise ValueError(f"{folder} holds no zip file of models: name another folder.")
    root = store.runs_root() / "parcels" / keys.digest([*map(store.checksum, files)])
    if not root.exists():
        root.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root.parent) as temporary:
            for file in files:
                try:
                    with zipfile.ZipFile(file) as archive:
                        archive.extractall(Path(temporary, root.name))
                except zipfile.BadZipFile as error:
                    raise ValueError(f"{file} is damaged: bring it again.") from error
            Path(temporary, root.name).rename(root)
    return root


def load(folder: Path, blank: Classifier) -> Classifier:
    """A model as it came: its head, and a body that refuses.

    Args:
        folder: Its run.
        blank: Of its architecture; changed.
    """
    blank.body = Absent()
    blank.load_state_dict(load_file(folder / HEAD))
    return blank.eval()


def fingerprint(folder: Path) -> str:
    """What the whole model was known by."""
    return json.loads((folder / "done.json").read_text("utf-8"))["fingerprint"]


def _lighten(run: Path, fingerprint: str) -> None:
    """Take out of the copy of a run what is too large to be carried."""
    done = json.loads((run / "done.json").read_text("utf-8"))
    (run / "done.json").unlink()
    weights, outputs = run / "model.safetensors", run / "outputs.safetensors"
    if weights.exists() and weights.stat().st_size > LARGEST:
        parts = load_file(weights)
        parts = {n: part for n, part in parts.items() if not n.startswith("body.")}
        save_file(parts, run / HEAD)
        done["fingerprint"] = fingerprint
        done["left_out"] = {weights.name: done["files"][weights.name]}
        for file in (weights, run / "curve.safetensors"):
            file.unlink(missing_ok=True)
    if outputs.exists():
        save_file({n: t.half() for n, t in load_file(outputs).items()}, outputs)
    files = sorted(file for file in run.iterdir())
    done["files"] = {file.name: store.checksum(file) for file in files}
    store.write_json(run / "done.json", done)
