"""From a `Config` to models, their outputs and reports: each made once, then read back.

A model is named by its lineage: `host`, `FixLL+PFL`, `FixLL+PFL/prune:0.4`.
"""

import copy
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from torch.nn.utils.parametrize import is_parametrized

from fidlib import methods, models
from fidlib.data import Split
from fidlib.measures import boundary, curve
from fidlib.measures.catalogue import MEASURES, ON_REQUEST, usual
from fidlib.measures.curve import Curve
from fidlib.measures.fidelity import Fidelity, named
from fidlib.measures.pair import Pair
from fidlib.models import Classifier, Outputs
from fidlib.runs import keys, store
from fidlib.study import jobs, premise, registries, reports
from fidlib.study.config import Config
from fidlib.study.lineage import Lineage, Name, several
from fidlib.study.model_store import ModelStore, Stored, came_about, checked, text

ON_TRAIN = ("pfl", "spl", "agreement", "accuracy")
"""Measures that a table shows of the training images, too."""


class Study:
    """One configuration with its models, their outputs and reports.

    Whatever it is asked for is read from the run store, or made first when it is not
    there. So a study can be written down in any notebook, as often as one likes. What
    it hands out is a copy: nothing that is done to it gets into the store.

    Args:
        config: What it is about.
        host: A trained classifier of your own to protect, e.g. from `models.wrap`; the
            configuration's network is trained when None.
        watermark: Triggers of your own, or what `Split.of` takes; the configuration's
            family when None.

    Raises:
        ValueError: If one of them is of another type, or they do not fit.
    """

    def __init__(
        self,
        config: Config | None = None,
        *,
        host: Classifier | None = None,
        watermark: Split | Any | None = None,
    ) -> None:
        if not isinstance(config, Config | None):
            raise ValueError(f"config is {config!r}; pass fidlib.Config(...).")
        self.config = config or Config()
        self._store = ModelStore(self.config, host, watermark)

    def __repr__(self) -> str:
        config, shape = self.config, "x".join(map(str, self.image_shape))
        network = self._network()
        train, test = (len(self._store.images[part]) for part in ("train", "test"))
        mark = self._store.images.watermark
        secret = f"{config.trigger_count} triggers ({config.triggers})"
        return (
            f"{config.dataset}: {train:,} train and {test:,} test images, {shape}, "
            f"{len(self.classes)} classes; {network['model']}, D = "
            f"{network['feature_dim']}; "
            f"{secret if mark is None else f'{len(mark)} triggers of your own'}; "
            f"seed {config.seed}; {self.device.type}, trains in "
            f"{text(self._store.precision)}; runs in {_short(store.runs_root())}"
        )

    @property
    def device(self) -> torch.device:
        """Where its models are trained and run."""
        return self._store.device

    @property
    def classes(self) -> tuple[str, ...]:
        """The K class names."""
        return self._store.data.classes

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """`(C, H, W)` of every image."""
        return self._store.data.image_shape

    @property
    def labels(self) -> str:
        """How its triggers are labelled, of `triggers.Labels`; empty if unknown."""
        return self._store.images.labels

    @property
    def train(self) -> Split:
        """What the host was trained on."""
        return self.images("train")

    @property
    def test(self) -> Split:
        """What models are judged on."""
        return self.images("test")

    @property
    def triggers(self) -> Split:
        """The watermark; its family may look at the host, which is made if needed."""
        return self.images("triggers")

    def images(self, part: str) -> Split:
        """A copy of some of its images, by their names in `study.images`."""
        return self._store.shown(part).copy()

    def secret(self, seed: int) -> Split:
        """The triggers of another seed, by the study's family and host: a fresh key."""
        return self._store.images.secret(seed).copy()

    def model(self, of: Name = "host") -> Classifier:
        """A model by its lineage, in eval mode; trained or made when it is missing.

        Raises:
            ValueError: If the lineage names no method or no attack.
            Diverged: If training it diverges.
        """
        return copy.deepcopy(self._store.find(of).model)

    def folder(self, of: Name = "host") -> Path:
        """Where a model and its history are stored."""
        return self._store.find(of).folder

    def fingerprint(self, of: Name = "host") -> str:
        """What a model is known by: alike for the same network and weights."""
        return self._store.find(of).fingerprint

    def history(self, of: Name = "host") -> pd.DataFrame:
        """Learning curve: a row per measured point, measured on test images."""
        return pd.read_csv(self.folder(of) / "history.csv")

    def curve(self, of: Name = "host") -> Curve:
        """A model's outputs at the points of its learning curve.

        Raises:
            ValueError: If none were kept: of a host of one's own, an attacked model,
                and what was trained before fidlib kept them; or if the test images
                came in another order then.
        """
        path = self.folder(of) / "curve.safetensors"
        if not path.exists():
            raise ValueError(
                f"no outputs were kept while {of} was trained: train it anew with "
                "fidlib, in another run store."
            )
        return curve.read(path, self._store.images["test"])

    def outputs(
        self,
        of: Name | Classifier = "host",
        images: str | Tensor | Split | Any = "test",
    ) -> Outputs:
        """Features and logits of a model, kept.

        Args:
            of: A lineage, or any classifier.
            images: Of the study by name, as in `images`, or `(N, C, H, W)` pixels, as a
                tensor or array, or with labels.
        """
        split = self._store.shown(images) if isinstance(images, str) else images
        if not isinstance(split, Split) and hasattr(split, "shape"):
            split = Split(split, torch.zeros(len(split), dtype=torch.long))
        shown = Split.of(split).images.to(self.device)
        stored = self._find(of)
        return reports.outputs(stored.model, stored.fingerprint, shown)

    def regions(
        self, of: Name, corners: Tensor, *, resolution: int = 90
    ) -> boundary.Regions:
        """The classes a model names in the triangle of three images, kept.

        Args:
            of: A lineage.
            corners: `(3, C, H, W)` pixels.
            resolution: R, points a side.
        """
        stored, shown = self._find(of), corners.to(self.device)
        return reports.regions(stored.model, stored.fingerprint, shown, resolution)

    def fidelity(
        self,
        of: Name | Classifier,
        against: Name | Classifier = "host",
        split: str | Split | Any = "test",
        *,
        measures: Iterable[str] | None = None,
    ) -> Fidelity:
        """How far a model is from the host, or from another model; kept.

        Planes, segments and halves are drawn: of the same images in another order,
        those that were drawn first are read.

        Args:
            of: A lineage, or any classifier.
            against: The reference, likewise.
            split: The images to compare on: `train`, `test`, or what `Split.of` takes.
            measures: Those to have, by name. When None all but those of
                `ON_REQUEST`, and of `train` none of the boundary.
        """
        if isinstance(split, str) and split not in ("train", "test"):
            raise ValueError(f"split is {split!r}; use train, test or a data.Split.")
        names = _asked(split) if measures is None else named(measures)
        return self._fidelity(of, against, split, names)

    def table(self, models: Iterable[Name] | None = None) -> pd.DataFrame:
        """A row per model, the host's first: what is missing is made first.

        Args:
            models: Lineages; all of `METHODS` when None.

        Returns:
            Indexed by `method`; a column for each measure of `MEASURES` that tables
            show. Those of features and outputs have `_test` appended, or `_train`.
        """
        names = methods.METHODS if models is None else models
        lineages = [Lineage(), *several(names)]
        rows = [self._row(one) for one in {one.key: one for one in lineages}.values()]
        return pd.DataFrame(rows).set_index("method")

    def make(self, models: Iterable[Name], **options: Any) -> None:
        """Make what is missing of several models, in parallel; see `fidlib.make`."""
        given = self._store.given  # one that computes weights goes to no other process
        if given is not None and any(map(is_parametrized, given.modules())):
            options.setdefault("jobs", 1)
        jobs.make([(self, models)], **options)

    def __reduce__(self) -> tuple:
        given, secret = self._store.given, self._store.images.watermark
        return _restored, (registries.user_entries(), self.config, given, secret)

    @property
    def key(self) -> str:
        """A digest, the same for studies of one configuration, host and triggers."""
        secret = self._store.images.watermark
        prints = [self._store.given_print, secret and secret.fingerprint]
        return keys.digest([vars(self.config), *prints])

    @property
    def host_key(self) -> str:
        """A digest, the same for studies with one host, whatever their triggers."""
        return self._store.host_key

    def record(self, models: Iterable[Name] = ()) -> dict[str, object]:
        """What its numbers were made with, for `report.Output.provenance`.

        Args:
            models: Those that they are of, besides the host; none for numbers of
                models that are not the study's.

        Returns:
            The configuration, with the images and the precisions that it came to. And
            `models`, by name: epochs ("given" for a host that came trained, None for an
            attacked model), precision and seconds; when, where and with which commit it
            was made; of an attacked model what its attacker had.
        """
        asked = several(models)
        details = {str(m): self._how(m) for m in [Lineage(), *asked]}
        types = {how["precision"] for how in details.values()} - {None}
        came_to: dict[str, object] = {
            "epochs": self.config.epochs or "the recipe's",
            "train_images": len(self._store.images["train"]),
            "test_images": len(self._store.images["test"]),
            "trigger_count": len(self._store.images["triggers"]),
            "precision": ", ".join(sorted(types)),
        }
        came_to["models"] = details if asked else {}
        return copy.deepcopy({**vars(self.config), **self._network(), **came_to})

    def describe(self, of: Name = "host") -> str:
        """One line on a model, made first when it is missing."""
        lineage = Lineage.read(of)
        done = json.loads((self.folder(lineage) / "done.json").read_text("utf-8"))
        when = f"made {done['made'][:16]} in {done['seconds']:.1f} s"
        fingerprint, test = self.fingerprint(lineage), self._store.images["test"].images
        if lineage.attacks and not reports.is_kept(fingerprint, test):
            return f"{lineage!s:20} {when}"  # nobody has asked yet what it answers
        report = self.fidelity(lineage, measures=("accuracy", "trigger_accuracy"))
        return (
            f"{lineage!s:20} test accuracy {report.accuracy:.3f}, triggers "
            f"{report.trigger_accuracy:.2f}; {when}"
        )

    def check_premise(self, models: Iterable[Name] = ()) -> list[str]:
        """Raise if a picture of this study would mean nothing.

        Args:
            models: Those whose watermarks the picture is about.

        Returns:
            The names of those that answer nine triggers in ten, or more.

        Raises:
            ValueError: If the host is no better than a guess, already answers the
                triggers, or no model learned them.
        """
        secret, classes = len(self._store.images["triggers"]), len(self.classes)
        return premise.check(self.table(models), classes, secret, self.labels)

    def _how(self, lineage: Lineage) -> dict[str, Any]:
        folder = self.folder(lineage)
        done = json.loads((folder / "done.json").read_text("utf-8"))
        row = {n: done[n] for n in ("seconds", "made", "commit", "machine")}
        ended = int(self.history(lineage).epoch.iloc[-1])
        epochs = None if lineage.attacks else ended or "given"
        about = came_about(folder)
        row |= {"attacker": about["attacker"]} if "attacker" in about else {}
        return {"epochs": epochs, "precision": about["precision"], **row}

    def _find(self, of: Name | Classifier) -> Stored:
        """A model, not to be handed out; of one that was handed in, a copy."""
        if isinstance(of, Classifier):
            model = checked(of, self._store.data).to(self.device).eval()
            return Stored(Path(), model, models.fingerprint(model))
        return self._store.find(of)

    def _pair(
        self, of: Name | Classifier, against: Name | Classifier, split: str | Split
    ) -> tuple[dict[str, object], Pair]:
        """What tells a pair from others, and the pair on outputs that are kept."""
        host, marked = self._find(against), self._find(of)
        if isinstance(split, str):  # of light models train is a sample
            source = self._store
            images = source.shown(split) if split == "train" else source.images[split]
        else:  # a copy's content is computed anew, whatever became of the images since
            images = Split.of(split).copy()
        images, secret = images.to(self.device), self._store.images["triggers"]
        key: dict[str, object] = {
            "host": host.fingerprint,
            "marked": marked.fingerprint,
            "images": images.content,
            "triggers": secret.content,
        }
        # A measure of the user's own may do anything to what it is handed.
        images, secret = images.copy(), secret.copy()
        reference = copy.deepcopy(host.model)
        same = marked.fingerprint == host.fingerprint
        model = reference if same else copy.deepcopy(marked.model)
        prints = {id(model): marked.fingerprint, id(reference): host.fingerprint}

        def run(asked: Classifier, shown: Tensor) -> Outputs:
            # Of all training images only the host's are kept: training asks again.
            unkept = split == "train" and not self._store.light
            if unkept and shown is images.images and asked is not reference:
                return models.outputs(asked, shown)
            return reports.outputs(asked, prints[id(asked)], shown)

        return key, Pair(reference, model, images, secret, run=run)

    def _fidelity(
        self,
        of: Name | Classifier,
        against: Name | Classifier,
        split: str | Split,
        names: Iterable[str],
    ) -> Fidelity:
        key, pair = self._pair(of, against, split)
        return reports.fidelity(key, names, lambda: pair, len(pair))

    def _row(self, of: Name) -> dict[str, object]:
        lineage = Lineage.read(of)
        test = self.fidelity(lineage)
        train = self._fidelity(lineage, "host", "train", ON_TRAIN)
        row: dict[str, object] = {"method": str(lineage)}
        for name in (n for n, measure in MEASURES.items() if measure.in_table):
            on_images = MEASURES[name].level in ("features", "outputs")
            if name in ON_TRAIN:
                row[f"{name}_train"] = train[name].value
            row[f"{name}_test" if on_images else name] = test[name].value
        return row

    def is_missing(self, lineage: Lineage, parts: Iterable[str]) -> bool:
        """Whether a model, its reports or its outputs on some images are to be made.

        What it is made of must be there.
        """
        if not self._store.is_made(lineage):
            return True
        for split, names in _along_with(lineage, parts).items():
            if reports.missing(self._pair(lineage, "host", split)[0], names):
                return True
        fingerprint = self.fingerprint(lineage)
        return any(
            not reports.is_kept(fingerprint, self._store.shown(part).images)
            for part in {*parts}.difference(ON_REQUEST)
        )

    def complete(self, lineage: Lineage, parts: Iterable[str]) -> None:
        """Make a model, its reports and its outputs on some images."""
        trained = self._store.is_made(lineage)
        self._store.find(lineage)
        for split, names in _along_with(lineage, parts).items():
            self._fidelity(lineage, "host", split, names)
        new = not trained and not lineage.attacks
        kept = ("test", "triggers", "sample") if new else ()
        for part in {*parts, *kept}.difference(ON_REQUEST):
            self.outputs(lineage, part)

    def _network(self) -> dict[str, object]:
        """What it studies: the configuration's network, or a host of one's own."""
        if self._store.given is None:
            config = self.config
            return {"model": config.network, "feature_dim": config.feature_dim}
        dim = self._store.given.feature_dim
        return {"model": "a host of your own", "feature_dim": dim}


def _restored(
    entries: registries.Entries, config: Config, host: Any, watermark: Any
) -> Study:
    """A study in another process, which lacks what the user added to registries."""
    registries.add(entries)
    return Study(config, host=host, watermark=watermark)


def _asked(split: str | Split) -> list[str]:
    """Measures of a report: the boundary is looked at from one split."""
    skipped = "boundary" if split == "train" else ""
    return [name for name in usual() if MEASURES[name].level != skipped]


def _along_with(lineage: Lineage, parts: Iterable[str]) -> dict[str, list[str]]:
    """What is measured as soon as a model is there: split -> measures.

    Attacked models come by the dozen: they are measured when somebody asks.

    Args:
        lineage: The model.
        parts: Images on which its outputs are wanted, and levels that are.
    """
    levels = {*parts}.intersection(ON_REQUEST)
    asked = [name for name, row in MEASURES.items() if row.level in levels]
    if lineage.attacks:
        return {"test": asked} if asked else {}
    return {"test": _asked("test") + asked, "train": [*ON_TRAIN]}


def _short(path: Path) -> str:
    """A path from the project root, when it is inside."""
    root = store.project_root()
    return str(path.relative_to(root) if path.is_relative_to(root) else path)
