"""BatchNorm that no longer changes, folded into the convolution before it.

In eval mode BatchNorm scales and shifts each channel by constants, which the weight of
the convolution it reads can do on the way: one pass over memory fewer, forward and
backward.
"""

import copy
from collections import Counter
from typing import cast

import torch
from torch import Tensor, nn


class _Folded(nn.Module):
    """A convolution that scales and shifts as the BatchNorm behind it would.

    The convolution's own weight stays the parameter, so that it trains as before.
    """

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.conv = conv
        mean, variance = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
        scale = (variance + norm.eps).rsqrt()
        if norm.affine:
            scale = scale * norm.weight.detach()
        shift = -mean * scale
        if norm.affine:
            shift = shift + norm.bias.detach()
        self.scale, self.shift = scale, shift

    def forward(self, x: Tensor) -> Tensor:
        weight = self.conv.weight * self.scale[:, None, None, None]
        shift = self.shift
        if self.conv.bias is not None:
            shift = shift + self.conv.bias * self.scale
        return self.conv._conv_forward(x, weight, shift)


def fold(body: nn.Module, images: Tensor) -> nn.Module:
    """A body in which every BatchNorm2d that alone reads a convolution is part of it.

    Args:
        body: In eval mode; its BatchNorm must not be trained. Not changed.
        images: `(N, C, H, W)` normalised, a few: they are shown to find who reads what,
            and to verify that the folded body answers as the body does.

    Returns:
        A body that shares the parameters of `body`: training one trains the other. It
        is `body` itself where nothing can be folded, or not rightly, as when a
        convolution's output is also read elsewhere.
    """
    pairs, expected = _pairs(body, images)
    if not pairs:
        return body
    shared = {id(t): t for t in (*body.parameters(), *body.buffers())}
    folded = copy.deepcopy(body, shared)
    for conv, norm in pairs:
        layer = _Folded(
            cast(nn.Conv2d, folded.get_submodule(conv)),
            cast(nn.BatchNorm2d, folded.get_submodule(norm)),
        )
        folded.set_submodule(conv, layer)
        folded.set_submodule(norm, nn.Identity())
    try:
        with torch.no_grad():
            error = (folded(images) - expected).abs().max()
    except AttributeError:  # a network may read what only the layer itself has
        return body
    return folded if error <= 1e-3 * expected.abs().max() else body


@torch.no_grad()
def _pairs(body: nn.Module, images: Tensor) -> tuple[list[tuple[str, str]], Tensor]:
    """Names of convolution and BatchNorm where one reads the other; the features."""
    made: dict[int, tuple[str, Tensor]] = {}  # the tensor, so that no id comes twice
    pairs: list[tuple[str, str]] = []
    calls: Counter[str] = Counter()

    def convolved(name: str):
        def hook(_module, _inputs, output: Tensor) -> None:
            made[id(output)] = name, output
            calls[name] += 1

        return hook

    def normalised(name: str):
        def hook(_module, inputs: tuple[Tensor, ...]) -> None:
            if id(inputs[0]) in made:
                pairs.append((made[id(inputs[0])][0], name))
            calls[name] += 1

        return hook

    hooks = []
    for name, module in body.named_modules():
        if isinstance(module, nn.Conv2d):
            hooks.append(module.register_forward_hook(convolved(name)))
        elif _is_fixed(module):
            hooks.append(module.register_forward_pre_hook(normalised(name)))
    try:
        features = body(images)
    finally:
        for hook in hooks:
            hook.remove()
    # A layer that is called twice may mean something else each time.
    readers = Counter(conv for conv, _ in pairs)
    once = [p for p in pairs if calls[p[0]] == calls[p[1]] == readers[p[0]] == 1]
    return once, features


def _is_fixed(module: nn.Module) -> bool:
    norm = isinstance(module, nn.BatchNorm2d)
    return norm and not module.training and module.running_mean is not None
