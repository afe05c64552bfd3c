"""A stranger's network, tried before it is trusted: its head, body, layout, channels.

It is run at rest and in training, on two batches in two orders, in the memory layout
that training will use; head and body are compared with the whole. Each thing that it
fails is one sentence.
"""

import contextlib
import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from numbers import Integral
from typing import Any, NamedTuple, TypeGuard, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fidlib.weights import settled

LAYOUTS = (torch.channels_last, torch.contiguous_format)
"""Memory formats, the faster one in training first."""


Values = float | Sequence[float] | Tensor
"""A value, or one for each channel."""


class Parts(NamedTuple):
    """A network in two."""

    body: nn.Module
    """Normalised images `(N, C, H, W)` to features `(N, D)`."""
    head: nn.Linear
    """Features to logits `(N, K)`."""
    place: str
    """Where in the body the head was."""
    channels: int
    """C, the colours of an image."""
    layout: torch.memory_format
    """Memory layout of its weights and images in training."""


class Call(NamedTuple):
    """A layer that was called."""

    name: str
    """Its place in the network."""
    layer: nn.Module
    """The layer itself."""
    given: object
    """The first argument of the call."""
    answer: object
    """What the call returned."""


class Logits(nn.Module):
    """A network that returns an object or a dict with `logits`, as these alone."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Logits `(N, K)` of normalised images `(N, C, H, W)`."""
        output = self.network(images)
        return output["logits"] if isinstance(output, Mapping) else output.logits


def take_apart(
    network: nn.Module, channels: Iterable[int], size: tuple[int, int]
) -> Parts:
    """The head and the body of a network, which is not changed, in eval mode.

    Args:
        network: Takes normalised images, returns logits.
        channels: C of its images; of several, the first that it takes.
        size: Height and width of its images, pixels.

    Raises:
        ValueError: If it cannot be taken apart, or does not keep what it must.
    """
    _check(network)
    # Whatever somebody switched at the top of a notebook is not of the network.
    with torch.inference_mode(False), torch.random.fork_rng(devices=[]):
        whole = settled(network).eval().requires_grad_(True)
        torch.manual_seed(0)
        return _taken_apart(whole, channels, size)


@torch.no_grad()
def _taken_apart(
    whole: nn.Module, channels: Iterable[int], size: tuple[int, int]
) -> Parts:
    images, answer = _answered(whole, channels, size)
    if not isinstance(answer, Tensor):
        whole = Logits(whole)
        answer = _logits(whole, images, answer)
    place, given = _head(whole, images, answer)
    body, head = _split(whole, place)
    layout = _layout(body, head, images, given, answer)
    with torch.enable_grad():
        _train(body, head, images.to(memory_format=layout))
    return Parts(body, head, place, images.shape[1], layout)


def _check(network: nn.Module) -> None:
    name = type(network).__name__
    if isinstance(network, Mapping):
        raise ValueError(
            "a state dict holds weights and no network: build the network, and read "
            "them by fidlib.models.load(path, like=network)."
        )
    if not isinstance(network, nn.Module):
        raise ValueError(f"a {name} is no network: pass a torch.nn.Module.")
    if isinstance(network, torch.jit.ScriptModule):
        raise ValueError(
            f"{name} is TorchScript, which cannot be taken apart: pass the network "
            "that it was made of."
        )
    for parameter in network.parameters():
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise ValueError(
                f"{name} has a lazy layer: run it once on images before it is wrapped."
            )
        if parameter.dtype != torch.float32:
            raise ValueError(
                f"the weights of {name} are {parameter.dtype}; fidlib trains from "
                "float32: pass network.float()."
            )
    if not any(isinstance(m, nn.Linear) for n, m in network.named_modules() if n):
        raise ValueError(
            f"{name} has no linear layer inside; fidlib needs a network that ends in "
            "nn.Linear, whose inputs are the features: write a 1 x 1 convolution of "
            "pooled features as nn.Flatten() and nn.Linear."
        )


def _answered(
    network: nn.Module, channels: Iterable[int], size: tuple[int, int]
) -> tuple[Tensor, Any]:
    """Three images that it takes, normalised ones, and what it answers."""
    failed: ValueError | None = None
    for count in dict.fromkeys(channels):
        images = _images(network, count, size)
        try:
            return images, network(images.clone())  # some change what they are given
        except Exception as error:  # whatever a stranger's network raises
            failed = failed or ValueError(
                f"{_name(network)} could not be run on images of shape "
                f"{tuple(images.shape)} ({_reason(error)}): pass image_size=, the side "
                "or the (height, width) of the images it takes, and channels=, if "
                f"these have not {count}."
            )
            failed.__cause__ = failed.__cause__ or error
    assert failed is not None
    raise failed


def _images(network: nn.Module, channels: int, size: tuple[int, int]) -> Tensor:
    """`(3, C, H, W)`, each of a contrast of its own, that of the middle the highest."""
    device = next(network.parameters()).device
    shape, kind = (3, channels, *size), {"dtype": torch.float32, "device": "cpu"}
    contrast = torch.tensor([0.4, 1.0, 0.7], **kind)[:, None, None, None]
    return (contrast * (2 * torch.rand(shape, **kind) - 1)).to(device)


def _logits(network: nn.Module, images: Tensor, output: object) -> Tensor:
    with contextlib.suppress(Exception):
        if isinstance(answer := network(images.clone()), Tensor):
            return answer
    parts = f" of {', '.join(map(str, output))}" if isinstance(output, Mapping) else ""
    raise ValueError(
        f"{_name(network)} returns a {type(output).__name__}{parts}; fidlib takes "
        "logits (N, K), alone or as .logits: wrap a module whose forward returns them."
    )


def _head(network: nn.Module, images: Tensor, answer: Tensor) -> tuple[str, Tensor]:
    """The name of the linear layer that gave the answer, and what it was given."""
    ran: list[Call] = []
    leaves = {n: m for n, m in network.named_modules() if not [*m.children()]}
    linear = {n: m for n, m in network.named_modules() if isinstance(m, nn.Linear)}
    with _noted(leaves | linear, ran):
        again = network(images.clone())
    if not _near(again, answer, answer):
        raise ValueError(_varies(network))
    name = _name(network)
    gave = [(n, into) for n, _, into, out in ran if n in linear and _same(out, again)]
    if gave and (answer.ndim != 2 or len(answer) != len(images)):
        raise ValueError(
            f"{name} answers three images with {tuple(answer.shape)}; it must give "
            "(N, K) logits, a row for each image."
        )
    if gave:
        return cast(tuple[str, Tensor], gave[-1])
    last = max((i for i, (n, *_) in enumerate(ran) if n in linear), default=None)
    if last is None:
        raise ValueError(
            f"no nn.Linear of {name} is called in its forward; fidlib needs a network "
            "that ends in one: its inputs are the features."
        )
    heads = {n: out for n, *_, out in ran if n in linear and _is_shaped(out, answer)}
    if len(heads) > 1 and _near(torch.stack([*heads.values()]).mean(0), answer, answer):
        raise ValueError(
            f"{name} answers by the mean of {len(heads)} heads, {', '.join(heads)}; "
            "fidlib needs one: let its forward return what one of them gives."
        )
    after = [f"{n} ({type(m).__name__})" for n, m, *_ in ran[last + 1 :]]
    follows = after[-1] if after else "something in its forward"
    raise ValueError(
        f"the last layer of {name} is not linear: {follows} follows its last "
        f"nn.Linear, {ran[last][0]}; remove what follows it (e.g. a softmax), or let "
        "it end in nn.Linear."
    )


def _split(network: nn.Module, place: str) -> tuple[nn.Module, nn.Linear]:
    """A copy that ends before its head, wherever that is entered, and the head."""
    body = copy.deepcopy(network)
    head = body.get_submodule(place)
    assert isinstance(head, nn.Linear)
    for layer in body.modules():
        for name, child in layer.named_children():
            if child is head:
                setattr(layer, name, nn.Identity())
    if {*head.parameters()} & {*body.parameters()}:
        raise ValueError(
            f"the head of {_name(network)}, {place}, shares its weight with another "
            "layer, so that no training can leave one of them as it is: give it a "
            "weight of its own."
        )
    return body, head


def _layout(
    body: nn.Module, head: nn.Linear, images: Tensor, given: Tensor, answer: Tensor
) -> torch.memory_format:
    """The first layout in which head and body, on other batches, are the network.

    Args:
        body: Is left in that layout.
        head: Of the network.
        images: Three of them.
        given: What the head was given of these.
        answer: What the network answered.
    """
    other = [2, 0]
    for layout in LAYOUTS[any(map(_crashes, body.modules())) :]:
        # What cannot be run in this layout may be in the next.
        with contextlib.suppress(Exception):
            body.to(memory_format=layout)  # pyright: ignore
            features = body(images[other].to(memory_format=layout))
            logits = F.linear(features, head.weight, head.bias)
            same = _near(features, given[other], given)
            if features.ndim == 2 and same and _near(logits, answer[other], answer):
                return layout
    raise ValueError(_unlike(body, head, images, other))


def _crashes(layer: nn.Module) -> bool:
    """Whether PyTorch 2.14 ends the process, on a CPU, when the layer is trained
    channels last: a strided convolution of 1 x 1 pixels on few channels.
    """
    return (
        isinstance(layer, nn.Conv2d)
        and layer.in_channels < 8
        and layer.kernel_size == (1, 1)
        and layer.stride != (1, 1)
    )


def _unlike(body: nn.Module, head: nn.Linear, images: Tensor, other: list[int]) -> str:
    """Why head and body are not what the network was."""
    name = _name(body)
    try:
        shown = (images.clone(), images.clone(), images[other])
        features, again, fewer = map(body, shown)
    except Exception as error:
        return (
            f"{name} cannot be run without its head ({_reason(error)}): let its "
            "forward call the head, and ask nothing else of it."
        )
    if not isinstance(features, Tensor) or features.ndim != 2:
        return (
            f"what the head of {name} is given is no (N, D) features: pool or flatten "
            "before its last nn.Linear."
        )
    if not _near(again, features, features):
        return _varies(body)
    if not _near(fewer, features[other], features):
        return (
            f"the answers of {name} to an image depend on the other images of its "
            "batch, also in eval mode: use BatchNorm with track_running_stats=True, "
            "and mix nothing along the first axis."
        )
    return (
        f"the last layer of {name} is not linear: its head ({type(head).__name__}) on "
        "its features does not give the network's output; remove what changes that, "
        "and call a plain nn.Linear once."
    )


def _train(body: nn.Module, head: nn.Linear, images: Tensor) -> None:
    """Raise unless a training step of a copy goes as it should, at rest as well, as
    models are trained from a host.
    """
    body, head = copy.deepcopy((body, head))
    name = _name(body)
    try:
        features = body.train()(images.clone())
    except Exception as error:
        raise ValueError(
            f"{name} cannot be run in training mode ({_reason(error)}): mend its "
            "forward for self.training."
        ) from error
    if not isinstance(features, Tensor) or features.shape[1:] != (head.in_features,):
        raise ValueError(
            f"in training mode {name} returns a {type(features).__name__} that is not "
            "its logits: build it without further heads (such as aux_logits=False)."
        )
    _learn(body, head, features, images)
    _at_rest(body, images)  # whatever it keeps of it
    _learn(body, head, body(images.clone()), images)
    try:
        copy.deepcopy(body)
    except Exception as error:
        raise ValueError(
            f"{name} cannot be copied once it has been run: let it keep no tensor of "
            "the images that it has seen."
        ) from error


def _learn(body: nn.Module, head: nn.Linear, features: Tensor, images: Tensor) -> None:
    """Raise unless a gradient reaches every weight on which the features rest; some
    networks call a layer for an answer of another kind, as CLIP's.
    """
    name, at_rest = _name(body), "" if body.training else " in eval mode"
    body.zero_grad()
    try:
        head(features).square().mean().backward()
    except Exception as error:
        raise ValueError(
            f"{name} cannot be trained ({_reason(error)}): let its forward compute "
            "with gradients, and change no tensor in place that they need."
        ) from error
    left = {n: p for n, p in body.named_parameters() if p.grad is None}
    if left and _count(body, left.values(), images):
        alone = (n for n, p in left.items() if _count(body, [p], images))
        place = next(alone, next(iter(left)))  # or all together make the difference
        raise ValueError(
            f"no gradient reaches {place} of {name}{at_rest}, so it would never be "
            "trained: remove no_grad, detach and the like from its forward, and keep "
            "nothing that was computed of weights."
        )


@torch.no_grad()
def _count(body: nn.Module, weights: Iterable[nn.Parameter], images: Tensor) -> bool:
    """Whether the features rest on weights, which are changed to see."""
    weights = list(weights)
    before, kept = _at_rest(body, images), [weight.clone() for weight in weights]
    for n, weight in enumerate(weights):
        draw = torch.Generator().manual_seed(n)  # a common step might cancel
        weight += 1 + torch.rand(weight.shape, generator=draw).to(weight)
    changed = not torch.equal(_at_rest(body, images), before)
    for weight, value in zip(weights, kept, strict=True):
        weight.copy_(value)
    return changed


@torch.no_grad()
def _at_rest(body: nn.Module, images: Tensor) -> Tensor:
    """Features in eval mode, as newly entered: some keep what weights give there."""
    return body.train().eval()(images.clone())


@contextlib.contextmanager
def _noted(layers: Mapping[str, nn.Module], ran: list[Call]) -> Iterator[None]:
    """Append what is called; of a layer that is called twice, both calls."""

    def note(name: str, layer: nn.Module, inputs: tuple, output: object) -> None:
        ran.append(Call(name, layer, next(iter(inputs), None), output))

    hooks = [m.register_forward_hook(partial(note, n)) for n, m in layers.items()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _same(output: object, answer: Tensor) -> bool:
    return _is_shaped(output, answer) and torch.equal(output, answer)


def _is_shaped(output: object, answer: Tensor) -> TypeGuard[Tensor]:
    return isinstance(output, Tensor) and output.shape == answer.shape


def _near(output: Tensor, expected: Tensor, answer: Tensor) -> bool:
    # Beside the largest: rounding in a deep body is of that one's size.
    near = 1e-4 * float(answer.abs().max())
    return output.shape == expected.shape and torch.allclose(
        output, expected, rtol=0, atol=near
    )


def _varies(network: nn.Module) -> str:
    return (
        f"the answers of {_name(network)} differ from run to run, also in eval mode: "
        "call dropout and noise with training=self.training."
    )


def _name(network: nn.Module) -> str:
    inside = network.network if isinstance(network, Logits) else network
    return type(inside).__name__


def _reason(error: Exception) -> str:
    """The first line of what PyTorch says, short."""
    text = " ".join((str(error) or type(error).__name__).splitlines()[:1])
    return text[:160]


def sides(size: int | Sequence[int]) -> tuple[int, int]:
    """Height and width of an image, in pixels."""
    pair = tuple(size) if isinstance(size, Sequence) else (size, size)
    if len(pair) != 2 or not all(isinstance(n, Integral) and n > 0 for n in pair):
        raise ValueError(
            f"image_size is {size!r}; pass the side of the images in pixels, or "
            "(height, width)."
        )
    return int(pair[0]), int(pair[1])


def positive(name: str, number: int) -> int:
    """A whole number, also of NumPy's, from 1 on."""
    if not isinstance(number, Integral) or number < 1:
        raise ValueError(f"{name} is {number!r}; pass a whole number, 1 or more.")
    return int(number)


def vector(name: str, values: Values) -> Tensor:
    """One or more numbers, `(C,)` float32."""
    try:
        value = torch.as_tensor(values, dtype=torch.float32, device="cpu").flatten()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{name} is {values!r}; pass a number, or one for each channel."
        ) from error
    if not value.isfinite().all():
        raise ValueError(f"{name} is {values!r}; every value must be finite.")
    return value
