"""A small set in the shape of CIFAR-100, to see the largest network run without a GPU.

    python benchmarks/cifar100_shape.py
    fidlib figures --suite cifar100_smoke --jobs 1

Each of the hundred classes is a picture of noise, and its images hardly differ: three
of each teach the network to tell one noise from another, so that it can learn the
triggers, noise too. On smooth patterns it learned to overlook noise, and no trigger.
"""

import numpy as np
import torch

from fidlib.runs.store import project_root

TRAIN, TEST = 3, 2
"""Images of a class."""
SIDE = 32
"""Of CIFAR-100's images, in pixels."""


def images(pictures: torch.Tensor, each: int, generator: torch.Generator) -> np.ndarray:
    """`each` images of every class, uint8 of shape `(N, SIDE, SIDE, 3)`."""
    pixels = pictures.repeat(each, 1, 1, 1)
    pixels = pixels + 0.02 * torch.randn(pixels.shape, generator=generator)
    return (255 * pixels.clamp(0, 1)).byte().permute(0, 2, 3, 1).numpy()


def main() -> None:
    """Write it to `runs/cifar100_shape.npz`, where the suite looks for it."""
    generator = torch.Generator().manual_seed(0)
    pictures = torch.rand(100, 3, SIDE, SIDE, generator=generator)
    arrays = {}
    for part, each in (("train", TRAIN), ("test", TEST)):
        arrays[f"x_{part}"] = images(pictures, each, generator)
        arrays[f"y_{part}"] = np.tile(np.arange(100), each)
    path = project_root() / "runs" / "cifar100_shape.npz"
    path.parent.mkdir(exist_ok=True)
    np.savez_compressed(path, allow_pickle=False, **arrays)
    print(f"{path}: {100 * TRAIN} train and {100 * TEST} test images")


if __name__ == "__main__":
    main()
