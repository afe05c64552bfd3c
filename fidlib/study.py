"""From a `Config` to host, marked models and reports: made once, then read back."""

import copy
import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd
import torch

from fidlib import data, models, networks, runs, source, training, triggers
from fidlib.data import Split
from fidlib.features import Outputs, outputs
from fidlib.fidelity import Comparison, Fidelity
from fidlib.methods import LEARNED, METHODS, Method, find
from fidlib.models import Classifier
from fidlib.runs import Precision
from fidlib.training import Diverged

Part = Literal["train", "test"]

CURVE_IMAGES = 2000
"""Learning curves are measured on so many test images, at most; reports on all."""


@dataclass(frozen=True)
class Config:
    """What a study is about; equal configurations share their results."""

    dataset: str = "digits"
    """digits, mnist, cifar10, cifar100, or the path of an .npz in Keras' layout."""
    model: str = "resnet18"
    """resnet18 (the paper's), wrn28_10, convnet, or your own of fidlib.MODELS."""
    feature_dim: int = 2
    """D, the penultimate features; at 2 their picture is exact."""
    seed: int = 0
    """Decides weights, order and triggers."""
    scale: str = "default"
    """How long to train: default, or a scale in recipes.toml, such as hours."""
    epochs: int = 0
    """Epochs of every training; 0: the recipe's."""
    train_images: int = 0
    """Train on the first so many images; 0: on all."""
    chains: int = 10
    """Chains of triggers, n."""
    links: int = 0
    """Triggers in a chain, m; 0: one for each class, ten at most."""
    precision: Precision = "auto"
    """Type to train in; auto: bfloat16 where the hardware is fast at it. What another
    machine made with auto is read back in the type that it chose."""

    def check(self) -> None:
        """Raise ValueError if a field has a type or value that makes no sense."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            kind = int if isinstance(field.default, int) else str
            if not isinstance(value, kind) or isinstance(value, bool):
                raise ValueError(
                    f"{field.name} is {value!r}; expected {kind.__name__}, such as "
                    f"{field.default!r}."
                )
        least_values = {"feature_dim": 2, "epochs": 0, "train_images": 0, "links": 0}
        for name, least in least_values.items():
            if getattr(self, name) < least:
                raise ValueError(
                    f"{name} is {getattr(self, name)}; it must be at least {least}."
                )
        if self.precision not in ("auto", "float32", "bfloat16"):
            raise ValueError(
                f"precision is {self.precision!r}; use auto, float32 or bfloat16."
            )


class Study:
    """One configuration with its host, its marked models and their measurements.

    Whatever it is asked for is read from the run store, or made first when it is not
    there; so a study can be written down in any notebook, as often as one likes.

    Args:
        config: What it is about.
        host: A trained classifier of your own to protect, e.g. from `models.wrap`; the
            configuration's model is trained when None.
        watermark: Triggers of your own; the configuration's noise chain when None.
    """

    def __init__(
        self,
        config: Config | None = None,
        *,
        host: Classifier | None = None,
        watermark: Split | None = None,
    ) -> None:
        self.config = config = config or Config()
        config.check()
        self.device = runs.pick_device()
        self.precision = runs.pick_precision(config.precision, self.device)
        self.data = data.load(config.dataset)
        self.recipe = training.recipe(config.dataset, config.scale)
        if config.epochs:
            self.recipe = self.recipe.with_epochs(config.epochs)
        self.train = self.data.train.first(config.train_images or len(self.data.train))
        self.train = self.train.to(self.device)
        self.test = self.data.test.to(self.device)
        self._models: dict[str, Classifier] = {}
        self._folders: dict[str, Path] = {}
        self._comparisons: dict[str, Comparison] = {}
        self._manifest = self.data.manifest()
        self._given: Classifier | None = None
        networks.find(config.model)
        if host is not None:
            self._check_given(host)
        watermark = self._noise_chain() if watermark is None else watermark
        self.triggers = watermark.to(self.device)
        self._check_triggers()

    def __repr__(self) -> str:
        config, shape = self.config, "x".join(map(str, self.data.image_shape))
        network = self._network()
        return (
            f"{config.dataset}: {len(self.train):,} train and {len(self.test):,} test "
            f"images, {shape}, {len(self.data.classes)} classes; {network['model']}, "
            f"D = {network['feature_dim']}; "
            f"{len(self.triggers)} triggers; seed {config.seed}; {self.device.type}, "
            f"trains in {_text(self.precision)}; runs in {_short(runs.runs_root())}"
        )

    def host(self) -> Classifier:
        """The unwatermarked model, in eval mode."""
        if "host" not in self._models:
            folder = runs.make("host", self._host_key(), self._make_host)
            self._remember("host", folder, like=self._given or self._blank())
        return self._models["host"]

    def marked(self, method: str | Method) -> Classifier:
        """The marked model that a method makes of the host, in eval mode.

        `ref`, the reference of [2], is the host itself.

        Raises:
            ValueError: If there is no method of that name.
            Diverged: If training it diverges.
        """
        method = find(method)
        if method == METHODS["ref"]:
            return self.host()
        name = self._name(method)
        if name not in self._models:
            key = self._marked_key(method)
            if not (runs.place("marked", key) / "done.json").exists():
                self._host_outputs()  # the host's part, not counted as the method's
            folder = runs.make("marked", key, lambda f: self._make_marked(method, f))
            self._check_origin(folder)
            self._remember(name, folder, like=self.host())
        return self._models[name]

    def fidelity(self, method: str | Method, split: Part = "test") -> Fidelity:
        """How far a method's marked model is from the host.

        Args:
            method: Of `METHODS` by name, or your own; `host` compares it with itself.
            split: The images to compare on; only `test` is asked for the boundary.
        """
        if split not in ("train", "test"):
            raise ValueError(f"split is {split!r}; use train or test.")
        return Fidelity(**self._report(method)[split])

    def table(self, methods: Iterable[str | Method] | None = None) -> pd.DataFrame:
        """A row per method, the host's first: what is missing is embedded first.

        Args:
            methods: Names or methods; all of `METHODS` when None.

        Returns:
            Indexed by method. `twl`, `lp` and `trigger_accuracy` of the model,
            `plane_disagreement` through test images; `pfl`, `spl`, `agreement` and
            `accuracy` with `_train` and `_test` appended.
        """
        names = list(METHODS) if methods is None else list(methods)
        return pd.DataFrame([self._row(m) for m in ["host", *names]]).set_index(
            "method"
        )

    def record(self, methods: Iterable[str | Method] = ()) -> dict[str, object]:
        """What its numbers were made with, for `report.Output.provenance`.

        Args:
            methods: Those whose models they are of, besides the host; none for numbers
                of other models.

        Returns:
            The configuration, with the images and the precisions that it came to, and
            `models`: name -> epochs ("given" for a host that came trained), precision,
            seconds, when, where and with which commit it was made.
        """
        models, methods = {}, ["host", *methods]
        types = {self._report(m)["precision"] for m in methods} - {None}
        for method in methods if len(methods) > 1 else []:
            found = METHODS["ref"] if method == "host" else find(method)
            done = json.loads((self.folder(method) / "done.json").read_text())
            made = {n: done[n] for n in ("seconds", "made", "commit", "machine")}
            epochs = int(self.history(method).epoch.iloc[-1]) or "given"
            name = "host" if found == METHODS["ref"] else found.name
            models[name] = {
                "epochs": epochs,
                "precision": self._report(method)["precision"],
                **made,
            }
        came_to = {
            "epochs": self.config.epochs or "the recipe's",
            "train_images": len(self.train),
            "test_images": len(self.test),
            "precision": ", ".join(sorted(types)),
        }
        return {**vars(self.config), **self._network(), **came_to, "models": models}

    def history(self, method: str | Method = "host") -> pd.DataFrame:
        """Learning curve: a row per measured epoch, measured on the test images."""
        return pd.read_csv(self.folder(method) / "history.csv")

    def outputs(
        self, method: str | Method = "host", images: Part | Literal["triggers"] = "test"
    ) -> Outputs:
        """Features and logits of a model on the study's images.

        Args:
            method: Whose; `host`, a name or a method.
            images: Which.
        """
        split = {"train": self.train, "test": self.test, "triggers": self.triggers}
        if images not in split:
            raise ValueError(f"images is {images!r}; use {', '.join(split)}.")
        return outputs(self.model(method), split[images].images)

    def model(self, method: str | Method = "host") -> Classifier:
        """`host()` for `host`, else `marked(method)`."""
        return self.host() if method == "host" else self.marked(method)

    def folder(self, method: str | Method = "host") -> Path:
        """Where a model, its history and its metrics are stored."""
        self.model(method)
        host = method == "host" or find(method) == METHODS["ref"]
        return self._folders["host" if host else self._name(find(method))]

    def describe(self, method: str | Method = "host") -> str:
        """One line on a model, made first when it is missing."""
        name = "host" if method == "host" else find(method).name
        done = json.loads((self.folder(method) / "done.json").read_text())
        report = self.fidelity(method)
        return (
            f"{name:20} test accuracy {report.marked_accuracy:.3f}, triggers "
            f"{report.trigger_accuracy:.2f}; made {done['made'][:16]} in "
            f"{done['seconds']:.1f} s"
        )

    def check_premise(self, methods: Iterable[str | Method] = ()) -> list[str]:
        """Raise if a picture of this study would mean nothing.

        Args:
            methods: Those whose watermarks the picture is about.

        Returns:
            The names of those that answer nine triggers in ten, or more.

        Raises:
            ValueError: If the host is no better than a guess, already answers the
                triggers, or no method learned them.
        """
        classes, row = len(self.data.classes), self.table([*methods])
        accuracy, answered = row.loc["host", ["accuracy_test", "trigger_accuracy"]]
        guess = 1 / classes
        if accuracy < min(2 * guess, (1 + guess) / 2):
            raise ValueError(
                f"the host gets {accuracy:.1%} of the test images right, hardly more "
                f"than a guess among {classes} classes: train it longer (epochs), or "
                "choose another seed."
            )
        # Three standard deviations of a guesser on so many triggers, or 0.15.
        chance = 3 * (guess * (1 - guess) / len(self.triggers)) ** 0.5
        if answered > guess + max(0.15, chance):
            raise ValueError(
                f"the host answers {answered:.1%} of the triggers, so they prove no "
                "watermark: choose another seed, or more chains."
            )
        reached = row.trigger_accuracy.drop("host").to_dict()
        learned = [name for name, share in reached.items() if share >= LEARNED]
        if reached and not learned:
            raise ValueError(
                f"no method answers the triggers ({reached}), so there is no watermark "
                "to look at: train longer (epochs)."
            )
        return learned

    def _report(self, method: str | Method) -> dict:
        return json.loads((self.folder(method) / "metrics.json").read_text())

    def _row(self, method: str | Method) -> dict[str, object]:
        train, test = (self.fidelity(method, part) for part in ("train", "test"))
        row = {
            "method": "host" if method == "host" else find(method).name,
            "trigger_accuracy": test.trigger_accuracy,
            "twl": test.twl,
            "lp": test.lp,
            "plane_disagreement": test.plane_disagreement,
        }
        for part, report in (("train", train), ("test", test)):
            row[f"pfl_{part}"] = report.pfl
            row[f"spl_{part}"] = report.spl
            row[f"agreement_{part}"] = report.agreement
            row[f"accuracy_{part}"] = report.marked_accuracy
        return row

    def _blank(self) -> Classifier:
        """The configured architecture, with weights from the study's seed."""
        generator = runs.stream(self.config.seed, "host", "start")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(torch.randint(2**62, (), generator=generator).item())
            model = models.build(
                self.config.model,
                num_classes=len(self.data.classes),
                feature_dim=self.config.feature_dim,
                mean=self.data.mean,
                std=self.data.std,
                image_size=self.data.image_shape[1],
            )
        return model.to(self.device)

    def _network(self) -> dict[str, object]:
        """What it studies: the configuration's network, or a host of one's own."""
        if self._given is None:
            names = ("model", "feature_dim")
            return {name: getattr(self.config, name) for name in names}
        dim = self._given.feature_dim
        return {"model": "a host of your own", "feature_dim": dim}

    def _noise_chain(self) -> Split:
        """In the space that the host sees: a host of one's own normalises itself."""
        mean, std, channels = self.data.mean, self.data.std, self.data.image_shape[0]
        if self._given is not None:
            own = self._given.mean[:, 0, 0], self._given.std[:, 0, 0]
            if len(own[0]) != channels:  # grey images, seen in three colours
                own = [values.mean()[None] for values in own]
            mean, std = (values.tolist() for values in own)
        return triggers.noise_chain(
            self.data.image_shape,
            num_classes=len(self.data.classes),
            mean=mean,
            std=std,
            chains=self.config.chains,
            links=self.config.links or min(10, len(self.data.classes)),
            seed=self.config.seed,
        )

    def _check_triggers(self) -> None:
        shape, classes = tuple(self.triggers.images.shape[1:]), len(self.data.classes)
        if shape != self.data.image_shape:
            raise ValueError(
                f"triggers are {shape}, the images {self.data.image_shape} (channels, "
                "height, width); make them alike."
            )
        labels = self.triggers.labels
        if not len(labels) or labels.min() < 0 or labels.max() >= classes:
            raise ValueError(
                f"the triggers' labels are {sorted(set(labels.tolist()))}; give at "
                f"least one trigger, and labels from 0 to {classes - 1}."
            )

    def _check_given(self, host: Classifier) -> None:
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
        # A copy: what its owner does to it later is no part of this study.
        self._given = copy.deepcopy(host).to(self.device).eval()
        self._given_fingerprint = models.fingerprint(self._given)

    def _common_key(self) -> dict[str, object]:
        config = self.config
        network = networks.MODELS[config.model]
        own = not network.__module__.startswith("fidlib.")
        return {
            "data": self._manifest,
            "train_images": {"images": len(self.train), "sha256": self.train.content},
            "triggers": {
                "images": len(self.triggers),
                "sha256": self.triggers.fingerprint,
            },
            "model": [config.model, source.code(network) if own else None],
            "feature_dim": config.feature_dim,
            "seed": config.seed,
            # As asked for: with auto, runs copied from a faster machine are read back.
            "precision": config.precision,
            "batch_size": self.recipe.batch_size,
            "augment": self.recipe.augment,
        }

    def _host_key(self) -> dict[str, object]:
        if self._given is not None:
            return self._common_key() | {"model": self._given_fingerprint}
        schedule = self.recipe.schedule(METHODS["ref"])
        return self._common_key() | {"schedule": schedule.key()}

    def _marked_key(self, method: Method) -> dict[str, object]:
        terms = method.weighted(self.recipe.weights_of(method))
        return self._common_key() | {
            "host": runs.digest(self._host_key()),
            "method": method.definition(),
            "weights": [weight for _, weight in terms],
            "quiet": self.recipe.quiet_of(method),
            "schedule": self.recipe.schedule(method).key(),
            "trigger_batch_size": self.recipe.triggers_of(method),
        }

    def _make_host(self, folder: Path) -> float:
        if self._given is not None:
            start = {"epoch": 0, "loss": None, "seconds": 0.0}
            trained = training.Trained(
                self._given, [start | dict(self._judge(self._given))]
            )
        else:
            trained = self._trained(
                "host",
                self._host_key(),
                training.fit,
                self._blank(),
                self.train,
                self.recipe,
                measure=self._judge,
            )
        self._store(folder, trained, trained.model)
        return trained.before

    def _make_marked(self, method: Method, folder: Path) -> float:
        trained = self._trained(
            "marked",
            self._marked_key(method),
            training.embed,
            self.host(),
            method,
            self.train,
            self.triggers,
            self.recipe,
            measure=self._comparison(self.host(), "curve").distances,
            known=self._host_outputs(),
        )
        self._store(folder, trained, self.host())
        return trained.before

    def _trained(self, kind, key, train, *arguments, **options) -> training.Trained:
        """Train; what was reached before a divergence is kept, apart from the runs."""
        circumstances = {
            "precision": _text(self.precision),
            "torch": str(torch.__version__),
            "compile": repr(training.COMPILE.get(self.device.type)),
            "host": self._host_seal() if kind == "marked" else None,
            "order": self.train.fingerprint,  # batches name images by their number
        }
        state = runs.state(kind, key, circumstances)
        options |= {"seed": self.config.seed, "precision": self.precision}
        try:
            return train(*arguments, **options, state=state)
        except Diverged as error:
            state.unlink(missing_ok=True)
            folder = runs.runs_root() / "diverged" / runs.digest([key, str(error)])
            models.save(error.trained.model, folder / "model.safetensors")
            pd.DataFrame(error.trained.history).to_csv(folder / "history.csv")
            kept = f"{error} The last good state is in {folder}."
            raise Diverged(kept, error.trained) from error

    def _judge(self, model: Classifier) -> dict[str, float | None]:
        """A host's learning curve: it has no distance from itself."""
        curve = self.test.first(CURVE_IMAGES)
        found = Comparison(model, curve, self.triggers).distances(model)
        return {name: found[name] for name in ("accuracy", "trigger_accuracy")}

    def _host_outputs(self) -> Outputs:
        """On the training images: what reports compare with, training may look up."""
        return Outputs(
            *(t.float() for t in self._comparison(self.host(), "train").outputs)
        )

    def _comparison(
        self, host: Classifier, part: Literal["train", "test", "curve"]
    ) -> Comparison:
        """The host's side, computed once a study."""
        if part not in self._comparisons:
            curve = self.test.first(CURVE_IMAGES)
            split = {"train": self.train, "test": self.test, "curve": curve}[part]
            look = {"boundary": part == "test"}  # one boundary, seen from one split
            self._comparisons[part] = Comparison(host, split, self.triggers, **look)
        return self._comparisons[part]

    def _store(self, folder: Path, trained: training.Trained, host: Classifier) -> None:
        given = host is trained.model and self._given is not None
        models.save(trained.model, folder / "model.safetensors")
        history = pd.DataFrame(trained.history)
        history.to_csv(folder / "history.csv", index=False)
        report: dict[str, object] = {
            part: dataclasses.asdict(self._comparison(host, part)(trained.model))
            for part in ("train", "test")
        }
        report["precision"] = None if given else _text(self.precision)
        if host is not trained.model:
            report["host"] = self._host_seal()
        runs.write_json(folder / "metrics.json", report)

    def _remember(self, name: str, folder: Path, like: Classifier) -> None:
        model = models.load(folder / "model.safetensors", like=like)
        self._models[name], self._folders[name] = model, folder

    def _host_seal(self) -> str:
        """The checksum of the host's stored weights."""
        done = json.loads((self.folder("host") / "done.json").read_text())
        return done["files"]["model.safetensors"]

    def _check_origin(self, folder: Path) -> None:
        """A store may have lost its host, and made another in another precision."""
        made_of = json.loads((folder / "metrics.json").read_text())["host"]
        if made_of != self._host_seal():
            host = self.folder("host")
            raise ValueError(
                f"the run {folder} was made of another host than {host}: delete it, "
                "and it is made again, or bring back its host."
            )

    def _name(self, method: Method) -> str:
        return runs.digest(method.definition())


def over_seeds(
    config: Config, methods: Iterable[str | Method], seeds: Iterable[int]
) -> pd.DataFrame:
    """Tables of several seeds, below one another: each its host, triggers and order.

    Args:
        config: All but the seed.
        methods: Rows, after the host's.
        seeds: At least two, for a spread.

    Returns:
        As `Study.table`, indexed by method and seed, a seed's rows together.

    Raises:
        ValueError: If there are fewer than two seeds.
    """
    seeds, methods = list(dict.fromkeys(seeds)), list(methods)
    if len(seeds) < 2:
        raise ValueError(f"seeds are {seeds}; a spread needs at least two.")
    rows = []
    for seed in seeds:
        table = Study(dataclasses.replace(config, seed=seed)).table(methods)
        rows.append(table.assign(seed=seed).set_index("seed", append=True))
    return pd.concat(rows)


def _text(precision: torch.dtype) -> str:
    return str(precision).removeprefix("torch.")


def _short(path: Path) -> str:
    """A path from the project root, when it is inside."""
    root = runs.project_root()
    return str(path.relative_to(root) if path.is_relative_to(root) else path)
