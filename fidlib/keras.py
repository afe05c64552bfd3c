"""Files in the layout of Keras' mnist.npz: what they hold, or what is wrong with them.

`x_train`, `y_train`, `x_test`, `y_test`, and optionally `classes`, their names.
"""

import warnings
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

_DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, ValueError, EOFError, OSError, KeyError),
    *(TypeError, RuntimeError),
)
"""What numpy raises for files that are cut, changed or something else."""


class Arrays(NamedTuple):
    """Images and labels of two splits, and the names of the classes."""

    x_train: np.ndarray
    """`(N, C, H, W)` uint8."""
    y_train: np.ndarray
    """`(N,)` int64 class indices."""
    x_test: np.ndarray
    """`(M, C, H, W)` uint8."""
    y_test: np.ndarray
    """`(M,)` int64 class indices."""
    classes: list[str]
    """K names, or numbers, of the classes."""


def read(path: Path) -> Arrays:
    """What a file holds.

    Raises:
        ValueError: If it is damaged, or not in that layout.
    """
    arrays = _arrays(path)
    missing = {"x_train", "y_train", "x_test", "y_test"} - arrays.keys()
    if missing:
        raise ValueError(
            f"{path} lacks {', '.join(sorted(missing))}: name its arrays x_train, "
            "y_train, x_test and y_test, as in Keras' mnist.npz."
        )
    x_train, y_train, x_test, y_test = (
        part
        for split in ("train", "test")
        for part in _checked(path, split, arrays[f"x_{split}"], arrays[f"y_{split}"])
    )
    if x_train.shape[1:] != x_test.shape[1:]:
        raise ValueError(
            f"{path}: train images are {x_train.shape[1:]}, test images "
            f"{x_test.shape[1:]} (channels, height, width); make them alike."
        )
    classes = _classes(path, np.concatenate([y_train, y_test]), arrays.get("classes"))
    return Arrays(x_train, y_train, x_test, y_test, classes)


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an npz that are Keras' or the names of classes."""
    arrays: dict[str, np.ndarray] = {}
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            for key in {*file.files} & {*Arrays._fields}:
                try:
                    arrays[key] = file[key]
                except ValueError as error:
                    if "pickle" not in str(error):
                        raise
                    raise ValueError(
                        f"{path}: its array {key} holds Python objects, which are not "
                        "read; save it as numbers or, of names, by np.array(names, "
                        "dtype=str)."
                    ) from None
    except _DAMAGE as error:
        if str(error).startswith(f"{path}:"):
            raise
        raise ValueError(
            f"{path} is damaged or no .npz ({error}): fetch it again, or write it by "
            "np.savez."
        ) from error
    return arrays


def _checked(
    path: Path, part: str, images: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Images `(N, C, H, W)` and labels `(N,)` int64 of a split in Keras' layout."""
    if labels.ndim == 2 and labels.shape[1] == 1:  # Keras' cifar10 has a column
        labels = labels[:, 0]
    colour = images.ndim == 4 and images.shape[3] in (1, 3)
    if images.dtype != np.uint8 or not (images.ndim == 3 or colour):
        raise ValueError(
            f"{path}: x_{part} is {images.dtype} of shape {images.shape}; expected "
            "uint8 of shape (N, H, W) or (N, H, W, C) with one or three channels."
        )
    if labels.shape != images.shape[:1] or labels.dtype.kind not in "ui":
        raise ValueError(
            f"{path}: y_{part} is {labels.dtype} of shape {labels.shape}; expected "
            f"{len(images)} integers, one class index for each image."
        )
    if not images.size:
        raise ValueError(f"{path}: x_{part} of shape {images.shape} has no pixel.")
    images = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
    return images, labels.astype(np.int64)


def _classes(path: Path, labels: np.ndarray, names: np.ndarray | None) -> list[str]:
    """The class names, or numbers; says in one line what class has no image."""
    low, high = int(labels.min()), int(labels.max())
    count = high + 1 if names is None else names.size
    # Without names a class that has no image may be a gap, but most are not.
    if low < 0 or high >= count or (names is None and count > 2 * len(labels)):
        expected = "" if names is None else f", but there are {count} classes"
        raise ValueError(
            f"{path}: labels run from {low} to {high}{expected}; number the classes "
            "from 0."
        )
    empty = sorted({*range(count)} - {*labels.tolist()}) if names is None else []
    if empty:
        shown = ", ".join(map(str, empty[:5])) + (", ..." if empty[5:] else "")
        warnings.warn(
            f"{path}: of {count} classes, numbered from 0, class {shown} has no image: "
            "subtract 1 from labels that start at 1.",
            stacklevel=4,
        )
    classes = range(count) if names is None else np.ravel(names)
    return [c.decode() if isinstance(c, bytes) else str(c) for c in classes]
