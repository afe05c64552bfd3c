"""Random starts: a network's weights drawn as building it anew would draw them."""

import inspect
import re

from torch import nn
from torch.nn.utils.parametrize import is_parametrized

_DRAWING = re.compile(
    r"weight|\.bias\b|parameters|modules\(|apply\(|\binit\b|\.data\b|[a-z]_\(|\(self\)"
    r"|(?<![.\w])(?!range|len|int|super)[a-z_]\w*\(self\b"
)
"""What the text of a class has that reaches for the weights of the layers it holds."""


def drawn_anew(network: nn.Module) -> None:
    """Draw each layer's weights, and after them what the modules that hold layers draw.

    Raises:
        ValueError: If a module draws weights in a way that it does not say by
            `reset_parameters()`, or its class may do so when it is built.
    """
    named = [*network.named_modules()]
    layers = [(name, module) for name, module in named if not [*module.children()]]
    holders = [(name, module) for name, module in named if [*module.children()]]
    for name, module in [*layers, *holders[::-1]]:
        reset = getattr(module, "reset_parameters", None)
        reset = reset or getattr(module, "_reset_parameters", None)
        own = [*module.parameters(recurse=False)]
        silent = reset is None and (own or _reaches_weights(module))
        if is_parametrized(module) or silent:
            raise ValueError(
                f"{name or 'the network'} ({type(module).__name__}) has no "
                "reset_parameters() that says how its weights are drawn, so the "
                "network cannot start at random: add a function that builds it to "
                "fidlib.NETWORKS, and make it by fidlib.models.build."
            )
        if reset is not None:
            reset()


def _reaches_weights(module: nn.Module) -> bool:
    """Whether building a module that holds layers may change their weights."""
    if not [*module.parameters()]:
        return False
    kinds = [k for k in type(module).__mro__ if issubclass(k, nn.Module)]
    own = [k for k in kinds if not k.__module__.startswith(("torch.nn.", "fidlib."))]
    methods = [
        method
        for kind in own
        for name, method in vars(kind).items()
        if inspect.isfunction(method) and name != "forward"
    ]
    try:
        texts = [inspect.getsource(method) for method in methods]
    except (OSError, TypeError):
        return True  # who knows
    calls = (re.sub(r"def \w+\(self\b", "", text) for text in texts)
    return any(_DRAWING.search(text) for text in calls)
