"""A small set like CIFAR-100, to see the largest network run without a GPU.

    python benchmarks/cifar100_shape.py [--side 32]
    fidlib figures --suite cifar100_smoke --jobs 1

Each of the hundred classes is a pattern of colours that blurs into noise: easy enough
to be learned from three images, so that host and watermark are better than a guess.
Without --side the images have a quarter of the side of CIFAR-100's, and the suite takes
half an hour; at 32 pixels a step of 24 takes one thread of a CPU 15 to 20 seconds.
"""

import argparse

import numpy as np
import torch
import torch.nn.functional as F

from fidlib.runs import project_root

TRAIN, TEST = 3, 2
"""Images of a class."""


def images(patterns: torch.Tensor, each: int, generator: torch.Generator) -> np.ndarray:
    """`each` images of every pattern, uint8 of shape `(N, side, side, 3)`."""
    pixels = patterns.repeat(each, 1, 1, 1)
    pixels = pixels + 0.1 * torch.randn(pixels.shape, generator=generator)
    return (255 * pixels.clamp(0, 1)).byte().permute(0, 2, 3, 1).numpy()


def main() -> None:
    """Write it to `runs/cifar100_shape.npz`, where the suite looks for it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--side", type=int, default=8, help="pixels (default: 8)")
    side = parser.parse_args().side
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(100, 3, 4, 4, generator=generator)
    patterns = F.interpolate(coarse, size=side, mode="bilinear")
    arrays = {}
    for part, each in (("train", TRAIN), ("test", TEST)):
        arrays[f"x_{part}"] = images(patterns, each, generator)
        arrays[f"y_{part}"] = np.tile(np.arange(100), each)
    path = project_root() / "runs" / "cifar100_shape.npz"
    path.parent.mkdir(exist_ok=True)
    np.savez_compressed(path, allow_pickle=False, **arrays)
    print(f"{path}: {100 * TRAIN} train and {100 * TEST} test images")


if __name__ == "__main__":
    main()
