"""Models whose true functional change is known, to test the measures themselves.

Each function takes a classifier and gives a new one; the given is never changed.
`permuted`, `rotated`, `shifted` and `sheared` compute the same function with other
weights or features, up to float rounding; `noisy` and `flipped` another one with little
change of weights.
"""

import copy
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TypeGuard

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from fidlib.measures import losses
from fidlib.models import Classifier
from fidlib.networks import ResNet18
from fidlib.runs import machine

Layer = nn.Conv2d | nn.Linear
Norm = nn.BatchNorm1d | nn.BatchNorm2d

# What commutes with a permutation of the channels and with a positive factor on each.
_HOMOGENEOUS = (nn.ReLU, nn.Identity, nn.MaxPool2d, nn.AvgPool2d)
_HOMOGENEOUS_FUNCTIONS = (F.relu, torch.relu, F.max_pool2d, F.avg_pool2d)


@torch.no_grad()
def permuted(
    model: Classifier, generator: torch.Generator, *, scale: float = 10.0
) -> Classifier:
    """The same function with hidden channels in another order and at other scales.

    A channel that is multiplied by s > 0 before its ReLU, and divided by s after it,
    changes nothing, nor does its place among the others. TWL grows with `scale` beyond
    any bound; features and logits stay.

    Args:
        model: Any network that `torch.fx` can trace, with two convolutions, or two
            linear layers, in a row; a BatchNorm, ReLU and pooling may lie between.
        generator: On the CPU.
        scale: The factors are log-uniform between `1 / scale` and `scale`.

    Raises:
        ValueError: If the network has no such place, or `scale` is below 1.
    """
    if scale < 1:
        raise ValueError(f"scale is {scale}; it must be at least 1 (no rescaling).")
    model = copy.deepcopy(model)
    places = list(_hidden(model.body))
    if not places:
        raise ValueError(
            f"{type(model.body).__name__} has no hidden channels to permute: it needs "
            "two nn.Conv2d or two nn.Linear in a row, with at most BatchNorm, ReLU and "
            "pooling between."
        )
    for before, norm, after in places:
        width = len(before.weight)
        order = torch.randperm(width, generator=generator)
        factor = scale ** (2 * torch.rand(width, generator=generator) - 1)
        order, factor = order.to(before.weight.device), factor.to(before.weight)
        tensors = [before.weight, before.bias]
        if norm is not None:
            tensors += [norm.weight, norm.bias, norm.running_mean, norm.running_var]
        for tensor in tensors:
            if tensor is not None:
                tensor.copy_(tensor[order])
        scaled = before if norm is None else norm
        scaled.weight.mul_(_across(factor, scaled.weight, 0))
        if scaled.bias is not None:
            scaled.bias.mul_(factor)
        after.weight.copy_(after.weight[:, order] / _across(factor, after.weight, 1))
    return model


def rotated(model: Classifier, generator: torch.Generator) -> Classifier:
    """The same logits from features that a random orthogonal matrix turned.

    The head is turned back. Angles and distances among the features stay, their places
    do not: PFL is large.

    Args:
        model: Any classifier. ResNet18's last layer takes up the rotation; other
            networks get a linear layer more, so that their TWL is undefined.
        generator: On the CPU.
    """
    shape = (model.feature_dim, model.feature_dim)
    gauss = torch.randn(shape, generator=generator, dtype=torch.float64)
    turn, triangle = torch.linalg.qr(gauss)
    turn = turn * triangle.diagonal().sign()  # else not uniform over all rotations
    new = _mapped(model, turn)
    weight = model.head.weight.detach()
    new.head.weight.data.copy_(weight.double() @ turn.T.to(weight.device))
    return new


def shifted(model: Classifier, size: float, generator: torch.Generator) -> Classifier:
    """The same probabilities from features moved where the head does not look.

    All features move by one vector of the head's null space: PFL is `size ** 2`, SPL 0.
    Measures that centre the features do not see it; see `sheared`.

    Args:
        model: Any classifier with a null space; as for `rotated`.
        size: Length of the move.
        generator: On the CPU.

    Raises:
        ValueError: If the head has no null space.
    """
    move = size * _unseen_direction(model, generator)
    return _mapped(model, torch.eye(len(move)).double(), move)


def sheared(model: Classifier, size: float, generator: torch.Generator) -> Classifier:
    """The same probabilities from features stretched where the head does not look.

    Along one vector of the head's null space every image moves by a random linear
    function of its features: their distances change, and every measure that looks at
    features alone says so.

    Args:
        model: Any classifier with a null space; as for `rotated`.
        size: Length of the moves, about so many times that of the features.
        generator: On the CPU.

    Raises:
        ValueError: If the head has no null space.
    """
    move = size * _unseen_direction(model, generator)
    slope = torch.randn(len(move), generator=generator, dtype=torch.float64)
    return _mapped(model, torch.eye(len(move)).double() + move.outer(slope))


def same_function(
    model: Classifier,
    generator: torch.Generator,
    *,
    factors: Iterable[float],
    sizes: Iterable[float],
    shears: Iterable[float],
) -> dict[str, Classifier]:
    """Models that differ from one in everything but the probabilities, by name.

    Args:
        model: As for `permuted` and `rotated`.
        generator: On the CPU.
        factors: Of `permuted`.
        sizes: Of `shifted`.
        shears: Of `sheared`.
    """
    twins = {f"permuted, x {f:g}": permuted(model, generator, scale=f) for f in factors}
    twins["rotated"] = rotated(model, generator)
    twins |= {f"shifted by {s:g}": shifted(model, s, generator) for s in sizes}
    return twins | {f"sheared by {s:g}": sheared(model, s, generator) for s in shears}


@torch.no_grad()
def noisy(model: Classifier, amount: float, generator: torch.Generator) -> Classifier:
    """Another function: Gaussian noise on every parameter.

    Args:
        model: Any classifier.
        amount: Standard deviation of the noise, in units of each tensor's own root mean
            square. With equal generators, TWL grows with its square.
        generator: On the CPU.
    """
    model = copy.deepcopy(model)
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=generator).to(parameter)
        parameter.add_(amount * parameter.square().mean().sqrt() * noise)
    return model


@machine.ieee()
def flipped(
    model: Classifier,
    images: Tensor,
    share: float,
    *,
    step: float = 2e-4,
    steps: int = 300,
) -> Classifier:
    """Another function by a weight change as small as a gradient finds.

    Steepest descent, in eval mode, on the margins of the images that are nearest to
    another answer, until `share` of all have one.

    Args:
        model: Any classifier.
        images: `(N, C, H, W)` pixels, a few hundred: they are run at once, and no
            label is used.
        share: Fraction of images whose answer is to change, in (0, 1].
        step: Length of a step, relative to the norm of all parameters.
        steps: Steps at most.

    Raises:
        ValueError: If `share` is no such fraction, or the budget does not suffice.
    """
    if not 0 < share <= 1:
        raise ValueError(
            f"share is {share}; it is a fraction of the images, in (0, 1]."
        )
    model = copy.deepcopy(model).eval()
    parameters = [p.requires_grad_() for p in model.parameters()]
    with torch.no_grad():
        answers = model(images).argmax(1)
        length = step * _norm(parameters)
    reached = 0.0
    for _ in range(steps):
        with torch.no_grad():
            margins = losses.margins(model(images), answers)
        reached = (margins < 0).double().mean().item()
        if reached >= share:
            return model
        nearest = margins.argsort()[: math.ceil(share * len(images))]
        left = losses.margins(model(images[nearest]), answers[nearest]).relu().sum()
        gradients = torch.autograd.grad(left, parameters)
        with torch.no_grad():
            scale = length / _norm(gradients)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.sub_(scale * gradient)
    raise ValueError(
        f"{steps} steps changed {reached:.1%} of the answers, {share:.1%} were asked "
        "for: raise steps, or step."
    )


def null_space(head: nn.Linear) -> Tensor:
    """Directions of feature space that change no probability.

    Those in which all logits grow alike, as softmax does not see: the null space of the
    prototypes about their mean. At most K - 1 of the D directions are not in it.

    Args:
        head: D features to K logits.

    Returns:
        `(D, M)` float64 orthonormal columns; M may be 0.
    """
    weight = head.weight.detach().double().cpu()
    centred = weight - weight.mean(0)
    rank = int(torch.linalg.matrix_rank(centred))
    return torch.linalg.svd(centred).Vh[rank:].T


def _hidden(body: nn.Module) -> Iterator[tuple[Layer, Norm | None, Layer]]:
    """Two layers in a row, with the BatchNorm between if there is one."""
    try:
        nodes = list(fx.symbolic_trace(body).graph.nodes)
    except Exception as error:  # whatever the network's own code raises on a proxy
        raise ValueError(
            f"{type(body).__name__} cannot be traced by torch.fx "
            f"({str(error).splitlines()[0]}): its forward must not branch on its input."
        ) from error
    calls = Counter(n.target for n in nodes if n.op == "call_module")
    modules = {n: body.get_submodule(n.target) for n in nodes if n.target in calls}
    for node, module in list(modules.items()):
        if calls[node.target] > 1 and not isinstance(module, _HOMOGENEOUS):
            del modules[node]  # its weights have more than one place
    for node in nodes:
        before, norm = modules.get(node), None
        while _is_layer(before) and len(node.users) == 1:
            node = next(iter(node.users))
            layer = modules.get(node)
            if _is_layer(layer) and type(layer) is type(before):
                yield before, norm, layer
                break
            if isinstance(layer, Norm) and layer.affine and norm is None:
                norm = layer
            elif not (
                isinstance(layer, _HOMOGENEOUS) or node.target in _HOMOGENEOUS_FUNCTIONS
            ):
                break


def _is_layer(module: nn.Module | None) -> TypeGuard[Layer]:
    grouped = isinstance(module, nn.Conv2d) and module.groups > 1
    return isinstance(module, Layer) and not grouped


def _across(factor: Tensor, weight: Tensor, dim: int) -> Tensor:
    """`(C,)` factors, shaped to multiply `weight` along `dim`."""
    return factor.view([-1 if d == dim else 1 for d in range(weight.ndim)])


def _mapped(
    model: Classifier, matrix: Tensor, offset: Tensor | None = None
) -> Classifier:
    """A copy whose features are `matrix @ features + offset`."""
    model = copy.deepcopy(model)
    if isinstance(model.body, ResNet18):
        last = model.body.fc
    else:
        last = nn.Linear(model.feature_dim, model.feature_dim).to(model.head.weight)
        nn.init.eye_(last.weight)
        nn.init.zeros_(last.bias)
        model.body = nn.Sequential(model.body, last)
        model.spec = None  # no longer what `build` makes
    weight, bias = (p.detach().double().cpu() for p in last.parameters())
    last.weight.data.copy_(matrix @ weight)
    last.bias.data.copy_(matrix @ bias + (0 if offset is None else offset))
    return model


def _unseen_direction(model: Classifier, generator: torch.Generator) -> Tensor:
    """A random unit vector `(D,)` of the head's null space."""
    free = null_space(model.head)
    if not free.shape[1]:
        raise ValueError(
            f"the head sees all D = {model.feature_dim} directions of its features, "
            f"for K = {model.num_classes} classes: a null space needs D >= K."
        )
    weights = torch.randn(free.shape[1], generator=generator, dtype=torch.float64)
    return F.normalize(free @ weights, dim=0)


def _norm(tensors: Iterable[Tensor]) -> Tensor:
    return torch.stack([t.norm() for t in tensors]).norm()
