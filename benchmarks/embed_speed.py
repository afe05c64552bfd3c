"""How fast fidlib trains: its loop against a plain one, alternated in one run.

Both see the same images, triggers and batch sizes; a plain loop is what one would write
in an afternoon: float32, a DataLoader, the host asked at every step. The limit of a
precision is the time of the network's convolutions alone, forward, three times over,
and once more where the host must be asked at every step.

    python benchmarks/embed_speed.py --images 1280 --rounds 3
"""

import copy
import math
import multiprocessing
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import fidlib as fl
from fidlib import training
from fidlib.data import Split
from fidlib.models import Classifier, Outputs
from fidlib.runs import machine

METHODS = ("host", "scratch", "FTAL", "FTAL+TWL", "FixLL+PFL", "FixLL+SPL")
DEVICE = machine.device()
AUTO = machine.training_type("auto", DEVICE)
PROC = Path("/proc/self")
"""Where Linux tells of memory, see proc(5)."""
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
    known: Outputs
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
    train = train.to(DEVICE)
    host = fl.models.build("resnet18", num_classes=10, feature_dim=dim, **norm)
    host = host.to(DEVICE).eval()
    triggers = fl.triggers.chain(train, 0, host=host).to(DEVICE)
    recipe = training.recipe(dataset, "paper").with_epochs(1)
    known = fl.models.outputs(host, train.images)
    return Setting(host, train, triggers, recipe, known)


@machine.ieee()
def plain(
    method: str, given: Setting, precision: torch.dtype = torch.float32
) -> Classifier:
    """One epoch as anyone would write it; returns the model."""
    train, triggers = given.train, given.triggers
    model, host = (
        copy.deepcopy(given.host).to(memory_format=torch.contiguous_format)
        for _ in range(2)
    )
    host.requires_grad_(False)
    fixed = method.startswith("FixLL")
    part = model.body if fixed else model
    if method not in ("host", "scratch"):
        for module in part.modules():
            module.requires_grad_(not isinstance(module, nn.BatchNorm2d))
    trained = [p for p in part.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=1e-4)
    model.train(method in ("host", "scratch"))
    images = host.normalise(train.images).cpu()
    secret = host.normalise(triggers.images)
    loader = DataLoader(
        TensorDataset(images, train.labels.cpu()),
        batch_size=given.recipe.batch_size,
        shuffle=True,
    )
    fast = precision != torch.float32
    for x, y in loader:
        if given.recipe.augment:
            x = torch.stack([_crop_and_flip(image) for image in x])
        x, y = x.to(DEVICE), y.to(DEVICE)
        shown, labels = x, y
        if method != "host":
            pick = torch.randperm(len(secret))[: given.recipe.trigger_batch_size]
            shown = torch.cat([x, secret[pick]])
            labels = torch.cat([y, triggers.labels[pick]])
        with torch.autocast(DEVICE.type, precision, enabled=fast):
            phi = model.body(shown).float()
        logits = model.head(phi)
        if method in ("FixLL+PFL", "FixLL+SPL"):
            loss = F.cross_entropy(logits[len(x) :], labels[len(x) :])
            with (
                torch.no_grad(),
                torch.autocast(DEVICE.type, precision, enabled=fast),
            ):
                phi_h = host.body(x).float()
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


@dataclass
class Noting:
    """Notes a number at every point of a learning curve."""

    number: Callable[[], float]
    """What to note."""

    def __call__(self, _model: Classifier) -> dict[str, float | None]:
        """As `noted`, in the rows of the curve."""
        return {"noted": self.number()}

    def state_dict(self) -> dict[str, Any]:
        """Nothing: no benchmark is taken up again."""
        return {}

    def load_state_dict(self, _state: dict[str, Any]) -> None:
        """Nothing, as `state_dict` gives."""


def ours(
    method: str,
    given: Setting,
    precision: torch.dtype,
    observer: training.Observer | None = None,
) -> training.Trained:
    """The same by fidlib, from the same weights."""
    entry = training.HOST if method == "host" else fl.METHODS[method]
    plan = training.Plan.of(entry, given.recipe, seed=0, precision=precision)
    return training.train(
        copy.deepcopy(given.host),
        plan,
        given.train,
        triggers=given.triggers,
        host=given.host,
        known=given.known,
        observer=observer,
    )


def limit(model: Classifier, images: Tensor, precision: torch.dtype) -> float:
    """Seconds of the convolutions alone, forward, one after the other."""
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
        cast = [(copy.deepcopy(m).to(precision), x.to(precision)) for m, x in seen]
        return _median(lambda: [layer(x) for layer, x in cast], 25)


def memory(dataset: str, method: str) -> tuple[float, float]:
    """GiB at the peak of five epochs at batch 128, and by how much the peak grew.

    Beyond what the process had before anything was made; 384 images are nothing. The
    first epoch fills caches, so growth is counted from the second to the last. To be
    called in a process of its own; not a number where the system does not tell.
    """
    before = _resident()
    given = setting(dataset, 384)
    given.recipe = replace(given.recipe, batch_size=128).with_epochs(5)
    history = ours(method, given, AUTO, Noting(_new_peak)).history
    later = [row["noted"] for row in history if row["epoch"] >= 2]
    return max(row["noted"] for row in history) - before, later[-1] - later[0]


def _resident() -> float:
    return _status("VmRSS") if DEVICE.type == "cpu" else 0.0


def _new_peak() -> float:
    """GiB at the peak since it was last asked for."""
    if DEVICE.type == "cuda":
        peak = torch.cuda.max_memory_allocated() / 2**30
        torch.cuda.reset_peak_memory_stats()
        return peak
    peak = _status("VmHWM")
    if PROC.exists():
        (PROC / "clear_refs").write_text("5")
    return peak


def _status(name: str) -> float:
    if not PROC.exists():
        return math.nan
    lines = (PROC / "status").read_text().splitlines()
    (line,) = (x for x in lines if x.startswith(name))
    return int(line.split()[1]) / 2**20


def _median(call: Callable[[], object], times: int) -> float:
    call()
    return statistics.median(seconds(call) for _ in range(times))


def seconds(call: Callable[[], object]) -> float:
    """How long a call takes, the GPU's part included."""
    wait = torch.cuda.synchronize if DEVICE.type == "cuda" else lambda: None
    wait()
    started = time.perf_counter()
    call()
    wait()
    return time.perf_counter() - started


def row(dataset: str, method: str, given: Setting, rounds: int) -> str:
    """One line of the table: loops and convolutions in turn, their medians."""
    size = given.recipe.batch_size
    triggers = 0 if method == "host" else given.recipe.trigger_batch_size
    shown = given.train.images[: size + triggers]
    passes = 3 + (given.recipe.augment and method in ("FixLL+PFL", "FixLL+SPL"))
    loops = {
        "plain": lambda: plain(method, given),
        torch.float32: lambda: ours(method, given, torch.float32),
        AUTO: lambda: ours(method, given, AUTO),
    }
    times, floors = defaultdict(list), defaultdict(list)
    for _ in range(rounds):
        for name, loop in loops.items():
            times[name].append(seconds(loop))
            if name != "plain":
                floors[name].append(passes * limit(given.host, shown, name) / size)
    rates = {n: len(given.train) / statistics.median(t) for n, t in times.items()}
    with _child() as child:
        peak, growth = child.submit(memory, dataset, method).result()
    cells = [dataset, method, f"{rates['plain']:.0f}"]
    for name in (torch.float32, AUTO):
        share = rates[name] * statistics.median(floors[name])
        ratio = rates[name] / rates["plain"]
        cells.append(f"{rates[name]:.0f} | {ratio:.2f} x | {share:.0%}")
    cells += [f"{peak:.2f}", f"{growth:+.2f}"]
    return f"| {' | '.join(cells)} |"


def _child() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))


def main(options: Options) -> None:
    """Images a second of every method on every shape, as a table."""
    print(f"{machine.name()}, torch {torch.__version__}; auto: {AUTO}\n")
    heads = ["images", "method", "plain, images/s"]
    for name in ("float32", "auto"):
        heads += [f"{name}, images/s", "ratio", "of its limit"]
    heads += ["GiB at batch 128", "growth"]
    print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
    for dataset in SHAPES:
        given = setting(dataset, options.images)
        for method in METHODS:
            print(row(dataset, method, given, options.rounds), flush=True)


if __name__ == "__main__":
    import tyro  # not on every machine that trains

    main(tyro.cli(Options, description=__doc__))
