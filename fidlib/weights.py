"""Weights as a network uses them, whatever they are computed from.

A layer may compute its weight from others: by a parametrization, such as spectral
normalisation, or by a hook, such as the masks of `torch.nn.utils.prune`. Hooks are
turned into parametrizations or refused, for no copy is sure to keep them.
"""

import contextlib
import copy
from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrize import is_parametrized
from torch.nn.utils.prune import BasePruningMethod as Pruning

AROUND = (
    *(nn.DataParallel, nn.parallel.DistributedDataParallel),
    torch.optim.swa_utils.AveragedModel,
)
"""Wrappers that answer as what they are around, their child `module`."""


class Mask(nn.Module):
    """A parametrization: the weight that is kept, times what `mask` lets through."""

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.mask: Tensor
        self.register_buffer("mask", mask.detach().clone())

    def forward(self, weight: Tensor) -> Tensor:
        """The weight that is used, of the same shape."""
        return weight * self.mask


@contextlib.contextmanager
def at_rest(network: nn.Module) -> Iterator[None]:
    """In eval mode for a time; after it each module is in the mode that it was in."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def used(network: nn.Module) -> dict[str, Tensor]:
    """Parameters by name, with gradient, as the layers use them.

    Those of a parametrized layer are what it computes, under the name of the weight.
    """
    tensors: dict[str, Tensor] = {**dict(network.named_parameters())}
    for name, layer in network.named_modules():
        if is_parametrized(layer):
            computing = cast(nn.ModuleDict, layer.parametrizations)
            for part in computing:
                inside = f"{name}.parametrizations.{part}."
                tensors = {n: p for n, p in tensors.items() if not n.startswith(inside)}
                with at_rest(computing):
                    tensors[f"{name}.{part}"] = getattr(layer, part)
    return tensors


def stored(layer: nn.Linear | nn.Conv2d) -> nn.Parameter | None:
    """What a layer's weight is, or the parameter of its shape that it is computed from;
    None if there is none.
    """
    if not is_parametrized(layer, "weight"):
        return cast(nn.Parameter, layer.weight)
    computing = cast(nn.ModuleDict, layer.parametrizations)["weight"]
    shape = layer.weight.shape
    inside = cast(list[nn.Parameter], [*computing.parameters(recurse=False)])
    return next((p for p in inside if p.shape == shape), None)


def bare(network: nn.Module) -> nn.Module:
    """What DataParallel, AveragedModel, torch.compile or an EMA are wrapped around."""
    inside = dict(network.named_children())
    if len(inside) == 1:
        (name, child), kind = *inside.items(), type(network)
        silent = kind.forward is nn.Module.forward or "ema" in kind.__name__.lower()
        if name == "_orig_mod" or (
            name == "module" and (silent or isinstance(network, AROUND))
        ):
            return bare(child)
    return network


def settled(network: nn.Module) -> nn.Module:
    """A copy without wrappers and hooks; masks of pruning stay, as parametrizations.

    Raises:
        ValueError: If it has another hook, or cannot be copied.
    """
    network = bare(network)
    for name, layer in network.named_modules():
        hooks = (h for h in hooks_of(layer) if not isinstance(h, Pruning))
        if hook := next(hooks, None):
            raise ValueError(
                f"{name or 'the network'} ({type(layer).__name__}) has a hook "
                f"({getattr(hook, '__name__', type(hook).__name__)}), which no stored "
                "model keeps: remove it, or write what it does as a layer; weight_norm "
                "and spectral_norm are also in torch.nn.utils.parametrizations."
            )
    computed = {
        id(value): value.detach().clone()
        for layer in network.modules()
        for value in vars(layer).values()
        if isinstance(value, Tensor) and not value.is_leaf
    }
    try:
        network = copy.deepcopy(network, computed)
    except Exception as error:  # whatever a stranger's network holds
        raise ValueError(
            f"{type(network).__name__} cannot be copied "
            f"({' '.join(str(error).split())[:120]}): let it keep no tensor of the "
            "images it has seen, and nothing that is open."
        ) from error
    for layer in network.modules():
        for name, child in layer.named_children():
            layer._modules[name] = bare(child)
        _masked(layer)
    return network


def plain(network: nn.Module) -> nn.Module:
    """The network itself, or `settled` if it has a hook."""
    hooked = any(hooks_of(layer) for layer in network.modules())
    return settled(network) if hooked else network


def hooks_of(layer: nn.Module) -> list[object]:
    """What a layer calls besides its own text, on the way there or back."""
    kinds = ("_forward_pre_hooks", "_forward_hooks")
    kinds += ("_backward_pre_hooks", "_backward_hooks")
    hooks = [hook for kind in kinds for hook in getattr(layer, kind).values()]
    for parameter in layer.parameters(recurse=False):
        for kind in ("_backward_hooks", "_post_accumulate_grad_hooks"):
            hooks += (getattr(parameter, kind, None) or {}).values()
    return hooks


def _masked(layer: nn.Module) -> None:
    """Masks of `torch.nn.utils.prune`, which hooks apply, as parametrizations."""
    for key, hook in list(layer._forward_pre_hooks.items()):
        if isinstance(hook, Pruning):
            name = hook._tensor_name
            original = layer._parameters.pop(f"{name}_orig")
            mask = layer._buffers.pop(f"{name}_mask")
            assert mask is not None
            del layer._forward_pre_hooks[key], vars(layer)[name]
            layer.register_parameter(name, original)
            parametrize.register_parametrization(layer, name, Mask(mask))
