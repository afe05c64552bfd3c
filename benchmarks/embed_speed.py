"""How fast fidlib trains: its loop against a plain one, alternated in one run.

Both see the same images, triggers and batch sizes; a plain loop is what one would write
in an afternoon: float32, a DataLoader, the host asked at every step. The limit is the
time of the network's convolutions alone, forward, three times over, in the precision
that fidlib chooses here.

    python benchmarks/embed_speed.py --images 1280 --rounds 3
"""

import copy
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import tyro
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import fidlib as fl
from fidlib import features, runs, training
from fidlib.data import Split
from fidlib.models import Classifier

METHODS = ("ref", "scratch", "FTAL", "FTAL+TWL", "FixLL+PFL", "FixLL+SPL")
SHAPES = {"mnist": ((1, 28, 28), 2), "cifar10": ((3, 32, 32), 64)}
"""Data set -> shape of its images and the D of its models."""


@dataclass
class Options:
    """What to time."""

    images: int = 1280
    """Training images of an epoch."""
    rounds: int = 3
    """Epochs of each loop; the medians count."""


def plain(method: str, host: Classifier, train: Split, triggers: Split, augment: bool):
    """One epoch as anyone would write it; returns the model."""
    model = copy.deepcopy(host).to(memory_format=torch.contiguous_format)
    host = copy.deepcopy(host).to(memory_format=torch.contiguous_format)
    fixed = method.startswith("FixLL")
    trained = list((model.body if fixed else model).parameters())
    optimizer = torch.optim.Adam(trained, lr=1e-4)
    model.train(method in ("ref", "scratch"))
    images = host.normalise(train.images)
    secret = host.normalise(triggers.images)
    loader = DataLoader(
        TensorDataset(images, train.labels), batch_size=32, shuffle=True
    )
    for x, y in loader:
        if augment:
            x = torch.stack([_crop_and_flip(image) for image in x])
        shown, labels = x, y
        if method != "ref":
            pick = torch.randperm(len(secret))[:4]
            shown = torch.cat([x, secret[pick]])
            labels = torch.cat([y, triggers.labels[pick]])
        phi = model.body(shown)
        logits = model.head(phi)
        if method in ("FixLL+PFL", "FixLL+SPL"):
            loss = F.cross_entropy(logits[len(x) :], labels[len(x) :])
            with torch.no_grad():
                phi_h = host.body(x)
                p_h = host.head(phi_h).softmax(1)
            if method == "FixLL+PFL":
                loss = loss + 0.01 * (phi[: len(x)] - phi_h).square().sum(1).mean()
            else:
                log_p = logits[: len(x)].log_softmax(1)
                loss = loss + 1000 * F.kl_div(log_p, p_h, reduction="batchmean")
        else:
            loss = F.cross_entropy(logits, labels)
            if method == "FTAL+TWL":
                pairs = zip(model.parameters(), host.parameters(), strict=True)
                loss = loss + 0.01 * sum((a - b).square().sum() for a, b in pairs)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


def _crop_and_flip(image: Tensor) -> Tensor:
    top, left = torch.randint(9, (2,)).tolist()
    size = image.shape[-1]
    image = F.pad(image, [4] * 4)[:, top : top + size, left : left + size]
    return image.flip(-1) if torch.rand(()) < 0.5 else image


def ours(
    method: str,
    host: Classifier,
    train: Split,
    triggers: Split,
    recipe: training.Recipe,
    precision: torch.dtype,
    known: features.Outputs,
) -> Classifier:
    """The same epoch by fidlib."""
    if method == "ref":
        model = copy.deepcopy(host)
        return training.fit(model, train, recipe, seed=0, precision=precision).model
    options = {"seed": 0, "precision": precision, "known": known}
    chosen = fl.METHODS[method]
    return training.embed(host, chosen, train, triggers, recipe, **options).model


def limit(model: Classifier, images: Tensor, precision: torch.dtype) -> float:
    """Seconds of the convolutions alone, forward, each timed by itself, summed."""
    seen: list[tuple[nn.Module, Tensor]] = []
    hooks = [
        layer.register_forward_pre_hook(lambda m, x: seen.append((m, x[0].detach())))
        for layer in model.body.modules()
        if isinstance(layer, nn.Conv2d)
    ]
    with torch.no_grad():
        shown = model.normalise(images).contiguous(memory_format=torch.channels_last)
        model.body(shown)
        for hook in hooks:
            hook.remove()
        total = 0.0
        for layer, x in seen:
            layer = copy.deepcopy(layer).to(precision)
            x = x.to(precision)
            total += _median(lambda layer=layer, x=x: layer(x), 15)
    return total


def _median(call: Callable[[], object], times: int) -> float:
    call()
    return statistics.median(_seconds(call) for _ in range(times))


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def compare(dataset: str, options: Options, precision: torch.dtype) -> None:
    """Print a line for each method."""
    shape, dim = SHAPES[dataset]
    recipe = training.recipe(dataset, "paper").with_epochs(1)
    mean, std = fl.data.NORMALISATION[dataset]
    norm = {"mean": mean, "std": std}
    draw = torch.Generator().manual_seed(0)
    train = Split(
        torch.randint(256, (options.images, *shape), generator=draw).byte(),
        torch.randint(10, (options.images,), generator=draw),
    )
    host = fl.models.build("resnet18", num_classes=10, feature_dim=dim, **norm).eval()
    triggers = fl.triggers.noise_chain(
        shape, num_classes=10, **norm, chains=10, links=10, seed=0
    )
    known = features.outputs(host, train.images)
    shown = recipe.batch_size + recipe.trigger_batch_size
    floor = 3 * limit(host, train.images[:shown], precision) / recipe.batch_size

    def loops(method: str) -> dict[str, Callable[[], object]]:
        setting = (method, host, train, triggers)
        return {
            "plain": lambda: plain(*setting, recipe.augment),
            "float32": lambda: ours(*setting, recipe, torch.float32, known),
            "auto": lambda: ours(*setting, recipe, precision, known),
        }

    for method in METHODS:
        times: dict[str, list[float]] = {name: [] for name in loops(method)}
        for _ in range(options.rounds):
            for name, loop in loops(method).items():
                times[name].append(_seconds(loop))
        rate = {n: options.images / statistics.median(t) for n, t in times.items()}
        print(
            f"{dataset:8} {method:10} {rate['plain']:7.0f} {rate['float32']:8.0f} "
            f"{rate['float32'] / rate['plain']:6.2f} {rate['auto']:8.0f} "
            f"{rate['auto'] / rate['plain']:6.2f} {rate['auto'] * floor:13.0%}",
            flush=True,
        )


def main(options: Options) -> None:
    """Images a second of every method on every shape, as a table."""
    precision = runs.pick_precision("auto", torch.device("cpu"))
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, {precision}")
    print("images/s:           plain  float32  ratio     auto  ratio  of the limit")
    for dataset in SHAPES:
        compare(dataset, options, precision)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
