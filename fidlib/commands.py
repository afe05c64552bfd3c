"""The owner's commands, and what several commands read."""

import csv
import json
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_origin

import tyro
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
)

from fidlib.study.config import Config

if TYPE_CHECKING:
    from fidlib.data import ImageSet
    from fidlib.models import Classifier


READERS = ConstructorRegistry()
"""How options are read that are no plain numbers and texts."""


@READERS.primitive_rule
def _named(kind: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """Mappings, such as the options of triggers: `labels=permuted links=5`."""
    if get_origin(kind.type) is not Mapping:
        return None
    return PrimitiveConstructorSpec(
        nargs="*",
        metavar="NAME=VALUE",
        instance_from_str=_pairs,
        is_instance=lambda value: isinstance(value, Mapping),
        str_from_instance=lambda value: [
            f"{n}={json.dumps(v)}" for n, v in value.items()
        ],
    )


def _pairs(texts: list[str]) -> dict[str, Any]:
    pairs = dict(map(_pair, texts))
    if len(pairs) < len(texts):
        raise ValueError(f"{' '.join(texts)} names an option twice")
    return pairs


def _pair(text: str) -> tuple[str, Any]:
    """A name and its value: a number, true, false or a text."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise ValueError(f"{text!r} is no NAME=VALUE")
    if name in ("labels", "dataset"):  # texts, whatever they look like
        return name, value
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


@dataclass(frozen=True)
class Commit:
    """Write the owner's key, and print its commitment: publish it before the model.

    The key is the seed and the rest of the configuration: draw a long --seed, and keep
    the file to yourself. Plain chains prove little; --triggers noise, or
    --trigger-options labels=permuted, prove more.
    """

    key: tyro.conf.Positional[Path]
    """Where to write it, such as key.json."""
    images: Path | None = None
    """Write the triggers there as well, an .npz of images and labels: what to ask of a
    suspect behind an API."""
    config: tyro.conf.OmitArgPrefixes[Config] = field(default_factory=Config)

    def __call__(self) -> int:
        from fidlib import ownership
        from fidlib.study.study import Study

        check_file("key", self.key)
        check_file("images", self.images)
        if self.images and self.images.resolve() == self.key.resolve():
            raise ValueError(f"key and images are both {self.key}: name two files.")
        if self.key.exists():
            raise ValueError(f"{self.key} exists: a key is never written over.")
        study = Study(self.config)
        print(study)
        key = ownership.commit(study, self.key)
        if self.images:
            import numpy as np

            images, labels = key.triggers.images.cpu(), key.triggers.labels.cpu()
            np.savez(self.images, images=images.numpy(), labels=labels.numpy())
        print(f"{key.commitment}  {key.committed}")
        return 0


@dataclass(frozen=True)
class Verify:
    """Count the triggers of a key that a model answers; say what that proves.

    The exit status is 0 only if the claim holds, and 1 if nothing is proved.
    """

    model: tyro.conf.Positional[str]
    """The suspect: a model of the key's study by its lineage, such as FTAL; a run's
    folder or a model's file; or a .csv of answers, a line of names, then a row a
    trigger, a column of classes (for a plain chain one more for each of
    fl.ownership.fresh_keys)."""
    key: Path
    """What fidlib commit wrote."""
    references: tuple[str, ...] = ()
    """Models independent of the key, named likewise, for labels such as fixed."""
    network: str = ""
    """As of fidlib compare, for files that hold a state dict alone."""
    alpha: float = 1e-6
    """The level of the claim; a plain chain reaches 1 / (fresh + 1)."""
    tries: int = 1
    """Suspects that were looked at, times keys that were committed."""
    fresh: int = 99
    """Fresh keys for the labels of a plain chain; p is 1 / (fresh + 1) or more."""

    def __call__(self) -> int:
        from fidlib import data, ownership
        from fidlib.study.study import Study

        key = ownership.load(self.key)
        study = Study(Config(**key.configuration))

        def suspect(name: str) -> object:
            path = Path(name)
            if path.suffix.lower() == ".csv":
                return _answers(path)
            if not path.exists() and path.suffix in (".pt", ".pth", ".safetensors"):
                raise ValueError(f"there is no model at {path}: check the path.")
            if not path.exists():
                return study.model(name)
            dataset = study.config.dataset
            like = network(self.network, data.load(dataset)) if self.network else None
            return stored(path, dataset, like).to(study.device)

        if len({*self.references}) < len(self.references):
            raise ValueError("a reference is named twice: name each model once.")
        evidence = ownership.verify(
            suspect(self.model),
            key,
            alpha=self.alpha,
            tries=self.tries,
            fresh=self.fresh,
            references=map(suspect, self.references),
        )
        print(evidence)
        print(f"commitment {key.commitment}: compare it with what was published")
        return 0 if evidence.holds else 1


def _answers(path: Path) -> list[list[int]]:
    """`(1 + fresh keys, triggers)` classes in a table of answers."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            names, *rows = [row for row in csv.reader(file) if row]
        for line, row in enumerate(rows, 2):
            odd = [cell for cell in row if not cell.strip().isdecimal()]
            if len(row) != len(names):
                raise ValueError(
                    f"line {line} has {len(row)} columns, not {len(names)}"
                )
            if odd:
                raise ValueError(f"{odd[0]!r} in line {line} is no class index")
        counted = [str(n) for n in range(len(names))]  # as pandas names them
        if not all(names):
            raise ValueError("a column has no name, as numbers of rows have none")
        if all(map(str.isdecimal, names)) and names != counted:
            raise ValueError("line 1 is answers, not their names")
        columns = [[*map(int, column)] for column in zip(*rows, strict=True)]
        if not columns:
            raise ValueError("there are no answers in it")
        return columns
    except (ValueError, OSError, csv.Error) as error:
        raise ValueError(
            f"{path} is no table of answers ({error}): write a row for each trigger, "
            "a column of classes and a line above it."
        ) from error


def stored(path: Path, dataset: str, like: "Classifier | None") -> "Classifier":
    """A classifier in a file or a run's folder; `like` of whose state dict it holds."""
    from fidlib import checkpoints, models
    from fidlib.runs import store

    if path.is_dir() and not store.finished(path):
        raise ValueError(
            f"{path} is no finished run, for it has no done.json: name a run's "
            "folder, or a model's file."
        )
    if like is None and checkpoints.existing(path).suffix != ".safetensors":
        return models.load_authors(path, dataset=dataset)
    return models.load(path, like=like)


def network(text: str, images: "ImageSet") -> "Classifier":
    """A network given as `module:function`, for these images and as they are normalised
    when it does not say otherwise, by returning what `fidlib.models.wrap` gives.
    """
    from fidlib import checkpoints, models

    network = checkpoints.network(text)
    if isinstance(network, models.Classifier):
        return network
    mean, std = images.mean, images.std
    print(
        f"{text} sees pixels less {_list(mean)}, over {_list(std)}; return "
        "fidlib.models.wrap(network, mean=..., std=...) for others"
    )
    return models.wrap(network, mean=mean, std=std, image_size=images.image_shape[1:])


def _list(values: Iterable[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


def check_file(name: str, path: Path | None) -> None:
    """Raise ValueError unless a file can be written there, or none is asked for."""
    if path and (path.is_dir() or not path.parent.is_dir()):
        raise ValueError(f"{name} is {path}: name a file in a folder that exists.")
    try:
        if path:
            with tempfile.TemporaryFile(dir=path.parent):
                pass
    except OSError as error:
        raise ValueError(
            f"{name} is {path}, where nothing can be written ({error.strerror}): name "
            "a file in a folder of yours."
        ) from error
