"""The one loop: hosts, embeddings and attacks by training are calls of `train`."""

import copy
import itertools
import math
import os
import sys
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from tqdm import tqdm

from fidlib.data import Split
from fidlib.models import Classifier, Outputs, fresh
from fidlib.runs import machine
from fidlib.runs.keys import stream
from fidlib.training.batches import draws
from fidlib.training.checkpoint import Checkpoint, Progress, Stateful
from fidlib.training.objective import Objective
from fidlib.training.plan import Plan
from fidlib.training.quiet import QuietAdam, projections
from fidlib.training.updates import Updates
from fidlib.weights import at_rest

CURVE_POINTS = 8
"""A learning curve has this many measurements, spread evenly, and one at the start: at
ends of epochs if there are so many, else within them too; one a step if there are
fewer steps."""

Row = dict[str, float | None]


class Observer(Protocol):
    """What looks at a model along its training, and may keep what it saw."""

    def __call__(self, model: Classifier, /) -> Mapping[str, float | None]:
        """The numbers of a row of the learning curve; the model is in eval mode."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """All it has collected, as tensors, numbers, lists and dicts of them."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> object:
        """Go on from a `state_dict`, when a training that was stopped goes on."""
        ...


@dataclass
class Trained:
    """A trained model and how it got there."""

    model: Classifier
    """The trained model, in eval mode."""
    history: list[Row] = field(default_factory=list)
    """A row per point of the curve: epoch, loss (the mean of the epoch so far),
    seconds, and what the observer saw."""
    before: float = 0.0
    """Seconds that it had taken when it was stopped, if it was, and went on here."""


class Diverged(ArithmeticError):
    """A training whose loss or weights are no longer numbers; it says what to do.

    Args:
        message: One sentence.
        trained: At the last good point of the curve, or where it was taken up.
    """

    def __init__(self, message: str, trained: Trained) -> None:
        super().__init__(message)
        self.trained = trained

    def __reduce__(self) -> tuple:
        return type(self), (str(self), self.trained)  # it comes back from a worker


def start(host: Classifier, plan: Plan) -> Classifier:
    """The model that a plan's training starts with; the host is not changed.

    Args:
        host: Its copy, or a random start of its architecture, is returned.
        plan: Says which; one whose method trains the body alone keeps the host's head.
    """
    method = plan.method
    if method.start == "host":
        return copy.deepcopy(host)
    model = fresh(host, stream(plan.seed, method.name, "start")).to(host.mean.device)
    if method.trained == "body":
        model.head.load_state_dict(host.head.state_dict())
    return model


def train(
    model: Classifier,
    plan: Plan,
    images: Split,
    *,
    triggers: Split | None = None,
    host: Classifier | None = None,
    known: Outputs | None = None,
    observer: Observer | None = None,
    state: Path | None = None,
) -> Trained:
    """Train a classifier.

    Args:
        model: Where training starts, such as from `start`; trained in place.
        plan: How it is trained.
        images: Training images, on the model's device.
        triggers: The watermark; needed where it is learned.
        host: What terms compare with; needed for them, and to train the head alone.
        known: The host's outputs on `images`, float32; computed when needed if None.
        observer: Called at the start and at `CURVE_POINTS` points.
        state: File of this training to go on from; whoever names it deletes it.

    Returns:
        The model, in eval mode, all its parameters free to be trained again.

    Raises:
        ValueError: If triggers, host or gradients are missing.
        Diverged: If the loss or a weight is no longer a number.
    """
    device = images.images.device
    # Whatever somebody switched at the top of a notebook is not of the training.
    switched = torch.autocast(device.type, enabled=False)
    exact = machine.ieee(benchmark=True)
    with torch.enable_grad(), switched, exact, _own_randomness(device):
        objective = Objective(
            model, plan, images, triggers=triggers, host=host, known=known
        )
        epoch_steps = plan.steps(len(images))
        optimizer = _optimizer(model, plan, images)
        kept: dict[str, Stateful] = {"optimizer": optimizer}
        kept |= {} if observer is None else {"observer": observer}
        checkpoint = Checkpoint(state, model, kept, device)
        torch.manual_seed(stream(plan.seed, plan.method.name, "layers").initial_seed())
        progress = checkpoint.read()
        path = _Path(model, plan, epoch_steps, progress, observer)
        update = Updates(objective, optimizer)
        secret = 0 if objective.triggers is None else len(objective.triggers)
        steps = draws(plan, len(images), secret, device)
        total = plan.epochs * epoch_steps
        for step, draw in enumerate(tqdm(steps, plan.method.name, total, **_bar())):
            if step < progress.step:
                continue  # taken before it was stopped; only drawn again
            if checkpoint.due() and path.is_finite():
                checkpoint.write(path.timed())
            past = path.past(step)
            loss = update(draw, rate=plan.rate(past), coarse=past < plan.coarse)
            path.took(step, loss)
    return path.ended()


class _Path:
    """Where a training is: it measures the curve, and stops what has diverged."""

    def __init__(
        self,
        model: Classifier,
        plan: Plan,
        epoch_steps: int,
        progress: Progress,
        observer: Observer | None,
    ) -> None:
        self.model, self.plan, self.epoch_steps = model, plan, epoch_steps
        self.progress, self.observer = progress, observer
        self.points = _points(plan.epochs, epoch_steps)
        self.masks = {n for n, b in model.named_buffers() if not b.isfinite().all()}
        self.before = progress.seconds
        self.started = time.perf_counter() - progress.seconds
        self.good = copy.deepcopy(model.state_dict())
        if not progress.history:
            progress.history.append(_row(0, math.nan, 0, model, observer))

    def past(self, step: int) -> float:
        """The share of the training before a step."""
        epoch, within = divmod(step, self.epoch_steps)
        return (epoch + within / self.epoch_steps) / self.plan.epochs

    def is_finite(self) -> bool:
        """Whether all weights and buffers are numbers, but for what never was."""
        tensors = itertools.chain(
            self.model.named_parameters(), self.model.named_buffers()
        )
        finite = [t.isfinite().all() for n, t in tensors if n not in self.masks]
        return bool(torch.stack(finite).all())

    def timed(self) -> Progress:
        """How far it has come, with its seconds."""
        self.progress.seconds = time.perf_counter() - self.started
        return self.progress

    def took(self, step: int, loss: Tensor) -> None:
        """Note a step; look at the model where the curve has a point.

        Raises:
            Diverged: If the loss or a weight is no longer a number.
        """
        progress, taken = self.progress, step % self.epoch_steps + 1
        progress.step = step + 1
        progress.total = loss if taken == 1 else progress.total + loss
        if progress.step not in self.points and taken < self.epoch_steps:
            return
        mean = progress.total.item() / taken
        if not (math.isfinite(mean) and self.is_finite()):
            self.model.load_state_dict(self.good)
            epoch = step // self.epoch_steps
            raise Diverged(_advice(self.plan, epoch, mean), self.ended())
        self.good = copy.deepcopy(self.model.state_dict())
        if progress.step in self.points:
            at, seconds = progress.step / self.epoch_steps, self.timed().seconds
            row = _row(at, mean, seconds, self.model, self.observer)
            progress.history.append(row)

    def ended(self) -> Trained:
        """The model as it now is, and how it got there."""
        model = self.model.eval().requires_grad_(True)
        return Trained(model, self.progress.history, self.before)


def _optimizer(model: Classifier, plan: Plan, images: Split) -> torch.optim.Optimizer:
    """That of the trained part; from the host, BatchNorm may stay as it is."""
    part = plan.method.trained
    frozen_norm = plan.method.start == "host" and not plan.trains_norm
    model.train(not frozen_norm)
    if part == "body":
        model.head.eval()  # a weight that is computed stays as it is
    model.body.requires_grad_(part != "head")
    model.head.requires_grad_(part != "body")
    for module in model.modules():
        if frozen_norm and isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.requires_grad_(False)
    trained = [p for p in model.parameters() if p.requires_grad]
    if plan.optimizer == "sgd":
        groups = [
            {"params": [p for p in trained if p.ndim > 1]},
            {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
        ]
        how = {"weight_decay": plan.weight_decay, "momentum": 0.9, "nesterov": True}
        return torch.optim.SGD(groups, plan.learning_rate, **how, fused=True)
    if not plan.quiet:
        cuda = images.images.is_cuda
        rate = plan.learning_rate
        return torch.optim.Adam(trained, rate, fused=True, capturable=cuda)
    where = projections(model, images.images, plan.quiet)
    return QuietAdam(trained, plan.learning_rate, where, plan.precision)


def _points(epochs: int, steps: int) -> set[int]:
    """After how many steps, `steps` an epoch, the model is looked at."""
    shares = [i / CURVE_POINTS for i in range(1, CURVE_POINTS + 1)]
    if epochs >= CURVE_POINTS:
        return {round(epochs * share) * steps for share in shares}
    return {round(epochs * steps * share) for share in shares}


def _row(
    epoch: float,
    loss: float,
    seconds: float,
    model: Classifier,
    observer: Observer | None,
) -> Row:
    """A row of the learning curve; looking changes nothing in what follows."""
    row: Row = {"epoch": epoch, "loss": loss, "seconds": round(seconds, 2)}
    if observer is None:
        return row
    with _own_randomness(model.mean.device), at_rest(model):
        values = observer(model)
    # NumPy's floats cannot be kept in a state file.
    return row | {n: None if v is None else float(v) for n, v in values.items()}


def _advice(plan: Plan, epoch: int, loss: float) -> str:
    weights = f" or the weights ({dict(plan.weights)})" if plan.weights else ""
    return (
        f"training {plan.method.name} diverged in epoch {epoch + 1} (mean loss "
        f"{loss:g}): lower the learning rate ({plan.learning_rate:g}){weights} of the "
        "recipe."
    )


def _own_randomness(device: torch.device) -> AbstractContextManager[None]:
    """Draws inside, such as dropout's, leave the process's as they were."""
    return torch.random.fork_rng([device] if device.type == "cuda" else [])


def _bar() -> dict[str, Any]:
    """No progress bar where nobody looks: only a terminal or JupyterLab shows one."""
    seen = sys.stderr.isatty() or "JPY_SESSION_NAME" in os.environ
    return {"unit": "step", "leave": False, "disable": not seen}
