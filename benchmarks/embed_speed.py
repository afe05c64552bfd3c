"""How fast fidlib trains: its loop against a plain one, alternated in one run.

Both see the same images, triggers and batch sizes; a plain loop is what one would write
in an afternoon: float32, a DataLoader, the host asked at every step. The limit is the
time of the network's convolutions alone, forward, three times over, in the precision
that fidlib chooses here.

    python benchmarks/embed_speed.py --images 1280 --rounds 3
"""

import copy
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace

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


@dataclass
class Setting:
    """What both loops are given."""

    host: Classifier
    train: Split
    triggers: Split
    recipe: training.Recipe
    known: features.Outputs
    """The host's outputs on `train`: a study computes them once, for all epochs."""


def setting(dataset: str, images: int) -> Setting:
    """Random images in the shape of a data set, with the paper's recipe for it."""
    shape, dim = SHAPES[dataset]
    mean, std = fl.data.NORMALISATION[dataset]
    norm = {"mean": mean, "std": std}
    draw = torch.Generator().manual_seed(0)
    train = Split(
        torch.randint(256, (images, *shape), generator=draw).byte(),
        torch.randint(10, (images,), generator=draw),
    )
    host = fl.models.build("resnet18", num_classes=10, feature_dim=dim, **norm).eval()
    triggers = fl.triggers.noise_chain(
        shape, num_classes=10, **norm, chains=10, links=10, seed=0
    )
    recipe = training.recipe(dataset, "paper").with_epochs(1)
    known = features.outputs(host, train.images)
    return Setting(host, train, triggers, recipe, known)


def plain(method: str, given: Setting) -> Classifier:
    """One epoch as anyone would write it; returns the model."""
    train, triggers = given.train, given.triggers
    model, host = (
        copy.deepcopy(given.host).to(memory_format=torch.contiguous_format)
        for _ in range(2)
    )
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
        if given.recipe.augment:
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


def ours(method: str, given: Setting, precision: torch.dtype) -> Classifier:
    """One epoch by fidlib; returns the model."""
    options = {"seed": 0, "precision": precision}
    if method == "ref":
        model = copy.deepcopy(given.host)
        return training.fit(model, given.train, given.recipe, **options).model
    return training.embed(
        given.host,
        fl.METHODS[method],
        given.train,
        given.triggers,
        given.recipe,
        known=given.known,
        **options,
    ).model


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


def memory(dataset: str, method: str) -> tuple[float, float]:
    """GB that three epochs at batch 128 need beyond the data, and the last two alone.

    To be called in a process of its own.
    """
    given = setting(dataset, 384)
    given.recipe = replace(given.recipe, batch_size=128)
    precision = runs.pick_precision("auto", torch.device("cpu"))
    levels = [_resident()]
    for _ in range(3):
        ours(method, given, precision)
        levels.append(_resident())
    return levels[3] - levels[0], levels[3] - levels[1]


def _resident() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _median(call: Callable[[], object], times: int) -> float:
    call()
    return statistics.median(_seconds(call) for _ in range(times))


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def row(dataset: str, method: str, given: Setting, rounds: int) -> str:
    """One line of the table: loops and convolutions in turn, their medians."""
    auto = runs.pick_precision("auto", torch.device("cpu"))
    size = given.recipe.batch_size
    shown = given.train.images[: size + given.recipe.trigger_batch_size]
    loops = {
        "plain": lambda: plain(method, given),
        "float32": lambda: ours(method, given, torch.float32),
        "auto": lambda: ours(method, given, auto),
    }
    times, floors = {name: [] for name in loops}, []
    for _ in range(rounds):
        floors.append(3 * limit(given.host, shown, auto) / size)
        for name, loop in loops.items():
            times[name].append(_seconds(loop))
    images = len(given.train)
    plain_rate, *rates = (images / statistics.median(t) for t in times.values())
    with _child() as child:
        peak, growth = child.submit(memory, dataset, method).result()
    cells = [dataset, method, f"{plain_rate:.0f}"]
    cells += [f"{rate:.0f} ({rate / plain_rate:.2f} x)" for rate in rates]
    share = rates[-1] * statistics.median(floors)
    cells += [f"{share:.0%}", f"{peak:.2f}", f"{growth:.2f}"]
    return f"| {' | '.join(cells)} |"


def _child() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))


def main(options: Options) -> None:
    """Images a second of every method on every shape, as a table."""
    auto = runs.pick_precision("auto", torch.device("cpu"))
    print(
        f"{torch.get_num_threads()} threads, torch {torch.__version__}; auto: {auto}\n"
    )
    print(
        "| images | method | plain, images/s | float32 | auto | of the limit "
        "| GB | growth |\n|---|---|---|---|---|---|---|---|"
    )
    for dataset in SHAPES:
        given = setting(dataset, options.images)
        for method in METHODS:
            print(row(dataset, method, given, options.rounds), flush=True)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
