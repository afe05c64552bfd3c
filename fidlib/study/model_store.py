"""A study's models by lineage: each made once, then read back."""

import copy
import json
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, cast

import pandas as pd
import torch

from fidlib import data, models, networks, training, triggers, weights
from fidlib.data import Split
from fidlib.measures.curve import Watch
from fidlib.models import Classifier
from fidlib.runs import keys, machine, store
from fidlib.study import parcel, reports
from fidlib.study.config import Config
from fidlib.study.images import Images
from fidlib.study.lineage import Lineage, Name
from fidlib.training import HOST, Diverged, Plan, Trained


class Stored(NamedTuple):
    """A model as it is kept, not to be handed out."""

    folder: Path
    """The folder of its run."""
    model: Classifier
    """The model itself, in eval mode."""
    fingerprint: str
    """Changes with any weight, buffer, name or layer."""


class ModelStore:
    """Makes the models of a configuration, or reads them back.

    Args:
        config: What they are of.
        host: A trained classifier of one's own to protect; trained when None.
        watermark: Triggers of one's own; the configuration's family when None.
    """

    def __init__(
        self,
        config: Config,
        host: Classifier | None,
        watermark: Split | Any | None,
    ) -> None:
        config.check()
        self.config = config
        self.device = machine.device()
        self.precision = machine.training_type(config.precision, self.device)
        self.recipe = training.recipe(config.dataset, config.scale)
        if config.epochs:
            self.recipe = self.recipe.with_epochs(config.epochs)
        self.images = Images(
            config, watermark, self.device, lambda: self.find("host").model
        )
        self.data = self.images.data
        self._manifest = self.data.manifest()
        self.given = None if host is None else self._checked_host(host)
        self.given_print = self.given and models.fingerprint(self.given)
        self._made: dict[str, Stored] = {}

    def shown(self, part: str) -> Split:
        """Images by part; of models without bodies, those whose outputs came along."""
        return self.carried(part) if self.light else self.images[part]

    def carried(self, part: str) -> Split:
        """Those images of a part whose outputs go into a parcel."""
        if part not in parcel.KEPT:
            return self.images[part]
        whole = self.images["test" if part == "test" else "train"]
        return whole.sample(parcel.KEPT[part])

    @cached_property
    def light(self) -> bool:
        """Whether its models came without their bodies, in a parcel."""
        return (store.place("host", self._key(Lineage())) / parcel.HEAD).exists()

    def find(self, of: Name) -> Stored:
        """A model, made first when it is missing.

        Raises:
            ValueError: If the lineage names no method or no attack, or the stored model
                was made of another than is stored.
            Diverged: If training it diverges.
        """
        lineage = Lineage.read(of)
        if lineage.key not in self._made:
            folder = self._run(lineage)
            if (folder / parcel.HEAD).exists():
                model = parcel.load(folder, self._blank())
                stored = Stored(folder, model, parcel.fingerprint(folder))
            else:
                model = self._read(lineage, folder)
                stored = Stored(folder, model, models.fingerprint(model))
            self._made[lineage.key] = stored
        return self._made[lineage.key]

    @property
    def host_key(self) -> str:
        """What the host's run is known by."""
        return keys.digest(self._key(Lineage()))

    def is_made(self, lineage: Lineage) -> bool:
        """Whether a model is there; what it is made of must be."""
        return store.is_made(_kind(lineage), self._key(lineage))

    def _run(self, lineage: Lineage) -> Path:
        """The run of a lineage, made first when it is missing."""
        kind, key, parent = _kind(lineage), self._key(lineage), lineage.parent
        build = {
            "host": self._make_host,
            "marked": self._make_marked,
            "attacked": self._make_attacked,
        }[kind]
        if parent is not None and not store.is_made(kind, key):
            if self.light:
                raise ValueError(
                    f"{lineage} did not come with the models of this study, and its "
                    "host came without weights to train from: leave it out."
                )
            self.find(parent)  # its seconds are not counted as this one's
        folder = store.make(kind, key, lambda path: build(lineage, path))
        if parent is not None and came_about(folder)["parent"] != self._seal(parent):
            raise ValueError(
                f"the run {folder} was made of another model than "
                f"{self.find(parent).folder}: delete it, and it is made again, or "
                "bring back what it was made of."
            )
        return folder

    def _read(self, lineage: Lineage, folder: Path) -> Classifier:
        path = folder / "model.safetensors"
        if lineage.parent is not None:
            like = self.find(lineage.parent).model
            like = lineage.attacks[-1].like(like) if lineage.attacks else like
            return models.load(path, like=like)
        like = self._blank() if self.given is None else self.given
        return models.load(path, like=like)

    def _key(self, lineage: Lineage) -> dict[str, object]:
        """All that decides a model, as JSON values."""
        config, train = self.config, self._learned(lineage)
        key: dict[str, object] = {
            "data": self._manifest,
            "train": {"images": len(train), "sha256": train.content},
            # As asked for: with auto, runs copied from a faster machine are read back.
            "precision": config.precision,
        }
        parent = lineage.parent
        if parent is None and self.given is not None:
            return {"data": self._manifest, "given": self.given_print}
        if parent is None:
            built = networks.find(config.network)
            key["network"] = [config.network]
            if not built.__module__.startswith("fidlib."):
                blank = keys.network(self._blank(), weights=False)
                key["network"] = [config.network, keys.code(built), blank]
            key["feature_dim"] = config.feature_dim
            return key | {"plan": self._plan(lineage).key()}
        key["parent"] = keys.digest(self._key(parent))
        if lineage.attacks:
            attack = lineage.attacks[-1]
            split = self.images[attack.preset.images]
            key["train"] = {"images": len(split), "sha256": split.content}
            key["attack"] = attack.definition()
            return key | {"seed": config.seed}
        if lineage.method is not None and lineage.method.learns_triggers:
            secret = self.images["triggers"]
            key["triggers"] = {"images": len(secret), "sha256": secret.fingerprint}
        return key | {"plan": self._plan(lineage).key()}

    def _plan(self, lineage: Lineage) -> Plan:
        method = lineage.method or HOST
        recipe, config = self.recipe, self.config
        if config.embed_epochs and lineage.method is not None:
            recipe = recipe.with_epochs(config.embed_epochs)
        if config.embed_rate and lineage.method is not None:
            recipe = recipe.with_rate(config.embed_rate)
        shown = triggers.SHOWN.get(self.config.triggers)
        if shown and self.images.watermark is None and method.learns_triggers:
            method = replace(method, shows=method.shows or shown)
        return Plan.of(method, recipe, seed=self.config.seed, precision=self.precision)

    def _learned(self, lineage: Lineage) -> Split:
        """The training images of a model; a host's key knows no triggers."""
        return self.images["train" if lineage.parent is None else "rest"]

    def _make_host(self, lineage: Lineage, folder: Path) -> float:
        watch = Watch(None, self.images["test"], None)
        if self.given is not None:
            row = {"epoch": 0, "loss": None, "seconds": 0.0} | watch(self.given)
            trained = Trained(copy.deepcopy(self.given), [row])
        else:
            trained = self._train(lineage, self._blank(), watch)
            watch.save(folder / "curve.safetensors")
        return self._store(lineage, folder, trained)

    def _make_marked(self, lineage: Lineage, folder: Path) -> float:
        host, plan = self.find("host").model, self._plan(lineage)
        secret = self.images["triggers"] if plan.method.learns_triggers else None
        watch = Watch(host, self.images["test"], secret)
        known = None
        if not (plan.augment or plan.method.mixes):
            shown = self._learned(lineage).images
            known = reports.outputs(host, self.find("host").fingerprint, shown)
        trained = self._train(
            lineage,
            training.start(host, plan),
            watch,
            triggers=secret,
            host=host,
            known=known,
        )
        watch.save(folder / "curve.safetensors")
        return self._store(lineage, folder, trained)

    def _make_attacked(self, lineage: Lineage, folder: Path) -> float:
        assert lineage.parent is not None
        victim = copy.deepcopy(self.find(lineage.parent).model)
        attack = lineage.attacks[-1]
        like = attack.like(copy.deepcopy(victim))
        split = self.images[attack.preset.images].copy()
        attacked = attack(victim, split, self.config.seed)
        wanted = models.fingerprint(attacked)
        models.save(attacked, folder / "model.safetensors")
        twin = models.load(folder / "model.safetensors", like=like)
        if models.fingerprint(twin) != wanted:
            raise ValueError(
                f"{attack} gave a model that its weights alone do not tell: an attack "
                "returns the architecture that it was given."
            )
        start = {"epoch": 0, "loss": None, "seconds": 0.0}  # it has no learning curve
        return self._store(lineage, folder, Trained(attacked, [start]))

    def _train(
        self, lineage: Lineage, model: Classifier, watch: Watch, **options: Any
    ) -> Trained:
        """Train; what was reached before a divergence is kept, apart from the runs."""
        kind, key, parent = _kind(lineage), self._key(lineage), lineage.parent
        train = self._learned(lineage)
        circumstances = {
            "precision": text(self.precision),
            "torch": str(torch.__version__),
            "parent": None if parent is None else self._seal(parent),
            # Batches and curves name images by their number.
            "order": [train.fingerprint, self.images["test"].fingerprint],
        }
        state = store.state(kind, key, circumstances)
        options |= {"observer": watch, "state": state}
        try:
            return training.train(model, self._plan(lineage), train, **options)
        except Diverged as error:
            state.unlink(missing_ok=True)
            folder = store.runs_root() / "diverged" / keys.digest([key, str(error)])
            models.save(error.trained.model, folder / "model.safetensors")
            pd.DataFrame(error.trained.history).to_csv(folder / "history.csv")
            kept = f"{error} The last good state is in {folder}."
            raise Diverged(kept, error.trained) from error

    def _store(self, lineage: Lineage, folder: Path, trained: Trained) -> float:
        models.save(trained.model, folder / "model.safetensors")
        history = pd.DataFrame(trained.history)
        history.to_csv(folder / "history.csv", index=False)
        given = lineage.parent is None and self.given is not None
        parent = lineage.parent
        how: dict[str, Any] = {
            "precision": None if given or lineage.attacks else text(self.precision),
            "parent": None if parent is None else self._seal(parent),
        }
        if lineage.attacks:
            how["attacker"] = self.images.attackers(lineage.attacks[-1].preset.images)
        store.write_json(folder / "training.json", how)
        return trained.before

    def _seal(self, lineage: Lineage) -> str:
        """The checksum of a model's stored weights."""
        done = json.loads((self.find(lineage).folder / "done.json").read_text("utf-8"))
        return done.get("left_out", done["files"])["model.safetensors"]

    def _blank(self) -> Classifier:
        """The configured architecture, with weights from the study's seed."""
        generator = keys.stream(self.config.seed, "host", "start")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(torch.randint(2**62, (), generator=generator).item())
            model = models.build(
                self.config.network,
                num_classes=len(self.data.classes),
                feature_dim=self.config.feature_dim,
                mean=self.data.mean,
                std=self.data.std,
                image_size=self.data.image_shape[1:],
            )
        return model.to(self.device)

    def _checked_host(self, host: Classifier) -> Classifier:
        """A copy: what its owner does to it later is no part of this study."""
        if not isinstance(host, Classifier):
            raise ValueError(
                f"host is a {type(host).__name__}; pass "
                "fidlib.models.wrap(network, ...)."
            )
        if host.num_classes != len(self.data.classes):
            raise ValueError(
                f"the host has {host.num_classes} classes, {self.config.dataset} "
                f"{len(self.data.classes)}; use the host's own data set."
            )
        return checked(host, self.data).to(self.device).eval()


def _kind(lineage: Lineage) -> str:
    if lineage.attacks:
        return "attacked"
    return "host" if lineage.parent is None else "marked"


def checked(model: Classifier, images: data.ImageSet) -> Classifier:
    """A copy without hooks, that takes these images.

    Raises:
        ValueError: If the model does not take them.
    """
    model = cast(Classifier, weights.settled(model))
    models.check_takes(model, images.train.images[:1].to(model.mean.device))
    return model


def came_about(folder: Path) -> dict[str, Any]:
    """Of a model's run: the `precision` it was trained in, its `parent`'s checksum; of
    an attacked one, what the `attacker` had.
    """
    return json.loads((folder / "training.json").read_text("utf-8"))


def text(precision: torch.dtype) -> str:
    """The type's name, `float32` or `bfloat16`."""
    return str(precision).removeprefix("torch.")
