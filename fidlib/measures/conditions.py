"""Images unlike those that a model learned from: shifted, of another set, of noise.

Kinds of corruption follow Hendrycks and Dietterich 2019, in five strengths each; none
draws anew: the same images give the same shifted images each time.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from fidlib import data, triggers
from fidlib.data import Split
from fidlib.measures import losses
from fidlib.models import Classifier
from fidlib.runs import machine
from fidlib.runs.keys import stream
from fidlib.weights import at_rest

STRENGTHS = (1, 2, 3, 4, 5)
"""Of every kind of shift that has one."""

OTHER_KEYS = 1_000_000
"""First seed of keys that are no study's."""


class Condition(NamedTuple):
    """Images under one shift."""

    kind: str
    """Such as `blur`."""
    strength: int
    """Of `STRENGTHS`; 0 of other images altogether, whose labels are not the set's."""
    images: Tensor
    """`(N, C, H, W)` float pixels."""

    def __str__(self) -> str:
        return f"{self.kind} {self.strength}" if self.strength else self.kind


def noise(images: Tensor, deviation: float) -> Tensor:
    """Gaussian noise on every pixel."""
    drawn = torch.randn(images.shape, generator=stream(0, "shift"))
    return images + deviation * drawn.to(images)


@machine.ieee()
def blur(images: Tensor, deviation: float) -> Tensor:
    """Gaussian blur; the deviation is in 32nds of the height."""
    size = deviation * images.shape[2] / 32
    reach = math.ceil(3 * size)
    places = torch.arange(-reach, reach + 1).to(images)
    line = (-(places / size).square() / 2).exp()
    line = line / line.sum()
    flat = F.pad(images.flatten(0, 1)[:, None], [reach] * 4, mode="replicate")
    flat = F.conv2d(F.conv2d(flat, line.view(1, 1, 1, -1)), line.view(1, 1, -1, 1))
    return flat.view_as(images)


def contrast(images: Tensor, factor: float) -> Tensor:
    """All pixels nearer to their image's mean."""
    mean = images.mean((1, 2, 3), keepdim=True)
    return mean + factor * (images - mean)


def brightness(images: Tensor, more: float) -> Tensor:
    """All pixels lighter by the same."""
    return images + more


def rotation(images: Tensor, degrees: float) -> Tensor:
    """Turned about the centre, anticlockwise; what comes in repeats the border."""
    height, width = images.shape[2:]
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turn = [[cos, -sin * height / width, 0], [sin * width / height, cos, 0]]
    theta = torch.tensor(turn).to(images).expand(len(images), 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def pixelation(images: Tensor, share: float) -> Tensor:
    """Made smaller, to a share of the side, and large again: means of blocks."""
    sides = [max(1, round(share * side)) for side in images.shape[2:]]
    small = F.interpolate(images, sides, mode="area")
    return F.interpolate(small, images.shape[2:], mode="area")


_YCBCR = [
    [0.299, 0.587, 0.114],
    [-0.168736, -0.331264, 0.5],
    [0.5, -0.418688, -0.081312],
]
_STEPS = [
    *(16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55),
    *(14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62),
    *(18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99),
]
_COLOR_STEPS = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]


def jpeg(images: Tensor, quality: float) -> Tensor:
    """As JPEG of a quality from 1 to 100 keeps them, colours at full resolution.

    The steps of the cosines are those of ITU-T T.81, Annex K, scaled as libjpeg does.
    """
    height, width = images.shape[2:]
    steps, mix = torch.tensor(_STEPS).view(1, 1, 1, 8, 8), torch.eye(images.shape[1])
    if len(mix) == 3:
        color = F.pad(torch.tensor(_COLOR_STEPS), (0, 4, 0, 4), value=99)
        steps = torch.cat([steps, *[color.view_as(steps)] * 2])
        mix = torch.tensor(_YCBCR)
    scale = 50 / quality if quality < 50 else 2 - quality / 50
    steps = (scale * steps + 0.5).floor().clamp(1, 255).to(images)
    place = torch.arange(8.0)
    cosines = (math.pi / 16 * place[:, None] * (2 * place + 1)).cos() / 2
    cosines[0] *= 0.5**0.5
    cosines, mix = cosines.to(images), mix.to(images)
    x = torch.einsum("dc,nchw->ndhw", mix, 255 * images - 128)
    x = F.pad(x, (0, -width % 8, 0, -height % 8), mode="replicate")
    blocks = x.unfold(2, 8, 8).unfold(3, 8, 8)
    kept = (cosines @ blocks @ cosines.T / steps).round() * steps
    x = (cosines.T @ kept @ cosines).transpose(3, 4).reshape(x.shape)
    x = torch.einsum("cd,ndhw->nchw", mix.inverse(), x[..., :height, :width])
    return (x + 128) / 255


KINDS: dict[str, tuple[Callable[[Tensor, float], Tensor], tuple[float, ...]]] = {
    "noise": (noise, (0.04, 0.08, 0.12, 0.18, 0.26)),
    "blur": (blur, (0.4, 0.6, 0.8, 1.1, 1.5)),
    "contrast": (contrast, (0.75, 0.5, 0.4, 0.3, 0.15)),
    "brightness": (brightness, (0.1, 0.2, 0.3, 0.4, 0.5)),
    "jpeg": (jpeg, (80, 50, 30, 15, 7)),
    "rotation": (rotation, (5, 10, 15, 20, 30)),
    "pixelation": (pixelation, (0.9, 0.75, 0.5, 0.35, 0.25)),
}
"""Kind of corruption -> its function and what it is given at each of `STRENGTHS`."""

FOOLING = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Largest change of a pixel, in 255ths, of images that are to fool the host."""


def shifted(
    images: Tensor, host: Classifier, *, strengths: Iterable[int] = STRENGTHS
) -> Iterator[Condition]:
    """Images under every shift, one after another, on the images' device.

    After the corruptions come images that are to fool the host; scikit-learn's digits
    enlarged, unless the images are as small themselves; and triggers of other keys.

    Args:
        images: `(N, C, H, W)` pixels, 500 at most.
        host: Whose answers the fooling images are to change, and whose normalisation
            the keys' noise has.
        strengths: Some of `STRENGTHS`.

    Raises:
        ValueError: If one of them is none.
    """
    shown, strengths = data.pixels(images).float(), list(strengths)
    if not {*strengths} <= {*STRENGTHS}:
        raise ValueError(f"strengths are {strengths}; use some of 1, 2, 3, 4 and 5.")
    for kind, (corrupt, amounts) in KINDS.items():
        for strength in strengths:
            variant = corrupt(shown, amounts[strength - 1]).clamp(0, 1)
            yield Condition(kind, strength, variant)
    slopes = _slopes(host, shown)
    for strength in strengths:
        step = FOOLING[strength - 1] / 255
        yield Condition("fooling", strength, (shown - step * slopes).clamp(0, 1))
    if shown.shape[1:] != (1, 8, 8):
        yield Condition("other set", 0, _digits(shown))
    yield Condition("other keys", 0, _noise_of_other_keys(shown, host))


@machine.ieee()
def _slopes(host: Classifier, images: Tensor) -> Tensor:
    """Signs of the margins' gradients (the step of Goodfellow et al. 2015).

    Of the host's own answer over the next, which has a slope where a loss has none.
    """
    signs = []
    with at_rest(host), torch.enable_grad():
        for part in images.split(125):
            part = part.clone().requires_grad_()
            logits = host(part)
            margins = losses.margins(logits, logits.argmax(1))
            signs.append(torch.autograd.grad(margins.sum(), part)[0].sign())
    return torch.cat(signs)


def _digits(images: Tensor) -> Tensor:
    """As many of scikit-learn's digits, of the images' size and colours."""
    digits = data.load("digits").test.sample(len(images)).images
    large = F.interpolate(data.pixels(digits), images.shape[2:], mode="bilinear")
    return large.to(images).expand(-1, images.shape[1], -1, -1).contiguous()


def _noise_of_other_keys(images: Tensor, host: Classifier) -> Tensor:
    """As many triggers of the paper's family, of keys of about 100 each."""
    pool = Split(images[:1], torch.zeros(1).long())
    seeds = range(OTHER_KEYS, OTHER_KEYS + len(images) // 90 + 1)
    keys = [triggers.chain(pool, seed, host=host).images for seed in seeds]
    return torch.cat(keys)[: len(images)].to(images)
