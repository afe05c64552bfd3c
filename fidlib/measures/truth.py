"""What is true about a change of function, away from the test images too."""

import math
from collections.abc import Iterable, Mapping

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fidlib import data
from fidlib.measures import losses
from fidlib.measures.controls import null_space

Outputs = Mapping[str, Mapping[str, Tensor]]
"""Model -> kind of input -> `(N, K)` logits."""


def inputs(
    images: Tensor, generator: torch.Generator, *, count: int = 500
) -> dict[str, Tensor]:
    """Inputs to compare answers on: test images, and what lies away from them.

    Args:
        images: `(N, C, H, W)` pixels, uint8 or float in [0, 1].
        generator: On the CPU.
        count: Inputs of each kind.

    Returns:
        Kind -> `(count, C, H, W)` float pixels: `images`, random ones of them (all, if
        there are no more); `mixtures` of two; points of `planes`, the triangles
        of three; `noise`, every pixel uniform in [0, 1].
    """
    pixels = data.pixels(images)
    first = torch.randperm(len(pixels), generator=generator)[:count]
    triples = torch.randint(len(pixels), (3, count), generator=generator)
    a, b, c = (pixels[pick.to(pixels.device)] for pick in triples)
    # Shares of three that are spread evenly over their triangle.
    draws = -torch.rand((3, count, 1, 1, 1), generator=generator).log()
    r, s, t = (draws / draws.sum(0)).to(a)
    share = torch.rand((count, 1, 1, 1), generator=generator).to(a)
    return {
        "images": pixels[first.to(pixels.device)],
        "mixtures": share * a + (1 - share) * b,
        "planes": r * a + s * b + t * c,
        "noise": torch.rand(a.shape, generator=generator).to(a),
    }


def check_same(outputs: Outputs, names: Iterable[str], *, most: float = 1e-3) -> float:
    """Raise unless models give the host's probabilities, up to rounding.

    Args:
        outputs: Model, `host` too -> kind of input -> `(N, K)` logits.
        names: Those that should.
        most: What may be rounding.

    Returns:
        The largest difference of a probability.

    Raises:
        ValueError: If it is larger than `most`.
    """
    host = {kind: logits.softmax(1) for kind, logits in outputs["host"].items()}
    rounding = max(
        (outputs[name][kind].softmax(1) - own).abs().max().item()
        for name in names
        for kind, own in host.items()
    )
    if rounding > most:
        raise ValueError(
            f"a probability moved by {rounding:.1g} in a model that should compute the "
            "same function: rounding is too coarse for these factors; lower factors."
        )
    return rounding


def changed_answers(outputs: Outputs) -> pd.DataFrame:
    """The shares of inputs whose answer is not the host's: the truth about a change.

    Args:
        outputs: Model, `host` too -> kind of input, as of `inputs` -> `(N, K)` logits.

    Returns:
        A row a model but the host, a column a kind; `away`, the mean over all kinds but
        `images`.
    """
    host = outputs["host"]
    rows = {
        name: {k: 1 - losses.agreement(host[k], found) for k, found in own.items()}
        for name, own in outputs.items()
        if name != "host"
    }
    truth = pd.DataFrame(rows).T
    return truth.assign(away=truth.drop(columns="images").mean(axis=1))


def split_moves(
    head: nn.Linear, before: Tensor, after: Mapping[str, Tensor]
) -> pd.DataFrame:
    """Where PFL lies: shares of the mean squared moves of features.

    Args:
        head: The host's.
        before: `(N, D)` its features.
        after: Model -> `(N, D)` its features.

    Returns:
        A row a model; NaN where nothing moved. Columns: the head's null space, along
        what the head sees of an image's own features, and across. They sum to 1.
    """
    blind, before = null_space(head).to(before.device), before.double()
    ray = F.normalize(before - before @ blind @ blind.T, dim=1)
    names = ["head's null space", "along the image's own features", "across"]
    rows = {}
    for name, features in after.items():
        move = features - before
        lengths = move.norm(dim=1), (move @ blind).norm(dim=1), (move * ray).sum(1)
        whole, unseen, along = (part.square().mean().item() for part in lengths)
        shares = unseen, along, whole - unseen - along
        rows[name] = [share / whole if whole else math.nan for share in shares]
    return pd.DataFrame.from_dict(rows, orient="index", columns=names)
