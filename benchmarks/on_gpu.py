"""One visit of minutes to one GPU: five stages, each of which leaves what it finished.

a  Whether it is right there: outputs, an embedding, graphs, going on, against the CPU.
b  How fast: fidlib against a plain loop on the same card, and several jobs at once.
c  CIFAR-100 with WRN28-10, scale gpu.
d  MNIST at scale paper.
e  CIFAR-10 at scale paper, and two further seeds of it.

What would not end in time, or not be carried, is left out, and report.json says so.
Models go into parcels, from which `fidlib figures --suite cifar100 --from DIR` draws;
all is in eight files at most, of less than 16 MB each, 60 MB together. A second visit
goes on where the first stopped, and leaves its own parcels: put those of all visits
into one folder. Of c, whose weights are too large to be carried, it makes nothing more.
Without a GPU `--small` tries the script on digits.

    python benchmarks/on_gpu.py --budget 840 --stages abc --out first
    python benchmarks/on_gpu.py --budget 840 --stages de --from first --out second
"""

import argparse
import copy
import json
import multiprocessing
import os
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from embed_speed import AUTO, DEVICE, Noting, ours, plain, seconds, setting
from on_gpu_models import left_out, outcome, study
from torch import Tensor

import fidlib as fl
from fidlib import training
from fidlib.data import Split
from fidlib.models import Classifier
from fidlib.runs import machine, pool, store
from fidlib.study.packing import pack
from fidlib.study.parcel import unpacked
from fidlib.training import updates

STARTED = time.time() - time.process_time()  # imports take seconds of the budget too

FILE, FILES, TOGETHER = 15_500_000, 7, 60_000_000
"""Bytes of a parcel, how many there may be, and their bytes together, all at most;
report.json is the eighth file."""
MODEL = {"c": 3_700_000, "d": 3_500_000, "e": 5_700_000}
"""Stage -> bytes of a model in a parcel, at most: its outputs are most of them."""

HOST_FIRST = ("host", "FixLL+PFL", "FTAL", "FixLL+SPL", "FTAL+TWL", "fine-tuned")
MORE = (*HOST_FIRST, "FixLL", "FixLL+TWL")
STUDIES = {
    "c": [
        (
            fl.Config("cifar100", "wrn28_10", 640, scale="gpu"),
            (*MORE, "FixLL+PFL+mix+quiet", "retrained", "scratch+FixLL+PFL"),
        )
    ],
    "d": [
        (
            fl.Config("mnist", "resnet18", 2, scale="paper"),
            (*MORE, "FTLL", "FTAL+PGR", "retrained", "scratch"),
        )
    ],
    "e": [
        (
            fl.Config("cifar10", "resnet18", 64, scale="paper"),
            (*MORE, "FTLL", "FTAL+PGR", "retrained", "scratch", "FixLL+PFL+mix+quiet"),
        ),
        *(
            (
                fl.Config("cifar10", "resnet18", 64, seed=seed, scale="paper"),
                ("host", "FixLL+PFL", "FixLL+SPL", "FixLL+PFL+mix+quiet"),
            )
            for seed in (1, 2)
        ),
    ],
}
"""Stage -> configurations, and models, those first that are most worth their time."""

_SMALL = fl.Config("digits", "smallnet", 16, scale="smoke", epochs=2, train_images=100)
SMALL = {
    stage: [(replace(_SMALL, seed=seed), HOST_FIRST[:2])]
    for seed, stage in enumerate(STUDIES)
}
"""The same on a machine without a GPU."""


@dataclass
class Visit:
    """What was asked for, and what was found so far."""

    budget: float
    """Seconds, from the start of the script."""
    out: Path
    small: bool
    jobs: int
    """Models at a time, in stages d and e."""
    report: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Stage -> what -> numbers, or words on why there are none."""

    def left(self) -> float:
        """Seconds of the budget that are left."""
        return STARTED + self.budget - time.time()

    def say(self, stage: str, what: str, value: object) -> None:
        """Note something, for good."""
        self.report.setdefault(stage, {})[what] = value
        store.write_json(self.out / "report.json", self.report)
        print(f"{time.time() - STARTED:6.1f} s  {stage}  {what}: {value}", flush=True)

    def time_for(self, stage: str, what: str, takes: float) -> bool:
        """Whether there is time for something; else it says so."""
        if takes <= self.left():
            return True
        self.say(stage, what, left_out(takes, self.left()))
        return False


def smoke(visit: Visit) -> None:
    """Stage a, in numbers that are 0 where nothing differs."""
    if not visit.time_for("a", "all", 15 if visit.small else 40):
        return
    for name, dim in (("smallnet", 16), ("resnet18", 64), ("wrn28_10", 640))[
        : 1 if visit.small else 3
    ]:
        pair = noise(name, dim, 64, 32)
        there, here = (
            fl.models.outputs(pair[0].to(device), pair[1].images.to(device)).logits
            for device in (DEVICE, torch.device("cpu"))
        )
        apart = (there.cpu() - here).abs().max() / here.abs().max()
        visit.say("a", f"outputs of {name}, off the CPU's by", apart.item())
    count, side = (160, 8) if visit.small else (640, 32)
    given, cpu = noise("smallnet", 16, count, side), torch.device("cpu")
    plainly, onwards = partial(embedded, given), partial(embedded, given, epochs=10)
    with graphs(False):
        eager = plainly(DEVICE)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        by_graphs = plainly(DEVICE)
    visit.say("a", "recorded", [str(one.message) for one in said] or "without a word")
    apart = off(eager, by_graphs)
    visit.say("a", f"{count // 16} float32 steps by graphs, off plain ones by", apart)
    if not apart < 0.01:  # a wrong graph trains on other images, or not at all
        updates.GRAPHS = False
        visit.say("a", "graphs", "switched off: they end elsewhere")
    whole = onwards(DEVICE)
    apart = off(onwards(cpu), whole)
    visit.say("a", f"{count * 10 // 32} steps, off the CPU's by", apart)
    with TemporaryDirectory() as folder:
        state = Path(folder, "state")
        try:
            onwards(DEVICE, state=state, observer=Noting(Stop(5)))
        except InterruptedError:
            again = onwards(DEVICE, state=state, observer=Noting(lambda: 0.0))
            visit.say("a", "stopped and gone on, off the whole by", off(whole, again))


class Stop:
    """Raises when it is called so often."""

    def __init__(self, calls: int) -> None:
        self.calls = calls

    def __call__(self) -> float:
        """Count a call; raise at the last."""
        self.calls -= 1
        if not self.calls:
            raise InterruptedError
        return 0.0


def noise(
    network: str, dim: int, count: int, side: int
) -> tuple[Classifier, Split, Split]:
    """A random network with images and triggers of noise."""
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(256, (count, 3, side, side), generator=draw).byte()
    labels = torch.randint(10, (count,), generator=draw)
    torch.manual_seed(0)
    sizes = {"num_classes": 10, "feature_dim": dim, "image_size": side}
    host = fl.models.build(network, **sizes, mean=0.5, std=0.3).eval()
    secret = Split(torch.rand(20, 3, side, side, generator=draw), labels[:20])
    return host, Split(images, labels), secret


def embedded(
    given: tuple[Classifier, Split, Split],
    device: torch.device,
    epochs: int = 2,
    **options: Any,
) -> tuple[Tensor, float]:
    """All weights after FixLL+PFL in float32, 20 steps an epoch; how far they moved."""
    host, images, secret = copy.deepcopy(given[0]).to(device), *given[1:]
    plan = training.Plan(
        method=fl.METHODS["FixLL+PFL"],
        epochs=epochs,
        learning_rate=1e-4,
        batch_size=32,
        seed=0,
        trigger_batch_size=4,
        augment=True,
        weights=(("PFL", 0.01),),
    )
    model = training.start(host, plan)
    how = {"triggers": secret.to(device), "host": host, **options}
    before = training.checkpoint.STATE_SECONDS
    training.checkpoint.STATE_SECONDS = 0.0
    try:
        training.train(model, plan, images.to(device), **how)
    finally:
        training.checkpoint.STATE_SECONDS = before
    ends = [
        torch.cat([p.detach().flatten().cpu() for p in m.parameters()])
        for m in (model, host)
    ]
    return ends[0], (ends[0] - ends[1]).norm().item()


def off(a: tuple[Tensor, float], b: tuple[Tensor, float]) -> float:
    """How far two ends are apart, over how far the first is from the start."""
    return (a[0] - b[0]).norm().item() / a[1]


class graphs:  # noqa: N801
    """With or without graphs, for a time."""

    def __init__(self, wanted: bool) -> None:
        self.wanted = wanted

    def __enter__(self) -> None:
        self.before, updates.GRAPHS = updates.GRAPHS, updates.GRAPHS and self.wanted

    def __exit__(self, *_: object) -> None:
        updates.GRAPHS = self.before


def speed(visit: Visit) -> None:
    """Stage b: images a second."""
    small = visit.small
    if not visit.time_for("b", "all", 30 if small else 75):
        return
    for size, triggers in ((32, 4), (224, 32))[: 1 if small else 2]:
        for method in ("FixLL+PFL", "FTAL+TWL")[: 1 if small else 2]:
            given = of_batch(size, triggers, 32 if small else 12_800)
            for precision in dict.fromkeys((torch.float32, AUTO)):
                loops = {
                    "plain": partial(plain, method, given, precision),
                    "fidlib": partial(ours, method, given, precision),
                }
                times = {name: [] for name in loops}
                for turn in range(2 if small else 3):
                    for name, loop in loops.items():
                        taken = seconds(loop)
                        times[name] += [taken] if turn else []  # the first warms up
                rates = {n: len(given.train) / min(t) for n, t in times.items()}
                rates["ratio"] = rates["fidlib"] / rates["plain"]
                what = f"{method}, batch {size} + {triggers}, {_kind(precision)}"
                visit.say("b", what, rates)
    alone = visit.report["b"][f"FixLL+PFL, batch 32 + 4, {_kind(AUTO)}"]["plain"]
    for jobs in (1,) if small else (4, 8):
        if visit.time_for("b", f"{jobs} jobs", 20 if small else 40):
            rate = together(jobs, small)
            numbers = {"images/s": rate, "of one plain loop's": rate / alone}
            visit.say("b", f"{jobs} jobs, batch 32 + 4", numbers)


def _kind(precision: torch.dtype) -> str:
    return str(precision).removeprefix("torch.")


def of_batch(size: int, triggers: int, images: int) -> Any:
    """What `embed_speed` times, in steps of so many."""
    given = setting("cifar10", images)
    sizes = {"batch_size": size, "trigger_batch_size": triggers}
    return replace(given, recipe=replace(given.recipe, **sizes))


def together(jobs: int, small: bool) -> float:
    """Images a second of so many trainings at once."""
    spawn = multiprocessing.get_context("spawn")
    barrier = spawn.Barrier(jobs)
    given = {"mp_context": spawn, "initializer": _meet, "initargs": (barrier,)}
    with ProcessPoolExecutor(jobs, **given) as workers:
        spans = [*workers.map(_one_of_many, [32 if small else 12_800] * jobs)]
    images = sum(count for count, *_ in spans)
    return images / (
        max(end for *_, end in spans) - min(start for _, start, _ in spans)
    )


def _meet(barrier: Any) -> None:
    global _barrier
    _barrier = barrier


def _one_of_many(images: int) -> tuple[int, float, float]:
    given = of_batch(32, 4, images)
    ours("FixLL+PFL", given, AUTO)
    _barrier.wait(timeout=120)  # one may have failed
    started = time.time()
    seconds(lambda: ours("FixLL+PFL", given, AUTO))
    return images, started, time.time()


def studies(visit: Visit, stage: str) -> None:
    """Stages c, d and e: models, one after the other or several at once.

    Raises:
        ValueError: If a set was brought here in part.
    """
    for config, names in (SMALL if visit.small else STUDIES)[stage]:
        if config.dataset == "cifar100":
            asked = study(config)
            images = [p.labels.bincount().tolist() for p in (asked.train, asked.test)]
            if images != [[500] * 100, [100] * 100]:
                raise ValueError("cifar100.npz lacks images: bring it again.")
        what = {name: _title(config, name) for name in names}
        done = visit.report.get(stage, {})
        names = [n for n in names if not isinstance(done.get(what[n]), dict)]
        most = room(visit, stage)
        for name in names[most:]:
            visit.say(stage, what[name], "left out: no room for it; visit once more")
        names = names[:most]
        until, with_graphs = STARTED + visit.budget, updates.GRAPHS
        tasks = [
            pool.Task(
                name,
                name,
                partial(outcome, config, name, until, with_graphs),
                ("host",) if name != "host" and "host" in names else (),
            )
            for name in names
        ]

        def finished(
            task: pool.Task,
            result: Any,
            config: fl.Config = config,
            what: dict[str, str] = what,
        ) -> None:
            if isinstance(result, Exception):
                result = f"failed: {' '.join(str(result).split())}"
            if isinstance(result, dict):
                result["parcel"] = packed(visit, stage, config, task.key)
            visit.say(stage, what[task.key], result)

        pool.run(tasks, finished, jobs=1 if stage == "c" else visit.jobs)


def _title(config: fl.Config, name: str) -> str:
    return f"{name}, seed {config.seed}"


def room(visit: Visit, stage: str) -> int:
    """How many models more the parcels may take."""
    sizes = [file.stat().st_size for file in visit.out.glob("*.zip")]
    inside = sum((FILE - size) // MODEL[stage] for size in sizes)
    inside += (FILES - len(sizes)) * (FILE // MODEL[stage])
    return max(0, min(inside, (TOGETHER - sum(sizes)) // MODEL[stage]))


def packed(visit: Visit, stage: str, config: fl.Config, name: str) -> str:
    """Put a model into a parcel with room for it, or one named after it; says which."""
    there = sorted(visit.out.glob("*.zip"))
    open_ones = [file for file in there if file.stat().st_size <= FILE - MODEL[stage]]
    new = visit.out / f"{stage}-{config.seed}-{name}.zip"  # as no other visit's
    path = open_ones[0] if open_ones else new
    pack(study(config), name, path)
    return path.name


STAGES: dict[str, Callable[[Visit], None]] = {
    "a": smoke,
    "b": speed,
    **{stage: partial(studies, stage=stage) for stage in STUDIES},
}


def options() -> argparse.Namespace:
    """What was asked for; of a machine without tyro, by argparse."""
    asked = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    asked.add_argument("--budget", type=float, required=True, help="seconds in all")
    asked.add_argument(
        "--out", type=Path, required=True, help="a folder to leave all in"
    )
    asked.add_argument("--stages", default="abcde", help="such as abc; all by default")
    asked.add_argument("--from", type=Path, dest="earlier", help="an earlier --out")
    asked.add_argument(
        "--jobs", type=int, default=4, help="models at a time in d and e"
    )
    asked.add_argument("--small", action="store_true", help="digits, without a GPU")
    arguments = asked.parse_args()
    if unknown := sorted({*arguments.stages} - {*STAGES}):
        asked.error(f"stages are {', '.join(STAGES)}, not {', '.join(unknown)}")
    if DEVICE.type != "cuda" and not arguments.small:
        asked.error("there is no GPU here: --small tries the script on digits")
    return arguments


def main() -> None:
    """Run the stages, one after the other."""
    asked = options()
    asked.out.mkdir(parents=True, exist_ok=True)
    visit = Visit(asked.budget, asked.out, asked.small, asked.jobs)
    if asked.earlier:
        os.environ["FIDLIB_RUNS"] = str(unpacked(asked.earlier).resolve())
        visit.report = json.loads((asked.earlier / "report.json").read_text("utf-8"))
    record = {**machine.provenance(), "stages": asked.stages, "budget": asked.budget}
    visit.say("visit", record["made"], record)
    for stage in asked.stages:
        try:
            STAGES[stage](visit)
        except Exception as error:  # the next stage may do
            visit.say(stage, "failed", f"{type(error).__name__}: {error}")
    visit.say("visit", "seconds", round(time.time() - STARTED, 1))


if __name__ == "__main__":
    main()
