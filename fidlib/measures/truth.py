"""What is true about a change of function, on shifted images too."""

import math
from collections.abc import Iterable, Mapping

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fidlib.data import Split
from fidlib.measures import conditions, losses
from fidlib.measures.controls import null_space
from fidlib.measures.pair import ASKED
from fidlib.models import Classifier

Outputs = Mapping[str, Mapping[str, Tensor]]
"""Model -> kind of input -> `(N, K)` logits."""


def inputs(
    test: Split, host: Classifier, *, measured: int, strengths: Iterable[int]
) -> dict[str, Tensor]:
    """Images to compare answers on, at none of which a measure has looked.

    Args:
        test: Of which the measures look at `test.sample(measured)`.
        host: Whom some of the images are to fool.
        measured: How many they look at.
        strengths: Of the shifts.

    Returns:
        `images`: as many others, or those that there are; and these under each shift of
        `conditions.shifted`, by its name.

    Raises:
        ValueError: If no other image is left.
    """
    left = torch.ones_like(test.labels, dtype=torch.bool)
    left[test.sample_rows(measured)] = False
    if not left.any():
        raise ValueError(
            f"measures look at {measured} of {len(test)} test images: leave some for "
            "the truth."
        )
    others = Split(test.images[left], test.labels[left]).sample(min(measured, ASKED))
    shifted = conditions.shifted(others.images, host, strengths=strengths)
    return {"images": others.images} | {str(each): each.images for each in shifted}


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
        (outputs[name][kind].softmax(1) - probabilities).abs().max().item()
        for name in names
        for kind, probabilities in host.items()
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
        A row a model but the host, a column a kind; `shifted`, the mean over all kinds
        but `images`.
    """
    host = outputs["host"]
    rows = {
        name: {k: 1 - losses.agreement(host[k], logits) for k, logits in kinds.items()}
        for name, kinds in outputs.items()
        if name != "host"
    }
    truth = pd.DataFrame(rows).T
    return truth.assign(shifted=truth.drop(columns="images").mean(axis=1))


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
