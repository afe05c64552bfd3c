"""What an explorer shows: one format for the widget in a cell and the page in a file.

A scene is packed into `about`, which is JSON, and one gzipped blob. `about["arrays"]`
says of each array where it starts in the blob, in bytes, how many numbers it has, their
kind (u1, u2, u4, i2 or f4, little-endian) and, of an i2, the scale that turns it into
a number. Of M models and R rows, N images and then T triggers, the arrays are:

    labels (R,), rows (N,)        class indices; the images' numbers in their split
    sheet                         all R images, a WebP of `columns` images a line
    answers m (R,)                class indices that model m names: never rounded
    logits m (R, K)               less the middle of each row, as softmax allows
    neighbors m (R, k)            rows of the nearest images in model m's features
    moved a b (R,)                how far features are apart, where a < b share their D
    place p m (R, 2)              on map p
    head m (K, D + 1)             where D = 2: weight and bias behind an exact map
    film place p m (P, R, 2)      places while model m was trained
    film answers m (P, R)         likewise; film head m (P, K, 3) where D = 2
    plane i m (S, S)              kept cells of plane i, as in `live`
    edge i m (3, L, K)            probabilities along its edges
"""

import gzip
import io
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fidlib import palette

NEIGHBORS = 8
"""k, the nearest images that are shown of each."""


@dataclass(frozen=True)
class Film:
    """A model at P points of its training."""

    epochs: Sequence[float]
    """`(P,)` epochs at which it was looked at."""
    features: np.ndarray
    """`(P, R, D)` features of the images."""
    answers: np.ndarray
    """`(P, R)` class indices."""
    heads: np.ndarray | None = None
    """`(P, K, 3)` where D = 2: weights of the head, the bias last."""


@dataclass(frozen=True)
class Shown:
    """A model and what it makes of the images."""

    name: str
    features: np.ndarray
    """`(R, D)` features of the images."""
    logits: np.ndarray
    """`(R, K)` logits of the images."""
    head: np.ndarray
    """`(K, D + 1)` weights of the head, the bias last."""
    values: Mapping[str, float | None] = field(default_factory=dict)
    """Of measures, by name."""
    film: Film | None = None


@dataclass(frozen=True)
class Map:
    """Places of images in two dimensions, made of their features."""

    name: str
    places: Mapping[str, np.ndarray]
    """Model -> `(R, 2)`."""
    films: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Model -> `(P, R, 2)`."""
    common: bool = True
    """Whether all models share one space."""
    note: str = ""
    """What is to be known when it is looked at."""


@dataclass(frozen=True)
class Kept:
    """A plane through three images in pixel space that needs no kernel."""

    corners: Sequence[int]
    """Rows of its three images."""
    side: int
    """S, cells a side."""
    cells: Mapping[str, np.ndarray]
    """Model -> `(S, S)` class indices, as `live.Planes.cells` has them."""
    edges: Mapping[str, np.ndarray]
    """Model -> `(3, L, K)` probabilities."""


@dataclass(frozen=True)
class Scene:
    """Everything that an explorer shows."""

    title: str
    classes: Sequence[str]
    pixels: np.ndarray
    """`(R, C, H, W)` in [0, 1], triggers beyond: N images, then T triggers."""
    labels: np.ndarray
    """`(R,)` class indices."""
    rows: np.ndarray
    """`(N,)` numbers of the images in their split."""
    models: Sequence[Shown]
    """The host, or whatever the others are compared with, first."""
    maps: Sequence[Map]
    measures: Sequence[Mapping[str, Any]] = ()
    """Name, title, unit and direction (1: more is better) of what `values` have."""
    tables: Sequence[Mapping[str, Any]] = ()
    """More models for the trade-offs: a title, and rows with name and values."""
    planes: Sequence[Kept] = ()

    def pack(self) -> tuple[dict[str, Any], bytes]:
        """`about` and the blob; the same scene gives the same bytes."""
        arrays, parts, start = {}, [], 0
        for name, values in self._arrays():
            scale = None
            if values.dtype.kind == "f" and not name.startswith(("head", "film head")):
                scale = float(np.abs(values).max(initial=0)) / 32767 or 1.0
                values = np.rint(values / scale).astype(np.int16)
            values = values.astype(values.dtype.newbyteorder("<"))
            kind = f"{values.dtype.kind}{values.dtype.itemsize}"
            entry = {"kind": kind, "start": start, "count": values.size, "scale": scale}
            arrays[name] = entry
            raw = values.tobytes()
            parts.append(raw + b"\0" * (-len(raw) % 4))
            start += len(parts[-1])
        return self._about() | {"arrays": arrays}, gzip.compress(
            b"".join(parts), mtime=0
        )

    def _about(self) -> dict[str, Any]:
        return {
            "title": self.title,
            "classes": list(self.classes),
            "colors": palette.class_colors(len(self.classes)),
            "viridis": palette.VIRIDIS,
            "images": len(self.rows),
            "triggers": len(self.labels) - len(self.rows),
            "shape": list(self.pixels.shape[2:]),
            "columns": columns(len(self.pixels)),
            "measures": list(self.measures),
            "tables": list(self.tables),
            "models": [
                {
                    "name": model.name,
                    **look(model.name.split("/")[0]),
                    "dim": model.features.shape[1],
                    "values": dict(model.values),
                    "film": list(model.film.epochs) if model.film else None,
                }
                for model in self.models
            ],
            "maps": [
                {"name": one.name, "common": one.common, "note": one.note}
                for one in self.maps
            ],
            "planes": [
                {"corners": list(kept.corners), "side": kept.side}
                for kept in self.planes
            ],
        }

    def _arrays(self):
        small = np.uint8 if len(self.classes) <= 256 else np.uint16
        yield "labels", self.labels.astype(small)
        yield "rows", self.rows.astype(np.uint32)
        yield "sheet", np.frombuffer(sheet(self.pixels), np.uint8)
        for m, model in enumerate(self.models):
            middle = (model.logits.max(1) + model.logits.min(1)) / 2
            yield f"answers {m}", model.logits.argmax(1).astype(small)
            yield f"logits {m}", model.logits - middle[:, None]
            yield f"neighbors {m}", nearest(model.features, len(self.rows))
            if model.head.shape[1] == 3:
                yield f"head {m}", model.head.astype(np.float32)
            if model.film:
                yield f"film answers {m}", model.film.answers.astype(small)
            if model.film and model.film.heads is not None:
                yield f"film head {m}", model.film.heads.astype(np.float32)
            for p, one in enumerate(self.maps):
                yield f"place {p} {m}", one.places[model.name]
                if model.name in one.films:
                    yield f"film place {p} {m}", one.films[model.name]
            for i, kept in enumerate(self.planes):
                yield f"plane {i} {m}", kept.cells[model.name].astype(small)
                yield f"edge {i} {m}", kept.edges[model.name]
        for (a, one), (b, other) in itertools.combinations(enumerate(self.models), 2):
            if one.features.shape == other.features.shape:
                apart = np.linalg.norm(one.features - other.features, axis=1)
                yield f"moved {a} {b}", apart


def look(method: str) -> dict[str, str]:
    """Colour and marker of a method."""
    style = palette.method_style(method)
    return {"color": style["color"], "marker": style["marker"]}


def nearest(features: np.ndarray, images: int) -> np.ndarray:
    """`(R, k)` rows of the nearest of the first `images`, never an image itself."""
    from sklearn.neighbors import NearestNeighbors

    count = min(NEIGHBORS, images - 1)
    index = NearestNeighbors(n_neighbors=count + 1).fit(features[:images])
    order = index.kneighbors(features, return_distance=False)
    # An image that is not among its own nearest has twins: the farthest is left out.
    others = order != np.arange(len(features))[:, None]
    last = others & (others.cumsum(1) > count)
    return order[others & ~last].reshape(len(features), count).astype(np.uint16)


def columns(count: int) -> int:
    """Images a line of the sheet of `count`."""
    return int(np.ceil(count**0.5))


def sheet(pixels: np.ndarray) -> bytes:
    """All images in one WebP: lossless where they are grey, at quality 80 in colour."""
    from PIL import Image

    count, channels, height, width = pixels.shape
    across = columns(count)
    down = -(-count // across)
    tiles = np.zeros((down * across, channels, height, width), np.uint8)
    tiles[:count] = np.rint(np.clip(pixels, 0, 1) * 255)
    tiles = tiles.reshape(down, across, channels, height, width)
    whole = tiles.transpose(0, 3, 1, 4, 2).reshape(down * height, across * width, -1)
    file = io.BytesIO()
    picture = Image.fromarray(whole[..., 0] if channels == 1 else whole)
    lossless = channels == 1
    picture.convert("RGB").save(file, "WEBP", lossless=lossless, quality=80, method=6)
    return file.getvalue()
