"""Families that show nothing of the pool: drawn images, and those of another set.

Arguments and errors are those of `Family`; of the pool only the shape counts.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from fidlib import data
from fidlib.data import Split, pixels
from fidlib.models import Classifier
from fidlib.runs.keys import stream
from fidlib.triggers.labels import Labels, drawn, secret
from fidlib.wrapping import positive

LAYERS = 3
"""Gratings of an abstract image, and ellipses."""


def abstract(
    pool: Split,
    seed: int,
    *,
    host: Classifier,
    count: int = 100,
    labels: Labels = "random",
) -> Split:
    """Drawn images: a gradient, gratings over it and ellipses on top, each in random
    colours (after Adi et al. 2018, who took 100 abstract images from the web).
    """
    count, generator = positive("count", count), stream(seed, "abstract")
    channels, height, width = pool.images.shape[1:]
    y, x = torch.meshgrid(
        torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij"
    )

    def draw(low: float, high: float, values: int = 1) -> Tensor:
        share = torch.rand(count, values, 1, 1, generator=generator)
        return low + (high - low) * share

    def turned() -> tuple[Tensor, Tensor]:
        """Coordinates of the pixels, about a random centre and turned."""
        angle = draw(0, 2 * math.pi)
        across, up = x - draw(-1, 1), y - draw(-1, 1)
        return (
            across * angle.cos() + up * angle.sin(),
            up * angle.cos() - across * angle.sin(),
        )

    ramp = (turned()[0] / 3 + 0.5).clamp(0, 1)
    images = draw(0, 1, channels).lerp(draw(0, 1, channels), ramp)
    for _ in range(LAYERS):
        wave = (turned()[0] * draw(2, 10)).sin() / 4 + 0.25
        images = images.lerp(draw(0, 1, channels), wave)
    for _ in range(LAYERS):
        across, up = turned()
        inside = (across / draw(0.2, 0.7)) ** 2 + (up / draw(0.2, 0.7)) ** 2 < 1
        images = torch.where(inside, draw(0, 1, channels), images)
    return secret(images, None, labels, host.num_classes, generator)


def unrelated(
    pool: Split,
    seed: int,
    *,
    host: Classifier,
    count: int = 100,
    labels: Labels = "random",
    dataset: str = "",
) -> Split:
    """Images of another set (Zhang et al. 2018), enlarged or shrunk to the pool's size.

    Args:
        pool: Of whose shape they are made.
        seed: As in `Family`.
        host: As in `Family`.
        count: As in `Family`.
        labels: As in `Family`.
        dataset: What `data.load` takes, such as the path of an `.npz`. When empty,
            scikit-learn's digits for colour images, and for grey ones patches of its
            two photographs.
    """
    count, generator = positive("count", count), stream(seed, "unrelated")
    channels, height, width = pool.images.shape[1:]
    if dataset or channels > 1:
        others = data.load(dataset or "digits").train
        images, _ = drawn(others, count, generator)
    else:
        images = patches(count, height, width, generator)
    if images.shape[1] != channels:
        images = images.mean(1, keepdim=True).expand(-1, channels, -1, -1)
    size = [height, width]
    images = F.interpolate(images, size, mode="bicubic", antialias=True)
    return secret(images, None, labels, host.num_classes, generator)


def patches(count: int, height: int, width: int, draws: torch.Generator) -> Tensor:
    """`(count, 3, H, W)` patches of two photographs, a quarter as high where shrunk.

    Of four times as many those of most contrast: of the sky all patches look alike.
    """
    from sklearn.datasets import load_sample_images

    both = load_sample_images().images
    photographs = [torch.tensor(one).permute(2, 0, 1) for one in both]
    high, wide = photographs[0].shape[1:]
    zoom = max(1, min(high // (4 * height), wide // (4 * width)))
    parts = []
    for _ in range(4 * count):
        which = torch.randint(len(photographs), (), generator=draws)
        top = torch.randint(max(1, high - zoom * height), (), generator=draws)
        left = torch.randint(max(1, wide - zoom * width), (), generator=draws)
        part = photographs[which][:, top:, left:][:, : zoom * height, : zoom * width]
        parts.append(F.interpolate(pixels(part)[None], [height, width], mode="area"))
    drawn = torch.cat(parts)
    rows = drawn.std((1, 2, 3)).topk(count).indices.sort().values
    return drawn[rows]
