"""Image sets as tensors in memory.

digits comes with scikit-learn; mnist, cifar10 and cifar100 are read from
`<root>/<name>.npz` and downloaded by torchvision when that is missing; any other
name is the path of an `.npz` in Keras' layout.
"""

import hashlib
import math
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from fidlib import keras
from fidlib.runs.store import locked, project_root, written

DOWNLOADED = {"mnist": "MNIST", "cifar10": "CIFAR10", "cifar100": "CIFAR100"}
"""Sets that torchvision can fetch, by their name here and its class there."""

NORMALISATION = {
    "mnist": ((0.1307,), (0.3081,)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
}
"""Mean and standard deviation per channel that the paper's code subtracts."""


FARTHEST = 4.5
"""Triggers of noise leave [0, 1]; float pixels that are as far out are none."""


@dataclass(frozen=True)
class Split:
    """Images with their labels; tensors, or what numpy makes of an array."""

    images: Tensor
    """`(N, C, H, W)` uint8, or float pixels with black at 0 and white at 1."""
    labels: Tensor
    """`(N,)` class indices, of any whole type; kept as int64."""

    def __post_init__(self) -> None:
        images, labels = _tensor("images", self.images), _tensor("labels", self.labels)
        if images.dtype == torch.bfloat16:  # which numpy has not
            images = images.float()
        if images.ndim != 4:
            raise ValueError(
                f"images have the shape {tuple(images.shape)}; expected (N, C, H, W): "
                "add the missing axis, e.g. images[:, None] for grey images."
            )
        if images.dtype != torch.uint8 and not images.is_floating_point():
            raise ValueError(
                f"images are {images.dtype}; pass uint8 pixels, or floats in [0, 1]."
            )
        if images.is_floating_point() and images.numel():
            low, high = images.min().item(), images.max().item()
            if not (math.isfinite(low) and math.isfinite(high)):
                raise ValueError("images hold NaN or infinity: mend those pixels.")
            if low < -FARTHEST or high > 1 + FARTHEST:
                raise ValueError(
                    f"float images go from {low:.3g} to {high:.3g}; pixels as floats "
                    "are in [0, 1]: divide by 255, or whatever white is, or pass uint8."
                )
        whole = not (labels.is_floating_point() or labels.dtype == torch.bool)
        if labels.shape != (len(images),) or not whole:
            raise ValueError(
                f"labels have the shape {tuple(labels.shape)} and type {labels.dtype}; "
                f"expected {len(images)} class indices, one for each image."
            )
        object.__setattr__(self, "images", images)  # frozen
        object.__setattr__(self, "labels", labels.long())  # often uint8

    @classmethod
    def of(cls, source: Any) -> "Split":
        """A split of what holds images with their labels; a Split as it is.

        Args:
            source: A Split, a pair (images, labels), or a Dataset or DataLoader of
                image tensors and labels, which is read once.

        Raises:
            ValueError: If it is none of these, or not of pixels as `Split` wants them.
        """
        if isinstance(source, Split):
            return source
        if isinstance(source, tuple | list) and len(source) == 2:
            return cls(*source)
        try:
            read: Any = source  # a list will do, too
            if not isinstance(read, DataLoader):
                read = DataLoader(read, batch_size=256)
            images, labels = map(torch.cat, zip(*read, strict=True))
        except (TypeError, RuntimeError, LookupError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(
                f"a {type(source).__name__} gives no images with labels ({reason}): "
                "pass fidlib.data.Split(images, labels), or a Dataset of image "
                "tensors, all of one size, and labels."
            ) from error
        return cls(images, labels)

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device) -> "Split":
        """The same images and labels on `device`."""
        return Split(self.images.to(device), self.labels.to(device))

    def copy(self) -> "Split":
        """Images and labels in memory of their own."""
        return Split(self.images.clone(), self.labels.clone())

    def sample(self, count: int) -> "Split":
        """`count` images spread over the set and its classes, the same each time.

        A class has its share of them, from its first image to its last; in the order of
        the set. All images where there are no more.
        """
        rows = self.sample_rows(count)
        return Split(self.images[rows], self.labels[rows])

    def sample_rows(self, count: int) -> Tensor:
        """`(count,)` rising indices of the images of `sample`."""
        by_class = self.labels.argsort(stable=True)
        count = min(count, len(self))
        # The middles of `count` equal parts of the images, class after class.
        places = (2 * torch.arange(count, device=by_class.device) + 1) * len(self)
        return by_class[places // max(1, 2 * count)].sort().values

    @cached_property
    def content(self) -> str:
        """Like `fingerprint`, but the same for the same images in any order."""
        images, labels = self.images.cpu().numpy(), self.labels.cpu().numpy()
        kind = f"{images.dtype}{images.shape}{labels.dtype}".encode()
        rows = zip(images, labels, strict=True)
        each = sorted(
            hashlib.sha256(i.tobytes() + n.tobytes()).digest() for i, n in rows
        )
        return hashlib.sha256(kind + b"".join(each)).hexdigest()[:16]

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hex digits that change with a pixel, label, type or the order."""
        digest = hashlib.sha256()
        for tensor in (self.images, self.labels):
            array = tensor.cpu().contiguous().numpy()
            digest.update(f"{array.dtype}{array.shape}".encode())
            digest.update(array.data)
        return digest.hexdigest()[:16]


def _tensor(name: str, values: Any) -> Tensor:
    """Values as a tensor without gradient; an array is copied."""
    try:
        if not isinstance(values, Tensor):  # whatever its strides, or read-only
            values = torch.from_numpy(np.array(values))
        return values.detach()
    except (TypeError, ValueError) as error:
        kind = getattr(values, "dtype", "what is no number")
        raise ValueError(
            f"{name} are a {type(values).__name__} of {kind}; pass a tensor or an "
            "array of numbers."
        ) from error


@dataclass(frozen=True)
class ImageSet:
    """A named image set: train and test splits of one image shape."""

    name: str
    """What `load` was asked for."""
    train: Split
    """What models learn from."""
    test: Split
    """What they are judged on, never trained on."""
    classes: tuple[str, ...]
    """The K class names, in the order of the labels."""
    mean: tuple[float, ...]
    """C channel means of pixels in [0, 1]."""
    std: tuple[float, ...]
    """C channel standard deviations of pixels in [0, 1]."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """`(C, H, W)` of every image."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    def manifest(self) -> dict[str, object]:
        """What identifies the set, whatever the order of its images: name and content.

        MNIST is MNIST from whichever source: some shuffle it, or name digits otherwise.
        """
        return {
            "dataset": self.name,
            "image_shape": list(self.image_shape),
            "classes": len(self.classes),
            "train": {"images": len(self.train), "sha256": self.train.content},
            "test": {"images": len(self.test), "sha256": self.test.content},
            "test_images_also_in_train": self._shared(),
        }

    def _shared(self) -> int:
        train, test = (
            [image.tobytes() for image in split.images.cpu().numpy()]
            for split in (self.train, self.test)
        )
        return sum(map(set(train).__contains__, test))


def load(name: str | Path, root: str | Path | None = None) -> ImageSet:
    """Load an image set into memory.

    Args:
        name: `digits`, `mnist`, `cifar10`, `cifar100`, the name of an `.npz` in
            `root`, or the path of one.
        root: Folder of the `.npz` files; `$FIDLIB_DATA` or `~/.cache/fidlib` if None.

    Raises:
        FileNotFoundError: If there is no such file and it cannot be downloaded.
        ValueError: If the file is damaged or not in Keras' layout (`x_train`,
            `y_train`, `x_test`, `y_test`, optional `classes`; images uint8 of shape
            (N, H, W) or (N, H, W, C)).
    """
    name = str(name)
    if name == "digits":
        return _digits()
    if name.endswith(".npz"):
        path = _at_home(name)  # from here, or from the project root
        path = path if path.exists() else project_root() / path
    else:
        folder = root or os.environ.get("FIDLIB_DATA") or "~/.cache/fidlib"
        path = _at_home(folder) / f"{name}.npz"
    if not path.exists():
        if name not in DOWNLOADED:
            known = ", ".join(["digits", *DOWNLOADED])
            raise FileNotFoundError(
                f"no image set {name!r}: {path} does not exist; use one of {known}, "
                "or the path of an .npz in the layout of Keras' mnist.npz."
            )
        _download(name, path)
    return _image_set(name, *keras.read(path))


def _at_home(path: str | Path) -> Path:
    """A path with what `~` stands for."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ValueError(
            f"{path} is in a home folder, and this user has none: name the folder of "
            "the data in FIDLIB_DATA."
        ) from error


def digest(images: Tensor) -> str:
    """Sixteen hex digits that change with a pixel, the type or the order of images."""
    array = images.cpu().contiguous().numpy()
    sha = hashlib.sha256(f"{array.dtype}{array.shape}".encode())
    sha.update(array.data)
    return sha.hexdigest()[:16]


def pixels(images: Tensor) -> Tensor:
    """Images as floats in [0, 1]: bytes are divided, floats left as they are."""
    return images / 255 if images.dtype == torch.uint8 else images


def _digits() -> ImageSet:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, labels = load_digits(return_X_y=True)  # 64 pixels of 0 to 16
    levels = np.rint(np.asarray(pixels) * (255 / 16)).astype(np.uint8)
    images = levels.reshape(-1, 1, 8, 8)
    x_train, x_test, y_train, y_test = train_test_split(
        images, labels, test_size=500, stratify=labels, random_state=0
    )
    return _image_set("digits", x_train, y_train, x_test, y_test, "0123456789")


def _download(name: str, path: Path) -> None:
    """Fetch a set by torchvision and convert it once; others who want it wait."""
    import torchvision

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"{path.parent} can be no folder of data ({error.strerror}): name another "
            "in FIDLIB_DATA."
        ) from error
    with locked(path):
        if path.exists():
            return
        kind = getattr(torchvision.datasets, DOWNLOADED[name])
        try:
            train, test = (
                kind(path.parent / "torchvision", train=flag, download=True)
                for flag in (True, False)
            )
        except (OSError, RuntimeError) as error:
            raise FileNotFoundError(
                f"{path} does not exist and could not be downloaded "
                f"({str(error).splitlines()[0]}): put a "
                f"{name}.npz in the layout of Keras' mnist.npz there, or name its "
                "folder in FIDLIB_DATA."
            ) from error
        with written(path) as temporary, open(temporary, "wb") as file:
            np.savez(
                file,
                x_train=np.asarray(train.data),
                y_train=np.asarray(train.targets, dtype=np.uint8),
                x_test=np.asarray(test.data),
                y_test=np.asarray(test.targets, dtype=np.uint8),
                classes=np.asarray([str(c) for c in train.classes]),
            )


def _image_set(name, x_train, y_train, x_test, y_test, classes) -> ImageSet:
    if name in NORMALISATION:
        mean, std = NORMALISATION[name]
    else:
        # From a histogram: exact in integers, the same on every machine.
        levels = np.arange(256) / 255
        counts = [np.bincount(x.ravel(), minlength=256) for x in x_train.swapaxes(0, 1)]
        mean = tuple(float(c @ levels / c.sum()) for c in counts)
        std = tuple(
            float(np.sqrt(c @ (levels - m) ** 2 / c.sum())) or 1.0
            for c, m in zip(counts, mean, strict=True)
        )
    train, test = (
        Split(torch.from_numpy(np.ascontiguousarray(x)), torch.from_numpy(y))
        for x, y in ((x_train, y_train), (x_test, y_test))
    )
    return ImageSet(name, train, test, tuple(classes), mean, std)
