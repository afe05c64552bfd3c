"""A notebook's folder: pictures, the numbers behind them, and how they were made."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fidlib.runs import machine, store


class Output:
    """A notebook's folder for pictures, the numbers behind them and provenance.

    Args:
        folder: Relative to the project root, wherever the notebook is run from.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = store.project_root() / folder
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "provenance.json").unlink(missing_ok=True)  # of other pictures
        self.started = time.perf_counter()
        self.pictures: list[Path] = []

    def figure(self, figure, name: str, *, alt: str) -> None:
        """Save a matplotlib figure as `<name>.png` and `<name>.pdf`.

        Args:
            figure: What to save.
            name: File name without ending.
            alt: One sentence saying what is seen; kept in the files, and shown to
                those who cannot see the picture.
        """
        picture = self.folder / name
        figure.savefig(f"{picture}.png", metadata={"Description": alt})
        _reduce(Path(f"{picture}.png"))
        self.pictures.append(Path(f"{picture}.png"))
        # Without a date, so that making the same figure again leaves git quiet.
        undated = {"CreationDate": None, "Subject": alt}
        figure.savefig(f"{picture}.pdf", metadata=undated)

    def table(self, frame: pd.DataFrame, name: str) -> pd.DataFrame:
        """Save a table as `<name>.csv`, six significant digits; returns it to show."""
        frame.to_csv(self.folder / f"{name}.csv", float_format="%.6g")
        return frame

    def arrays(self, name: str, **arrays: np.ndarray) -> None:
        """Save the arrays a picture was drawn from as `<name>.npz`, compressed."""
        with open(self.folder / f"{name}.npz", "wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)

    def provenance(self, parameters: Mapping[str, object]) -> pd.DataFrame:
        """Record parameters, versions, commit, machine and seconds; returns a table.

        The record is `provenance.json`, and the `Comment` of every PNG made so far.

        Args:
            parameters: What decided the pictures: a configuration's fields and others.
        """
        seconds = round(time.perf_counter() - self.started, 1)
        record: dict[str, Any] = {"parameters": dict(parameters), "seconds": seconds}
        record |= machine.provenance()
        path = self.folder / "provenance.json"
        store.write_json(path, record)
        for picture in self.pictures:
            sign(picture, path.read_text("utf-8"))
        flat = record | record.pop("versions")
        return pd.DataFrame({"value": flat.values()}, index=list(flat))


def sign(picture: Path, record: str) -> None:
    """Write into a PNG, as its `Comment`, what it was made with."""
    from PIL import Image

    with Image.open(picture) as image:
        _save(image, picture, image.info | {"Comment": record})


def _reduce(picture: Path) -> None:
    """Keep 256 colours of a PNG: a quarter of its bytes, and no eye sees it."""
    from PIL import Image

    with Image.open(picture) as image:
        few = image.convert("RGB").quantize(256, dither=Image.Dither.NONE)
        _save(few, picture, image.info)


def _save(image: Any, picture: Path, info: Mapping[Any, Any]) -> None:
    """Write a PNG with the texts that it had."""
    from PIL import PngImagePlugin

    chunks = PngImagePlugin.PngInfo()
    for key in ("Software", "Description", "Comment"):
        if key in info:
            chunks.add_itxt(key, info[key])
    with store.written(picture) as temporary:
        image.save(temporary, pnginfo=chunks, dpi=info.get("dpi"), optimize=True)
