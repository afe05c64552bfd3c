"""Classifiers: `features` and a linear `head`, from any network that ends in one.

They are built by name or wrapped, run on images, saved and read back.
"""

import copy
import functools
import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from fidlib import checkpoints
from fidlib.data import NORMALISATION
from fidlib.networks import NETWORKS, find
from fidlib.runs import keys, machine
from fidlib.runs.store import written
from fidlib.weights import at_rest, bare
from fidlib.wrapping import Logits, Values, positive, sides, take_apart, vector


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
        place: Where in `body` the head was, when it was one network.
        layout: Memory format that it is trained in.
    """

    def __init__(
        self,
        body: nn.Module,
        head: nn.Linear,
        *,
        mean: Values,
        std: Values,
        channels: int = 3,
        spec: dict[str, Any] | None = None,
        place: str = "",
        layout: torch.memory_format = torch.channels_last,
    ) -> None:
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        self.body = body
        self.head = head
        self.channels = channels
        self.spec = spec
        self.place, self.layout = place, layout
        for name, values in (("mean", mean), ("std", std)):
            value = vector(name, values)
            if len(value) not in (1, channels):
                raise ValueError(
                    f"{name} has {len(value)} values; the network takes {channels} "
                    f"channels: pass one value or {channels}."
                )
            self.register_buffer(name, value.expand(channels).clone()[:, None, None])
        if not (self.std > 0).all():
            raise ValueError(f"std is {std}; every value must be positive.")
        if max(float(self.mean.abs().max()), float(self.std.max())) > 1:
            raise ValueError(
                f"mean is {mean}, std {std}; they are of pixels in [0, 1]: divide them "
                "by 255, or whatever white is."
            )

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
        # Contiguous, for a network may look at memory, and images come permuted.
        return ((images.to(self.mean.dtype) - self.mean) / self.std).contiguous()


class Outputs(NamedTuple):
    """What a classifier makes of N images."""

    features: Tensor
    """`(N, D)`, on the images' device; float32 as `outputs` returns it."""
    logits: Tensor
    """`(N, K)` scores of the classes, float32 and on that device too."""


@torch.no_grad()
def outputs(model: Classifier, images: Tensor, *, batch_size: int = 50) -> Outputs:
    """Features and logits of images, in float32 and eval mode, in batches.

    Args:
        model: Any classifier; its training mode is left as it was.
        images: `(N, C, H, W)` pixels.
        batch_size: Images at a time; bounds the memory, changes no result. At 50, what
            a layer of the paper's ResNet18 makes of MNIST stays in a processor's cache:
            379 images/s a core, 358 at 125, 308 at 500.
    """
    float32 = torch.autocast(images.device.type, enabled=False)
    with machine.ieee(), float32, at_rest(model):
        parts = [model.features(part) for part in images.split(batch_size)]
        features = torch.cat(parts)
        return Outputs(features, model.head(features))


@torch.no_grad()
def activations(
    model: Classifier, images: Tensor, *, batch_size: int = 50
) -> dict[str, Tensor]:
    """What a model's convolutions and linear layers give, averaged over places.

    Args:
        model: Any classifier; its training mode is left as it was.
        images: `(N, C, H, W)` pixels.
        batch_size: Images at a time; changes no result.

    Returns:
        Layer of the body -> `(N, C)` float32; of those that are called once.
    """
    means: dict[str, list[Tensor]] = {}
    layers = {
        name: layer
        for name, layer in model.body.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    }

    def keep(name: str, _layer: nn.Module, _given: Any, out: Tensor) -> None:
        out = out.movedim(1 if isinstance(layers[name], nn.Conv2d) else -1, 1)
        means.setdefault(name, []).append(out.reshape(*out.shape[:2], -1).mean(2))

    hooks = [
        layer.register_forward_hook(functools.partial(keep, name))
        for name, layer in layers.items()
    ]
    try:
        outputs(model, images, batch_size=batch_size)
    finally:
        for hook in hooks:
            hook.remove()
    whole = {name: torch.cat(parts) for name, parts in means.items()}
    return {name: part for name, part in whole.items() if len(part) == len(images)}


def check_takes(model: Classifier, images: Tensor) -> None:
    """Raise ValueError unless a model can be run on such images `(N, C, H, W)`."""
    try:
        outputs(model, images[:1])
    except (RuntimeError, AssertionError, TypeError) as error:
        raise ValueError(
            f"the model cannot take images of shape {tuple(images.shape[1:])} "
            f"({str(error).splitlines()[0][:160]}): use images of the size it was made "
            "for."
        ) from error


def build(
    name: str,
    *,
    num_classes: int,
    feature_dim: int,
    mean: Values,
    std: Values,
    image_size: int | Sequence[int] = 64,
) -> Classifier:
    """A classifier of a named architecture, freshly initialised.

    Args:
        name: A key of `NETWORKS`.
        num_classes: K, the outputs of the head.
        feature_dim: D, the inputs of the head.
        mean: Channel means of pixels in [0, 1].
        std: Channel standard deviations of pixels in [0, 1].
        image_size: As in `wrap`; for networks that fix it.

    Raises:
        ValueError: If the name is unknown, the architecture cannot have D features, or
            torch makes tensors of another type than float32.
    """
    if torch.get_default_dtype() != torch.float32:
        raise ValueError(
            f"torch's default type is {torch.get_default_dtype()}, and fidlib trains "
            "from float32: call torch.set_default_dtype(torch.float32)."
        )
    builder = find(name)
    num_classes = positive("num_classes", num_classes)
    feature_dim = positive("feature_dim", feature_dim)
    try:
        network = builder(num_classes, feature_dim)
    except TypeError as error:
        raise ValueError(
            f"fidlib.NETWORKS[{name!r}] cannot be called with {num_classes} classes "
            f"and {feature_dim} features ({error}): make it a function of these two."
        ) from error
    if builder.__module__.startswith("fidlib."):  # known, and so not tried
        head, network.out = cast(nn.Linear, network.out), nn.Identity()
        model = Classifier(network, head, mean=mean, std=std, place="out")
        model.to(memory_format=model.layout)  # pyright: ignore
    else:
        shown = {"image_size": image_size, "mean": mean, "std": std}
        model = wrap(network, num_classes=num_classes, **shown)  # pyright: ignore
    if model.feature_dim != feature_dim:
        raise ValueError(
            f"{name} has {model.feature_dim} features, feature_dim is {feature_dim}: "
            f"set feature_dim={model.feature_dim}, or mend the network."
        )
    height, width = sides(image_size)
    model.spec = {
        "model": name,
        "num_classes": num_classes,
        "feature_dim": feature_dim,
        "image_size": height if height == width else [height, width],
    }
    return model


def wrap(
    module: nn.Module,
    *,
    num_classes: int | None = None,
    mean: Values = 0.0,
    std: Values = 1.0,
    image_size: int | Sequence[int] = 64,
    channels: int | None = None,
) -> Classifier:
    """Any network that ends in a linear layer, as a `Classifier`.

    The linear layer, with its bias if it has one, becomes the head; what comes before
    it computes the features. The module itself is not changed: what it is around, such
    as DataParallel's network, is copied and tried (see `wrapping`).

    Args:
        module: Takes normalised images, returns logits, alone or as `.logits`.
        num_classes: K. A head of another size is replaced by a fresh one, as transfer
            learning does; None keeps the module's own.
        mean: Channel means that the module expects to be subtracted; one, or as many
            as it takes channels.
        std: Channel standard deviations, likewise.
        image_size: Side of the images the module takes, or their height and width.
        channels: That the module takes; None: its first convolution's, or as many as
            `mean` has, or three, or one: the first of these that it can be run on.

    Raises:
        ValueError: If the module does not end in a linear layer, is not float32, cannot
            take such images, or answers otherwise in other company, in a layout, or
            in training than a network that is to be compared may.
    """
    tried = [len(vector("mean", mean)), 3, 1]
    if channels is not None:
        tried = [positive("channels", channels)]
    if isinstance(module, nn.Module):
        if isinstance(bare(module), Classifier):
            raise ValueError("a Classifier is wrapped already: pass it as it is.")
        convolutions = (m for m in module.modules() if isinstance(m, nn.Conv2d))
        if channels is None:
            tried = [*[c.in_channels for c in convolutions][:1], *tried]
    body, head, place, count, layout = take_apart(module, tried, sides(image_size))
    model = Classifier(
        body, head, mean=mean, std=std, channels=count, place=place, layout=layout
    )
    model.to(memory_format=layout)  # pyright: ignore
    if num_classes is not None and num_classes != head.out_features:
        bias, classes = head.bias is not None, positive("num_classes", num_classes)
        model.head = nn.Linear(head.in_features, classes, bias=bias)
    return model.train(module.training).to(head.weight.device)


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
    path = checkpoints.existing(path)
    if dataset not in NORMALISATION:
        raise ValueError(
            f"{path} is of the authors, who trained on {', '.join(NORMALISATION)}, not "
            f"on {dataset!r}: say which of them, or what network it is of, such as "
            "--network module:function."
        )
    state, _ = checkpoints.read(path)
    shape = next((t.shape for n, t in state.items() if n.endswith("out.weight")), ())
    if len(shape) != 2:
        raise ValueError(
            f"{path} holds no ResNet18 of the paper: say what network it is of, such "
            "as --network module:function, or fidlib.models.load(path, like=...)."
        )
    classes, feature_dim = shape
    mean, std = NORMALISATION[dataset]
    sizes: dict[str, Any] = {"num_classes": classes, "feature_dim": feature_dim}
    model = build("resnet18", **sizes, mean=mean, std=std, image_size=28)
    return load(path, like=model)


def save(model: Classifier, path: str | Path) -> None:
    """Write a classifier to a `.safetensors` file, whole or not at all."""
    state = {n: t.contiguous().clone() for n, t in model.state_dict().items()}
    with torch.random.fork_rng(devices=[]):
        spec = json.dumps(None if _built_anew(model) is None else model.spec)
    with written(Path(path)) as temporary:
        try:
            save_file(state, temporary, metadata={"fidlib": spec})
        except SafetensorError as error:
            raise OSError(
                f"{path} could not be written ({error}): make room, and run it again."
            ) from error


def load(
    path: str | Path, *, like: Classifier | nn.Module | str | None = None
) -> Classifier:
    """Read a classifier that `save` wrote, or a state dict into a network.

    Args:
        path: A `.safetensors` file, a run's folder, or a file of `torch.save`: a state
            dict, also of DataParallel, torch.compile or an EMA, or inside a dict.
        like: A classifier of the same architecture, or a network that `wrap` takes with
            no options, or `module:function`, which gives one of them. Needed when the
            file does not say how to build it. Not changed.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, or does not fit `like`.
    """
    path = checkpoints.existing(path)
    state, spec = checkpoints.read(path)
    model = _network(path, spec, like)
    tensors = checkpoints.fitted(state, expected := model.state_dict())
    if tensors.keys() != expected.keys():
        tensors = _of_network(model, state)
    for name in [name for name in expected if name in tensors]:
        given, wanted = tensors[name].dtype, expected[name].dtype
        if given.is_floating_point != wanted.is_floating_point:
            raise ValueError(
                f"{path}: {name} is {given}, of the network {wanted}: save the state "
                "dict of the network, in floats."
            )
    versioned: Any = OrderedDict(tensors)
    versioned._metadata = cast(Any, expected)._metadata  # of layers: no file keeps it
    try:
        model.load_state_dict(versioned)
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"{path} holds another architecture than the one it is loaded into "
            f"({' '.join(str(error).split())[:200]})."
        ) from error
    for name, value in model.state_dict().items():
        given = tensors[name].to(value.device, value.dtype)
        if not torch.allclose(value, given, 0, 0, equal_nan=True):
            raise ValueError(
                f"{path}: {name} is shared with another layer in this network, and not "
                "in the file: load it into the very network that it was saved of."
            )
    return model.eval()


def _network(
    path: Path, spec: dict[str, Any] | None, like: Classifier | nn.Module | str | None
) -> Classifier:
    """What a file's tensors go into: like `like`, or what the file says to build."""
    if isinstance(like, str):
        like = checkpoints.network(like)
    if like is not None:
        return copy.deepcopy(like) if isinstance(like, Classifier) else wrap(like)
    if spec is None:
        raise ValueError(
            f"{path} holds the weights of a wrapped network: build and wrap it, then "
            "pass it as fl.models.load(path, like=...)."
        )
    try:  # with any mean and std: the file's own follow
        return build(spec.pop("model"), **spec, mean=0.0, std=1.0)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} does not say what network it holds (fidlib: {error}): make the "
            "model again."
        ) from error


def _of_network(model: Classifier, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of the network that a classifier was, under the classifier's names.

    With the classifier's mean and deviation, of which a network does not tell.
    """
    names, inside = {}, "network." if isinstance(model.body, Logits) else ""
    for name in model.state_dict().keys() - {"mean", "std"}:
        part, _, rest = name.partition(".")
        was = rest if part == "body" else f"{model.place}.{rest}"
        names[was.removeprefix(inside)] = name
    tensors = checkpoints.fitted(state, names)
    tensors = {names.get(name, name): value for name, value in tensors.items()}
    return {"mean": model.mean, "std": model.std} | tensors


def fingerprint(model: Classifier) -> str:
    """Sixteen hex digits that change with any weight, buffer, name or layer.

    Of layers of the user's own their text and attributes count too (`keys.network`).
    """
    return keys.digest(keys.network(model))


def fresh(model: Classifier, generator: torch.Generator) -> Classifier:
    """The same architecture, built anew: its weights are drawn from `generator`.

    Raises:
        ValueError: If it is not what a function of `NETWORKS` builds.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch.randint(2**62, (), generator=generator).item())
        new = _built_anew(model)
    if new is None:
        raise ValueError(
            "a network does not say how its weights were drawn, so it can start at "
            "random only if a function builds it as it is: add that function to "
            "fidlib.NETWORKS, and make the classifier by fidlib.models.build."
        )
    return new


def _built_anew(model: Classifier) -> Classifier | None:
    """What a classifier's spec builds; None if its weights make another of that."""
    if model.spec is None or model.spec["model"] not in NETWORKS:
        return None
    spec = dict(model.spec)
    mean, std, device = model.mean.cpu(), model.std.cpu(), model.mean.device
    new = build(spec.pop("model"), **spec, mean=mean, std=std)
    twin = copy.deepcopy(new).to(device)
    try:
        twin.load_state_dict(model.state_dict())
    except RuntimeError:  # it was given other layers since
        return None
    shape = (2, model.channels, *sides(spec.get("image_size", 64)))
    shown = torch.rand(shape).to(device)
    answer, expected = (outputs(m, shown) for m in (twin, model))
    near = 1e-4 * float(expected.logits.abs().max())
    same = torch.allclose(answer.logits, expected.logits, 0, near, equal_nan=True)
    return new if same else None
