"""Attacks on what the model sees: a filter before its first layer."""

import copy
import hashlib
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fidlib.data import Split
from fidlib.models import Classifier
from fidlib.runs.keys import stream


def median(model: Classifier, split: Split, seed: int) -> Classifier:
    """Each pixel the median of the 3 x 3 around it, by channel; edges are mirrored."""
    return _behind(model, "median", 3, 0)


def depth(model: Classifier, split: Split, seed: int, bits: int = 4) -> Classifier:
    """Pixels in `2 ** bits` equal steps from 0 to 1, beyond them in the same steps."""
    return _behind(model, "depth", bits, 0)


def input_noise(
    model: Classifier, split: Split, seed: int, amount: float = 0.05
) -> Classifier:
    """Gaussian noise on the pixels, for each image its own and always the same.

    Args:
        model: Not changed.
        split: Not looked at.
        seed: Decides the noise, with the image.
        amount: Its standard deviation, white at 1.
    """
    return _behind(model, "noise", amount, seed)


class Filter(nn.Module):
    """Changes pixels that were normalised, and gives them normalised."""

    def __init__(
        self, kind: str, amount: float, seed: int, mean: Tensor, std: Tensor
    ) -> None:
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        self.kind, self.amount = kind, amount
        self.register_buffer("mean", mean.clone())
        self.register_buffer("std", std.clone())
        self.register_buffer("seed", torch.tensor(seed))

    def extra_repr(self) -> str:
        """What tells it from others, as text."""
        return f"{self.kind}, {self.amount}"

    def forward(self, x: Tensor) -> Tensor:
        """`(N, C, H, W)` to the same."""
        if self.kind == "median":
            around = F.pad(x, [1] * 4, mode="reflect").unfold(2, 3, 1).unfold(3, 3, 1)
            return around.flatten(-2).median(-1).values
        if self.kind == "noise":
            return x + self.amount * self._noise(x) / self.std
        levels = 2**self.amount - 1
        return (((x * self.std + self.mean) * levels).round() / levels - self.mean) / (
            self.std
        )

    def _noise(self, x: Tensor) -> Tensor:
        """Of an image whatever others are in its batch."""
        seed = int(cast(Tensor, self.seed))
        prints = [hashlib.sha256(row.numpy().tobytes()) for row in x.detach().cpu()]
        draws = [stream(seed, "input noise", p.hexdigest()) for p in prints]
        return torch.stack([torch.randn(x.shape[1:], generator=d) for d in draws]).to(x)


def _behind(model: Classifier, kind: str, amount: float, seed: int) -> Classifier:
    """The model behind a filter; no longer what `models.build` makes."""
    model = copy.deepcopy(model)
    filtered = Filter(kind, amount, seed, model.mean, model.std)
    model.body = nn.Sequential(filtered, model.body)
    model.spec = None
    return model
