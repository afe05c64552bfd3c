"""Weight updates that leave what a network does to its own data nearly unchanged.

A layer's output moves by `dW x`. Where its inputs x on the host's images have little
energy, dW may be large and the images do not notice: such directions are quiet. Null
space training uses them against forgetting (Wang et al., "Training networks in null
space of feature covariance for continual learning", CVPR 2021); here they hide a
watermark from the host's features.
"""

from collections.abc import Iterable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fidlib.models import Classifier
from fidlib.runs import machine
from fidlib.weights import stored

IMAGES = 500
"""A layer's input energy is measured on so many images, spread evenly over the set."""


class QuietAdam(torch.optim.Adam):
    """Adam on V in `W = W_host + V P`, where P passes quiet directions and damps loud.

    Adam's own scaling of each weight would turn a projected gradient out of the quiet
    directions; scaling V, and projecting after, cannot.

    Args:
        parameters: What is trained; those without a projection move freely.
        lr: Learning rate.
        projections: Weight -> `(I, I)` symmetric P over its I inputs.
        precision: Type to project in; in float32 these products would take about as
            long as a small network's own step.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        projections: Mapping[nn.Parameter, Tensor],
        precision: torch.dtype = torch.float32,
    ) -> None:
        parameters = list(parameters)
        # V as matrices: the fused kernel wants a gradient laid out as its parameter is,
        # which a convolution's weight, channels last, is not.
        self.moves = [
            (weight, weight.detach().clone(), torch.zeros_like(weight.flatten(1)))
            for weight in parameters
            if weight in projections
        ]
        self.projections = {w: p.to(precision) for w, p in projections.items()}
        free = [p for p in parameters if p not in projections]
        moved = [*free, *(move for *_, move in self.moves)]
        super().__init__(moved, lr, fused=True, capturable=parameters[0].is_cuda)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients, of the weights too."""
        super().zero_grad(set_to_none)
        for weight, *_ in self.moves:
            weight.grad = None

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One step of Adam on V, then the weights follow."""
        for weight, _, move in self.moves:
            if weight.grad is not None:
                move.grad = self._projected(weight.grad.flatten(1), weight)
        super().step(closure)
        for weight, host, move in self.moves:
            weight.copy_(host + self._projected(move, weight).view_as(weight))

    def state_dict(self) -> dict[str, Any]:
        """As Adam's, with V, of which the weights do not tell."""
        return super().state_dict() | {"moves": [move for *_, move in self.moves]}

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a `state_dict`; the weights are the model's to restore."""
        super().load_state_dict(state_dict)
        for (*_, move), value in zip(self.moves, state_dict["moves"], strict=True):
            move.copy_(value)

    def _projected(self, matrix: Tensor, weight: nn.Parameter) -> Tensor:
        projection = self.projections[weight]
        return (matrix.to(projection.dtype) @ projection).to(matrix.dtype)


@machine.ieee()
def projections(
    model: Classifier, images: Tensor, loudness: float
) -> dict[nn.Parameter, Tensor]:
    """For each trained convolution and linear layer of the body, where it may move.

    With C the second moments of the layer's inputs on `images`, e its mean eigenvalue
    and l = `loudness`, the projection is `(l e)^1/2 (C + l e)^-1/2`: 1 in a direction
    of no energy, falling to 0 in the loudest.

    Args:
        model: The host, or what starts from it.
        images: `(N, C, H, W)` pixels of its training set.
        loudness: Energy, in mean eigenvalues, that halves the square of a move.

    Returns:
        Weight -> `(I, I)`; of a weight that is computed, what it is computed from, if
        it has its shape. Grouped convolutions, whose groups see different inputs, are
        left out, and so move freely.
    """
    moments: dict[nn.Parameter, Tensor] = {}

    def add(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, nn.Linear | nn.Conv2d)
        rows = _rows(layer, inputs[0])
        weight = cast(nn.Parameter, stored(layer))
        moments[weight] = moments.get(weight, 0) + rows.T @ rows

    hooks = [
        layer.register_forward_pre_hook(add)
        for layer in model.body.modules()
        if isinstance(layer, nn.Linear)
        or (isinstance(layer, nn.Conv2d) and layer.groups == 1)
        if (weight := stored(layer)) is not None and weight.requires_grad
    ]
    try:
        with torch.no_grad():
            for part in images[:: -(-len(images) // IMAGES)].split(50):
                model.features(part)
    finally:
        for hook in hooks:
            hook.remove()
    return {w: _passing(moment, loudness) for w, moment in moments.items()}


def _rows(layer: nn.Linear | nn.Conv2d, x: Tensor) -> Tensor:
    """What each row of a layer's weight is multiplied with, `(M, I)`."""
    if isinstance(layer, nn.Conv2d):
        # Unfold takes no padding by name; the layer knows it as numbers.
        mode = layer.padding_mode.replace("zeros", "constant")
        x = F.pad(x, layer._reversed_padding_repeated_twice, mode=mode)
        x = F.unfold(x, layer.kernel_size, layer.dilation, 0, layer.stride)
        x = x.transpose(1, 2)
    return x.reshape(-1, x.shape[-1])


def _passing(moment: Tensor, loudness: float) -> Tensor:
    alive = moment.diagonal() > 0  # with many dead inputs eigh may end in NaN
    energy, directions = torch.zeros_like(moment[0]), torch.eye(len(moment)).to(moment)
    spectrum = torch.linalg.eigh(moment[alive][:, alive])
    energy[alive] = spectrum.eigenvalues.clamp_min(0)
    directions[alive.nonzero(), alive.nonzero().T] = spectrum.eigenvectors
    floor = (loudness * energy.mean()).clamp_min(1e-12)  # an input may be dead
    return directions * (floor / (energy + floor)).sqrt() @ directions.T
