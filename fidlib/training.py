"""The one loop: host training, embedding, fine-tuning are calls of it."""

import copy
import math
import os
import sys
import time
import tomllib
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from fidlib.data import Split, batches, crop_and_flip, endless_batches, mix
from fidlib.features import Outputs, outputs
from fidlib.folding import fold
from fidlib.methods import METHODS, Method, Step
from fidlib.models import Classifier, fresh
from fidlib.quiet import QuietAdam, projections
from fidlib.runs import stream, written

CURVE_POINTS = 6
"""A learning curve has this many measurements, spread evenly, and one at the start: at
ends of epochs if there are so many, else within them too."""

STATE_SECONDS = 300.0
"""A training that is given a file for it writes its state so often, to go on from there
when it is stopped."""

COMPILE: dict[str, dict[str, Any]] = {}
"""Kind of device -> options of `torch.compile` for the bodies in a training step.

Empty: they run as they are. A GPU may wait for the launches of a small network, which a
CUDA graph makes at once: `COMPILE["cuda"] = {"mode": "reduce-overhead"}`. That has not
been measured, so it is off; on a CPU nearly all of a step is convolution."""


@dataclass(frozen=True)
class Schedule:
    """How long and how fast one training runs."""

    epochs: int
    """Passes over the training images."""
    learning_rate: float
    """Adam's, at the start."""
    decay: Literal["constant", "half", "cosine"] = "constant"
    """Not at all; x 0.1 after half the epochs; or up over the first tenth, then along
    a cosine to 0."""
    coarse: float = 0.0
    """Share of the steps, from the first, that see images of half the side, in a third
    of the time; for a body that is trained and takes any size. A preserving term holds
    their features to the host's of the whole image."""
    triggers: int = 0
    """Triggers in a step; 0: as many as the recipe says."""

    def __post_init__(self) -> None:
        if self.decay not in ("constant", "half", "cosine"):
            raise ValueError(f"decay is {self.decay!r}; use constant, half or cosine.")
        if not 0 <= self.coarse < 1:
            raise ValueError(f"coarse is {self.coarse:g}; use a share in [0, 1).")
        if self.triggers < 0:
            raise ValueError(
                f"triggers is {self.triggers}; use a number, or 0 for the recipe's."
            )

    def key(self) -> dict[str, object]:
        """What a run is known by; without `coarse` where it is 0, as it was before.

        The number of triggers has a place of its own there.
        """
        values = asdict(self)
        del values["triggers"]
        if not self.coarse:
            del values["coarse"]
        return values

    def factor(self, progress: float) -> float:
        """Learning rate as a fraction of the first, at `progress` in [0, 1)."""
        if self.decay == "cosine":
            warm = 0.1
            if progress < warm:  # Adam's first steps are its largest
                return max(progress / warm, 0.01)
            return 0.5 * (1 + math.cos(math.pi * (progress - warm) / (1 - warm)))
        return 0.1 if self.decay == "half" and progress >= 0.5 else 1.0


@dataclass(frozen=True)
class Recipe:
    """Everything about training that depends on the data and not on the method."""

    batch_size: int
    """Training images in a step."""
    trigger_batch_size: int
    """Triggers in a step, unless a schedule says otherwise."""
    augment: bool
    """Whether images are cropped and flipped at random."""
    quiet: float
    """Energy, in means over a layer's inputs, up to which a direction is quiet."""
    weights: Mapping[str, Mapping[str, float]]
    """`default`, or a method's name -> preserving term -> its weight in the loss."""
    schedules: Mapping[str, Schedule]
    """Method name, or else its start -> schedule; the host's is `ref`."""

    def schedule(self, method: Method) -> Schedule:
        """The schedule of a method."""
        return self.schedules.get(method.name, self.schedules[method.start])

    def triggers_of(self, method: Method) -> int:
        """Triggers in a step of a method."""
        return self.schedule(method).triggers or self.trigger_batch_size

    def weights_of(self, method: Method) -> dict[str, float]:
        """The weights of a method's terms: its own, else the default."""
        return {**self.weights["default"], **self.weights.get(method.name, {})}

    def quiet_of(self, method: Method) -> float:
        """How quiet a direction must be for a method to use it; 0: it uses all."""
        return self.quiet if method.quiet is None else method.quiet

    def with_epochs(self, epochs: int) -> "Recipe":
        """The same recipe with every schedule at `epochs`."""
        schedules = {n: replace(s, epochs=epochs) for n, s in self.schedules.items()}
        return replace(self, schedules=schedules)


@cache
def _recipes() -> dict[str, dict[str, Recipe]]:
    text = Path(__file__).with_name("recipes.toml").read_text()
    return {
        dataset: {
            scale: Recipe(
                **values | {"schedules": {n: Schedule(**s) for n, s in schedules}}
            )
            for scale, values in scales.items()
            if (schedules := values["schedules"].items())
        }
        for dataset, scales in tomllib.loads(text).items()
    }


def recipe(dataset: str, scale: str = "default") -> Recipe:
    """The recipe of a data set at a scale.

    Args:
        dataset: As in `data.load`; sets without recipes of their own use `any`'s.
        scale: `default`, the set's first, or a name in `recipes.toml`, such as `paper`
            or `hours`.

    Raises:
        ValueError: If there is no such scale.
    """
    recipes = _recipes()
    scales = recipes["any"] | recipes.get(dataset, {})
    if scale == "default":
        return next(iter(recipes.get(dataset, scales).values()))
    if scale not in scales:
        raise ValueError(
            f"unknown scale {scale!r} for {dataset}; use default or one of "
            f"{', '.join(scales)}."
        )
    return scales[scale]


@dataclass
class Trained:
    """A trained model and how it got there."""

    model: Classifier
    """In eval mode."""
    history: list[dict[str, float | None]] = field(default_factory=list)
    """A row per measured epoch: epoch, loss, seconds, and what `measure` gave."""
    before: float = 0.0
    """Seconds that it had taken when it was stopped, if it was, and went on here."""


class Diverged(ArithmeticError):
    """A training whose loss is no longer a number; its text says what to do.

    Args:
        message: One sentence.
        trained: After the last good epoch, or where a stopped training was taken up.
    """

    def __init__(self, message: str, trained: Trained) -> None:
        super().__init__(message)
        self.trained = trained


Measure = Callable[[Classifier], Mapping[str, float | None]]
"""What a learning curve shows: numbers of a model, by name."""


def fit(
    model: Classifier,
    train: Split,
    recipe: Recipe,
    *,
    seed: int,
    precision: torch.dtype = torch.float32,
    measure: Measure | None = None,
    state: Path | None = None,
) -> Trained:
    """Train a host: a freshly initialised classifier on labelled images.

    Args:
        model: Where training starts; trained in place.
        train: Its images, on its device.
        recipe: How.
        seed: Decides the order of the images and the augmentation.
        precision: Type of the forward and backward pass.
        measure: Called at the start and `CURVE_POINTS` times.
        state: File to go on from if it is there, written every `STATE_SECONDS`. It is
            this training's alone, with these arguments on this machine; whoever asks
            for it deletes it when it is over.

    Raises:
        Diverged: If the loss is no longer a number.
    """
    loop = _Loop(METHODS["ref"], model, model, train, None, recipe, seed, precision)
    return loop.run("host", measure, state)


def embed(
    host: Classifier,
    method: Method,
    train: Split,
    triggers: Split,
    recipe: Recipe,
    *,
    seed: int,
    precision: torch.dtype = torch.float32,
    measure: Measure | None = None,
    known: Outputs | None = None,
    state: Path | None = None,
) -> Trained:
    """Embed a watermark: a marked model from a host, which is not changed.

    Args:
        host: The classifier to protect, on the device of the images.
        method: How the marked model starts, what is trained and what preserved.
        train: The host's training images.
        triggers: The watermark.
        recipe: Schedule, batch sizes and weights.
        seed: Decides random starts, the order of images and triggers, augmentation.
        precision: Type of the forward and backward pass.
        measure: Called at the start and `CURVE_POINTS` times.
        known: The host's outputs on `train`, float32; computed when needed if None.
        state: As in `fit`.

    Raises:
        Diverged: If the loss is no longer a number.
    """
    host = copy.deepcopy(host).eval().requires_grad_(False)
    if method.start == "host":
        model = copy.deepcopy(host)
    else:
        model = fresh(host, stream(seed, method.name, "start")).to(host.mean.device)
        if method.trained == "body":
            model.head.load_state_dict(host.head.state_dict())
    loop = _Loop(method, model, host, train, triggers, recipe, seed, precision, known)
    return loop.run(method.name, measure, state)


class _Copy(torch.nn.Module):
    def forward(self, features: Tensor) -> Tensor:
        return features.clone()


class _Loop:
    """One training; the same for every method."""

    def __init__(
        self,
        method: Method,
        model: Classifier,
        host: Classifier,
        train: Split,
        triggers: Split | None,
        recipe: Recipe,
        seed: int,
        precision: torch.dtype,
        known: Outputs | None = None,
    ) -> None:
        self.method, self.recipe, self.schedule = (
            method,
            recipe,
            recipe.schedule(method),
        )
        self.train, self.triggers = train, triggers
        self.model = model
        self.host, self.host_parameters = host, dict(host.named_parameters())
        self.terms = method.weighted(recipe.weights_of(method))
        self.precision = precision
        self.device = train.images.device
        role = "host" if triggers is None else method.name
        self.order = stream(seed, role, "order")
        self.augmentation = stream(seed, role, "augmentation")
        self.layers = stream(seed, role, "layers").initial_seed()  # dropout's
        self.changes_images = recipe.augment or method.mixes
        draws = stream(seed, role, "triggers")
        self.draws: Iterator[Tensor] | None = None
        if triggers is not None and method.learns != "train":
            size = recipe.triggers_of(method)
            self.draws = endless_batches(len(triggers), size, draws, self.device)
        self.host_table = known
        self.trigger_table: Tensor | None = None
        self._select_trained_part()
        if self.device.type in COMPILE:
            torch.compiler.reset()  # graphs of an earlier training hold its weights
        # From the host, BatchNorm is frozen; the host's own always is.
        body = self._folded(model) if method.start == "host" else model.body
        host_body = self._folded(host) if triggers is not None else host.body
        self.body, self.host_body = self._compiled(body), self._compiled(host_body)
        self.optimizer = self._optimizer()
        self.steps = max(1, -(-len(train) // recipe.batch_size))  # of an epoch
        self.history: list[dict[str, float | None]] = []
        self.total = torch.zeros((), device=self.device)  # loss of the epoch's steps
        self.resumed = 0  # steps that were taken before it was stopped
        self.coarse = False  # whether this step sees images of half the side

    def _select_trained_part(self) -> None:
        """Mark what is trained; BatchNorm's own parameters stay when it is frozen."""
        frozen_norm = self.method.start == "host"
        for name, module in self.model.named_modules():
            in_head = name == "head"
            wanted = {"all": True, "head": in_head, "body": not in_head}
            norm = isinstance(module, torch.nn.modules.batchnorm._BatchNorm)
            trained = wanted[self.method.trained] and not (norm and frozen_norm)
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(trained)

    def _folded(self, model: Classifier) -> torch.nn.Module:
        few = model.normalise(self.train.images[:2])
        return fold(model.body, few.contiguous(memory_format=torch.channels_last))

    def _compiled(self, body: torch.nn.Module) -> torch.nn.Module:
        options = COMPILE.get(self.device.type)
        if options is None:
            return body
        compiled = torch.compile(body, **options)
        # A CUDA graph writes its next answer where this one lies.
        return torch.nn.Sequential(cast(torch.nn.Module, compiled), _Copy())

    def run(self, title: str, measure: Measure | None, state: Path | None) -> Trained:
        """All epochs, or those left; the process's random state is as it was after."""
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(self.layers)
            return self._run(title, measure, state)

    def _run(self, title: str, measure: Measure | None, state: Path | None) -> Trained:
        rate, epochs = self.schedule.learning_rate, self.schedule.epochs
        self.measure, points = measure, self._points()
        before = self._go_on(state) if state is not None and state.exists() else 0.0
        self.kept_at = time.perf_counter()
        self.started = self.kept_at - before
        good = copy.deepcopy(self.model.state_dict())

        if not self.history:
            self._record(0, math.nan)
        bar = tqdm(range(epochs), title, unit="epoch", leave=False, disable=_quiet())
        for epoch in bar:
            loss = self._epoch(epoch, state, points)
            if loss is None:
                continue
            if not (math.isfinite(loss) and self._finite()):
                self.model.load_state_dict(good)
                raise Diverged(
                    f"training {title} diverged in epoch {epoch + 1} (mean loss "
                    f"{loss:g}): lower the learning rate ({rate:g}) or the weights "
                    f"({self.recipe.weights_of(self.method)}) of the recipe.",
                    Trained(self.model.eval(), self.history),
                )
            good = copy.deepcopy(self.model.state_dict())
            if (epoch + 1) * self.steps in points:
                self._record(epoch + 1, loss)
        self.model.requires_grad_(True)
        return Trained(self.model.eval(), self.history, before)

    def _optimizer(self) -> torch.optim.Adam:
        trained = [p for p in self.model.parameters() if p.requires_grad]
        rate = self.schedule.learning_rate
        quiet = self.recipe.quiet_of(self.method)
        if not quiet:
            return torch.optim.Adam(trained, rate, fused=True)
        where = projections(self.model, self.train.images, quiet)
        return QuietAdam(trained, rate, where, self.precision)

    def _points(self) -> set[int]:
        """After how many steps the model is measured."""
        epochs = self.schedule.epochs
        ideal = [epochs * i / CURVE_POINTS for i in range(1, CURVE_POINTS + 1)]
        if epochs >= CURVE_POINTS:
            ideal = [round(epoch) for epoch in ideal]
        return {round(epoch * self.steps) for epoch in ideal}

    def _record(self, epoch: float, loss: float) -> None:
        """A row of the learning curve; the loss is the mean of the epoch so far."""
        if self.measure is None:
            return
        mode = self.model.training
        self.model.eval()
        seconds = round(time.perf_counter() - self.started, 2)
        row: dict[str, float | None]
        row = {"epoch": epoch, "loss": loss, "seconds": seconds}
        found = self.measure(self.model).items()  # NumPy's floats cannot be kept
        row |= {n: None if v is None else float(v) for n, v in found}
        self.history.append(row)
        self.model.train(mode)

    def _finite(self) -> bool:
        """Whether the last step, too, left numbers behind."""
        return all(t.isfinite().all() for t in self.model.state_dict().values())

    def _epoch(self, epoch: int, state: Path | None, points: set[int]) -> float | None:
        """The mean loss; None if the epoch was over when the training was stopped."""
        self.model.train(self.method.start == "random")
        first = epoch * self.steps
        steps = batches(len(self.train), self.steps, self.order, self.device)
        for step, index in enumerate(steps, first):
            drawn = None if self.draws is None else next(self.draws)
            if step < self.resumed:
                continue  # taken before; its images and triggers were drawn again
            if state is not None:
                self._keep(state, step)
            progress = (epoch + (step - first) / self.steps) / self.schedule.epochs
            self.coarse = progress < self.schedule.coarse
            for group in self.optimizer.param_groups:
                rate = self.schedule.learning_rate * self.schedule.factor(progress)
                group["lr"] = rate
            if self.device.type in COMPILE:
                torch.compiler.cudagraph_mark_step_begin()
            loss = self._loss(index, drawn)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.total += loss.detach()
            taken = step + 1 - first
            if step + 1 in points and taken < self.steps and self._finite():
                self._record((step + 1) / self.steps, self.total.item() / taken)
        if first + self.steps <= self.resumed:
            return None
        mean, self.total = self.total / self.steps, torch.zeros_like(self.total)
        return mean.item()

    def _keep(self, state: Path, step: int) -> None:
        """Write down everything that the next steps depend on, if it is time to."""
        if time.perf_counter() - self.kept_at < STATE_SECONDS or not self._finite():
            return
        values = {
            "step": step,
            "seconds": time.perf_counter() - self.started,
            "history": self.history,
            "total": self.total,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "parameters": self._parameters(),
            "augmentation": self.augmentation.get_state(),
            "layers": torch.get_rng_state(),
        }
        if self.device.type == "cuda":
            values["layers_cuda"] = torch.cuda.get_rng_state(self.device)
        try:
            with written(state) as temporary:
                torch.save(values, temporary)
        except (OSError, RuntimeError) as error:  # training needs no disk
            warnings.warn(
                f"the state in {state} was not written: {error}", stacklevel=2
            )
        self.kept_at = time.perf_counter()

    def _go_on(self, state: Path) -> float:
        """From where a training was stopped.

        Returns:
            Seconds that it had taken.
        """
        try:
            values = torch.load(state, map_location="cpu", weights_only=True)
        except Exception as error:  # whatever a torn file makes of torch's reader
            text = f"{state} cannot be read ({error!r}): training begins anew."
            warnings.warn(text, stacklevel=2)
            return 0.0
        self.resumed, self.history = values["step"], values["history"]
        self.total.copy_(values["total"])
        self.model.load_state_dict(values["model"])
        self.optimizer.load_state_dict(values["optimizer"])
        for parameter, value in zip(
            self._parameters(), values["parameters"], strict=True
        ):
            parameter.copy_(value)
        self.augmentation.set_state(values["augmentation"])
        torch.set_rng_state(values["layers"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(values["layers_cuda"], self.device)
        return values["seconds"]

    def _parameters(self) -> list[Tensor]:
        """What the optimizer moves: the weights, or QuietAdam's V, which moves them."""
        groups = self.optimizer.param_groups
        return [p.detach() for group in groups for p in group["params"]]

    def _loss(self, index: Tensor, drawn: Tensor | None) -> Tensor:
        """Cross-entropy of what is learned plus what is to be preserved."""
        images, labels = self.train.images[index], self.train.labels[index]
        if self.recipe.augment:
            images = crop_and_flip(images, self.augmentation)
        if self.method.mixes:
            images = mix(images, self.augmentation)
        features = self._features(index, images, drawn)
        if self.triggers is not None and drawn is not None:
            labels = torch.cat([labels, self.triggers.labels[drawn]])
        logits = self.model.head(features)
        first = len(index) if self.method.learns == "triggers" else 0
        loss = F.cross_entropy(logits[first:], labels[first:])
        if self.terms:
            step = Step(
                model=self.model,
                host=self.host,
                host_parameters=self.host_parameters,
                images=images,
                features=features[: len(index)],
                logits=logits[: len(index)],
                host_outputs=lambda: self._host_outputs(index, images),
            )
            for term, weight in self.terms:
                loss = loss + weight * term(step)
        return loss

    def _features(self, index: Tensor, images: Tensor, drawn: Tensor | None) -> Tensor:
        """Features of the batch, then of the triggers drawn."""
        triggers = None if self.triggers is None or drawn is None else self.triggers
        if self.method.start == "host" and self.method.trained == "head":
            # The body never changes, so the host's features are the model's.
            parts = [self._host_outputs(index, images)[0]]
            if triggers is not None:
                if self.trigger_table is None:
                    self.trigger_table = outputs(self.host, triggers.images).features
                parts.append(self.trigger_table[drawn])
            return torch.cat(parts)
        shown = self.model.normalise(images)
        if triggers is not None:
            secret = self.model.normalise(triggers.images[drawn])
            shown = torch.cat([shown, secret])
        if self.coarse:
            shown = F.avg_pool2d(shown, 2)
        return self._body(self.body, shown)

    def _body(self, body: torch.nn.Module, shown: Tensor) -> Tensor:
        """Features of normalised images: float32, computed in training precision."""
        shown = shown.contiguous(memory_format=torch.channels_last)
        fast = self.precision != torch.float32
        with torch.autocast(self.device.type, self.precision, enabled=fast):
            return body(shown).float()

    @torch.no_grad()
    def _host_outputs(self, index: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        """The host's answer: looked up, unless augmentation changes the images."""
        if self.changes_images:
            features = self._body(self.host_body, self.host.normalise(images))
            return features, self.host.head(features)
        if self.host_table is None:
            self.host_table = outputs(self.host, self.train.images)
        features, logits = self.host_table
        return features[index], logits[index]


def _quiet() -> bool:
    """No progress bar where nobody looks: only a terminal or JupyterLab shows one."""
    return not (sys.stderr.isatty() or "JPY_SESSION_NAME" in os.environ)
