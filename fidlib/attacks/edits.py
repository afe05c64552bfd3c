"""Attacks on the weights alone: nothing is learned."""

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from fidlib.data import Split
from fidlib.measures import controls
from fidlib.models import Classifier
from fidlib.runs.keys import stream
from fidlib.training.quiet import projections


def prune(model: Classifier, split: Split, seed: int, share: float = 0.5) -> Classifier:
    """The smallest weights of all convolutions and linear layers set to 0, untrained.

    By size over the whole network (global L1 pruning); of equal ones the first go.

    Args:
        model: Not changed.
        split: Not looked at.
        seed: Decides nothing.
        share: Of the weights, in [0, 1).
    """
    model, weights = _edited(model)
    sizes = torch.cat([weight.detach().abs().flatten() for weight in weights])
    kept = torch.ones_like(sizes)
    kept[sizes.argsort(stable=True)[: round(share * len(sizes))]] = 0
    parts = kept.split([weight.numel() for weight in weights])
    with torch.no_grad():
        for weight, part in zip(weights, parts, strict=True):
            weight.mul_(part.view_as(weight))
    return model


@torch.no_grad()
def quantise(model: Classifier, split: Split, seed: int, bits: int = 4) -> Classifier:
    """Every weight at the nearest of `2 ** bits - 1` equal steps about 0.

    As far as the largest of its tensor, for each convolution and linear layer.

    Args:
        model: Not changed.
        split: Not looked at.
        seed: Decides nothing.
        bits: Of a weight, its sign among them; two or more.
    """
    model, weights = _edited(model)
    for weight in weights:
        step = weight.abs().max() / (2 ** (bits - 1) - 1)
        if step > 0:
            weight.copy_((weight / step).round() * step)
    return model


@torch.no_grad()
def weight_noise(
    model: Classifier, split: Split, seed: int, amount: float = 0.1
) -> Classifier:
    """Gaussian noise on every weight of the convolutions and linear layers.

    Args:
        model: Not changed.
        split: Not looked at.
        seed: Decides the noise.
        amount: Its standard deviation, in those of the tensor that it is added to;
            to a tensor of one weight none is added.
    """
    model, weights = _edited(model)
    generator = stream(seed, "weight noise")
    for weight in weights:
        weight.add_(amount * _deviation(weight) * _noise(weight, generator))
    return model


def quiet_noise(
    model: Classifier,
    split: Split,
    seed: int,
    amount: float = 1.0,
    loudness: float = 0.1,
) -> Classifier:
    """Noise where the attacker's own images have little energy in a layer's inputs.

    His images hardly notice, and a watermark that was hidden there drowns. Of the body:
    see `training.quiet.projections`.

    Args:
        model: Not changed.
        split: The attacker's images; labels are not looked at.
        seed: Decides the noise.
        amount: As in `weight_noise`, before it is projected.
        loudness: Energy, in means over a layer's inputs, that halves the noise's.
    """
    model, _ = _edited(model)
    generator = stream(seed, "quiet noise")
    places = projections(model.requires_grad_(True), split.images, loudness)
    with torch.no_grad():
        for weight, passing in places.items():
            move = _noise(weight, generator).flatten(1) @ passing
            weight.add_(amount * _deviation(weight) * move.view_as(weight))
    return model


def flip(model: Classifier, split: Split, seed: int, share: float = 0.05) -> Classifier:
    """A share of the answers changed by a weight change as small as a gradient finds.

    No removal, but a control: see `measures.controls.flipped`.

    Args:
        model: Not changed.
        split: 300 of the attacker's images, whose labels are not looked at.
        seed: Decides nothing.
        share: Of the answers to these images, in (0, 1].

    Raises:
        ValueError: If `share` cannot be reached.
    """
    return controls.flipped(model, split.sample(300).images, share)


def _edited(model: Classifier) -> tuple[Classifier, list[nn.Parameter]]:
    """A copy, in eval mode, and the weights of its convolutions and linear layers."""
    model = copy.deepcopy(model).eval()
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    if odd := [type(layer).__name__ for layer in layers if is_parametrized(layer)]:
        raise ValueError(
            f"a weight of {odd[0]} is computed from others (a parametrization), which "
            "would undo what is done to it: remove it first."
        )
    weights = {id(layer.weight): layer.weight for layer in layers}  # each once
    return model, [*weights.values()]  # pyright: ignore


def _deviation(weight: Tensor) -> Tensor:
    """Of a tensor's weights; of a single one none."""
    return weight.std() if weight.numel() > 1 else torch.zeros_like(weight).sum()


def _noise(weight: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(weight.shape, generator=generator).to(weight)
