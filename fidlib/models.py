"""Classifiers: `features` and a linear `head`, from any network that ends in one.

They are built by name or wrapped, run on images, saved and read back.
"""

import contextlib
import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from fidlib.data import NORMALISATION
from fidlib.networks import NETWORKS, ResNet18, find
from fidlib.runs import keys
from fidlib.runs.store import written


class Classifier(nn.Module):
    """A network whose penultimate features and head are part of its interface.

    It takes pixels, uint8 or float in [0, 1], normalises them itself and repeats grey
    images to the channels its network wants.

    Args:
        body: Normalised images `(N, C, H, W)` to features `(N, D)`.
        head: Features to logits `(N, K)`; its weight's rows are the prototypes.
        mean: Channel means of pixels in [0, 1], one or C of them.
        std: Channel standard deviations, likewise.
        channels: C, the channels `body` wants.
        spec: How `build` made it, so that `load` can make it again; None if wrapped.
    """

    def __init__(
        self,
        body: nn.Module,
        head: nn.Linear,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        channels: int = 3,
        spec: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        self.body = body
        self.head = head
        self.channels = channels
        self.spec = spec
        for name, values in (("mean", mean), ("std", std)):
            if len(values) not in (1, channels):
                raise ValueError(
                    f"{name} has {len(values)} values; the network takes {channels} "
                    f"channels: pass one value or {channels}."
                )
            value = torch.tensor(values, dtype=torch.float32)
            self.register_buffer(name, value.expand(channels).clone()[:, None, None])
        if not (self.std > 0).all():
            raise ValueError(f"std is {tuple(std)}; every value must be positive.")

    @property
    def feature_dim(self) -> int:
        """D, the number of penultimate features."""
        return self.head.in_features

    @property
    def num_classes(self) -> int:
        """K, the number of classes."""
        return self.head.out_features

    def features(self, images: Tensor) -> Tensor:
        """Penultimate activations `(N, D)` of pixels `(N, C, H, W)`."""
        return self.body(self.normalise(images))

    def forward(self, images: Tensor) -> Tensor:
        """Logits `(N, K)` of pixels `(N, C, H, W)`."""
        return self.head(self.features(images))

    def normalise(self, images: Tensor) -> Tensor:
        """What the network sees of pixels: `(x - mean) / std`, in its channels.

        Raises:
            ValueError: If `images` are not `(N, C, H, W)` with one or the network's
                channels, or neither uint8 nor float.
        """
        if images.ndim != 4 or images.shape[1] not in (1, self.channels):
            raise ValueError(
                f"images have the shape {tuple(images.shape)}; this classifier takes "
                f"(N, C, H, W) with C = 1 or {self.channels}."
            )
        if images.dtype == torch.uint8:
            images = images.to(self.mean.dtype) / 255
        if not images.is_floating_point():
            raise ValueError(
                f"images are {images.dtype}; pass uint8 pixels, or floats in [0, 1]."
            )
        return (images.to(self.mean.dtype) - self.mean) / self.std


class Outputs(NamedTuple):
    """What a classifier makes of N images."""

    features: Tensor
    """`(N, D)`, on the images' device; float32 as `outputs` returns it."""
    logits: Tensor
    """`(N, K)`, alike."""


@torch.no_grad()
def outputs(model: Classifier, images: Tensor, *, batch_size: int = 125) -> Outputs:
    """Features and logits of images, in float32 and eval mode, in batches.

    Args:
        model: Any classifier; its training mode is left as it was.
        images: `(N, C, H, W)` pixels.
        batch_size: Images at a time; bounds the memory, changes no result. At 125, what
            a layer of the paper's ResNet18 makes of MNIST stays in a processor's cache:
            385 images/s a core, 330 at 500.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    # cuDNN would round float32 to TF32, which a small PFL would show.
    full = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
    try:
        with full if images.is_cuda else contextlib.nullcontext():
            parts = [model.features(part) for part in images.split(batch_size)]
        features = torch.cat(parts)
        return Outputs(features, model.head(features))
    finally:
        for module, mode in modes:
            module.training = mode


def build(
    name: str,
    *,
    num_classes: int,
    feature_dim: int,
    mean: Sequence[float],
    std: Sequence[float],
    image_size: int = 64,
) -> Classifier:
    """A classifier of a named architecture, freshly initialised.

    Args:
        name: A key of `NETWORKS`.
        num_classes: K.
        feature_dim: D.
        mean: Channel means of pixels in [0, 1].
        std: Channel standard deviations of pixels in [0, 1].
        image_size: Side of its images, pixels; for networks that fix it.

    Raises:
        ValueError: If the name is unknown or the architecture cannot have D features.
    """
    network = find(name)(num_classes, feature_dim)
    norm = {"mean": mean, "std": std}
    model = wrap(network, num_classes=num_classes, image_size=image_size, **norm)
    if model.feature_dim != feature_dim:
        raise ValueError(
            f"{name} has {model.feature_dim} features, feature_dim is {feature_dim}: "
            f"set feature_dim={model.feature_dim}, or mend the network."
        )
    model.spec = {
        "model": name,
        "num_classes": num_classes,
        "feature_dim": feature_dim,
        "image_size": image_size,
    }
    return model


def wrap(
    module: nn.Module,
    *,
    num_classes: int | None = None,
    mean: Sequence[float] = (0.0,),
    std: Sequence[float] = (1.0,),
    image_size: int = 64,
) -> Classifier:
    """Any network that ends in a linear layer, as a `Classifier`.

    The linear layer, with its bias if it has one, becomes the head; what comes before
    it computes the features. The module itself is not changed.

    Args:
        module: Takes normalised images, returns logits.
        num_classes: K. A head of another size is replaced by a fresh one, as transfer
            learning does; None keeps the module's own.
        mean: Channel means that the module expects to be subtracted; one, or as many
            as its first convolution has channels.
        std: Channel standard deviations, likewise.
        image_size: Side of a blank image the module can take, pixels; it is shown two
            images to verify that head and body together still are the module.

    Raises:
        ValueError: If the module does not end in a linear layer, is not float32, or
            cannot take images of `image_size`.
    """
    linear = [n for n, m in module.named_modules() if isinstance(m, nn.Linear)]
    if not linear or not linear[-1]:
        raise ValueError(
            f"{type(module).__name__} has no linear layer inside; fidlib needs a "
            "network that ends in nn.Linear: its inputs are the features."
        )
    if (dtype := module.get_submodule(linear[-1]).weight.dtype) != torch.float32:
        raise ValueError(
            f"the weights of {type(module).__name__} are {dtype}; fidlib trains from "
            "float32: pass network.float()."
        )
    body = copy.deepcopy(module)
    parent, _, leaf = linear[-1].rpartition(".")
    head = cast(nn.Linear, body.get_submodule(linear[-1]))
    setattr(body.get_submodule(parent), leaf, nn.Identity())
    convolutions = (m for m in module.modules() if isinstance(m, nn.Conv2d))
    channels = next((c.in_channels for c in convolutions), len(mean))
    model = Classifier(body, head, mean=mean, std=std, channels=channels)
    model.to(memory_format=torch.channels_last)  # pyright: ignore
    _check_split(module, model, image_size)
    if num_classes is not None and num_classes != head.out_features:
        bias = head.bias is not None
        model.head = nn.Linear(head.in_features, num_classes, bias=bias)
    return model.to(next(module.parameters()).device)


@torch.no_grad()
def _check_split(module: nn.Module, model: Classifier, image_size: int) -> None:
    name = type(module).__name__
    device = next(module.parameters()).device
    images = torch.linspace(-1, 1, 2 * model.channels * image_size**2, device=device)
    images = images.view(2, model.channels, image_size, image_size)
    modes = [(m, m.training) for net in (module, model) for m in net.modules()]
    try:
        module.eval()
        model.eval()
        expected, features = module(images), model.body(images)
        # Beside the largest: rounding in a deep body is of that one's size.
        near = 1e-4 * float(expected.abs().max())
        same = features.ndim == 2 and torch.allclose(
            model.head(features), expected, rtol=0, atol=near
        )
    except (RuntimeError, AssertionError, AttributeError, TypeError) as error:
        raise ValueError(
            f"{name} could not be run on images of shape {tuple(images.shape)} "
            f"({str(error).splitlines()[0]}): pass image_size=, the side of the images "
            "it takes, and a network that ends in nn.Linear."
        ) from error
    finally:
        for part, mode in modes:
            part.training = mode
    if not same:
        raise ValueError(
            f"the last layer of {name} is not linear: its last nn.Linear does not give "
            "the network's output; remove what follows it (e.g. a softmax)."
        )


def load_authors(path: str | Path, *, dataset: str = "mnist") -> Classifier:
    """A ResNet18 from a state dict with the names of the authors' public files.

    Args:
        path: A `.pt` file of tensors `conv1.weight`, `layer1.0.conv1.weight`, ...,
            `fc.weight`, `out.weight`.
        dataset: The set it was trained on, for its normalisation.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged or holds other tensors, or the set is none
            of the paper's.
    """
    path = _existing(path)
    if dataset not in NORMALISATION:
        raise ValueError(
            f"{path} is of the authors, who trained on {', '.join(NORMALISATION)}, not "
            f"on {dataset!r}: say which of them."
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        classes, feature_dim = state["out.weight"].shape
        network = ResNet18(classes, feature_dim)
        network.load_state_dict(state)
    except Exception as error:  # torch.load has no error type of its own
        raise ValueError(
            f"{path} is damaged, or holds no ResNet18 of the paper: check the path, or "
            "fetch it again."
        ) from error
    mean, std = NORMALISATION[dataset]
    model = wrap(network, mean=mean, std=std)
    model.spec = {
        "model": "resnet18",
        "num_classes": classes,
        "feature_dim": feature_dim,
        "image_size": 28,
    }
    return model.eval()


def save(model: Classifier, path: str | Path) -> None:
    """Write a classifier to a `.safetensors` file, whole or not at all."""
    state = {n: t.contiguous().clone() for n, t in model.state_dict().items()}
    with written(Path(path)) as temporary:
        try:
            save_file(state, temporary, metadata={"fidlib": json.dumps(model.spec)})
        except SafetensorError as error:
            raise OSError(
                f"{path} could not be written ({error}): make room, and run it again."
            ) from error


def load(path: str | Path, *, like: Classifier | None = None) -> Classifier:
    """Read a classifier that `save` wrote.

    Args:
        path: A `.safetensors` file, or a run's folder.
        like: A classifier of the same architecture; needed when the saved one was
            wrapped, for then the file does not say how to build it. Not changed.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, or does not fit `like`.
    """
    path = _existing(path)
    path = _existing(path / "model.safetensors") if path.is_dir() else path
    try:
        with safe_open(path, framework="pt") as file:
            spec = json.loads((file.metadata() or {}).get("fidlib", "null"))
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError, OSError) as error:
        raise ValueError(
            f"{path} is damaged or no .safetensors file ({error}): check the path, or "
            "make the model again."
        ) from error
    if like is not None:
        model = copy.deepcopy(like)
    elif spec is not None:
        try:  # with any mean and std: the file's own follow
            model = build(spec.pop("model"), **spec, mean=(0.0,), std=(1.0,))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{path} does not say what network it holds (fidlib: {error}): make "
                "the model again."
            ) from error
    else:
        raise ValueError(
            f"{path} holds the weights of a wrapped network: build and wrap it, then "
            "pass it as fl.models.load(path, like=...)."
        )
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(
            f"{path} holds another architecture than the one it is loaded into "
            f"({' '.join(str(error).split())[:200]})."
        ) from error
    return model.eval()


def fingerprint(model: Classifier) -> str:
    """Sixteen hex digits that change with any weight, buffer, name or layer.

    Of layers of the user's own their text and attributes count too (`keys.network`).
    """
    return keys.digest(keys.network(model))


def fresh(model: Classifier, generator: torch.Generator) -> Classifier:
    """A copy of the architecture with random weights, drawn from `generator`.

    Raises:
        ValueError: If a module with parameters of its own cannot draw them again.
    """
    model = copy.deepcopy(model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch.randint(2**62, (), generator=generator).item())
        if model.spec is not None and model.spec["model"] in NETWORKS:
            spec = dict(model.spec)
            new = build(spec.pop("model"), **spec, mean=(0.0,), std=(1.0,))
            new.mean, new.std = model.mean.cpu(), model.std.cpu()
            return new
        for name, module in model.named_modules():
            own = list(module.parameters(recurse=False))
            reset = getattr(module, "reset_parameters", None)
            if reset is not None:
                reset()
            elif own:
                raise ValueError(
                    f"{name} ({type(module).__name__}) has no reset_parameters(), so "
                    "the network cannot start at random: add it to fidlib.NETWORKS."
                )
    return model


def _existing(path: str | Path) -> Path:
    path = Path(path).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"there is no model at {path}: check the path.")
    return path
