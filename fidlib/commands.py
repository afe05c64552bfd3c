"""The owner's commands, and what several commands read."""

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from fidlib.study.config import Config

if TYPE_CHECKING:
    from fidlib.data import ImageSet
    from fidlib.models import Classifier


@dataclass(frozen=True)
class Commit:
    """Write the owner's key, and print its commitment: publish it before the model.

    The key is the seed and the rest of the configuration; keep the file to yourself.
    """

    key: tyro.conf.Positional[Path]
    """Where to write it, such as key.json."""
    images: Path | None = None
    """Write the triggers there as well, an .npz of images and labels."""
    config: tyro.conf.OmitArgPrefixes[Config] = field(default_factory=Config)

    def __call__(self) -> int:
        from fidlib import ownership
        from fidlib.study.study import Study

        check_file("key", self.key)
        check_file("images", self.images)
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

    The exit status is 0 only if the claim holds.
    """

    model: tyro.conf.Positional[str]
    """The suspect: a model of the key's study by its lineage, such as FTAL; a run's
    folder or a model's file; or a .csv of answers, a row a trigger, a column of classes
    (and one for each fresh key)."""
    key: Path
    """What fidlib commit wrote."""
    references: tuple[str, ...] = ()
    """Models independent of the key, named likewise, for labels such as fixed."""
    network: str = ""
    """As of fidlib compare, for files that hold a state dict alone."""
    alpha: float = 1e-6
    """The level of the claim."""
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
            if path.suffix == ".csv":
                return _answers(path)
            if not path.exists():
                return study.model(name)
            dataset = study.config.dataset
            like = network(self.network, data.load(dataset)) if self.network else None
            return stored(path, dataset, like).to(study.device)

        evidence = ownership.verify(
            suspect(self.model),
            key,
            alpha=self.alpha,
            tries=self.tries,
            fresh=self.fresh,
            references=map(suspect, self.references),
        )
        print(evidence)
        return 0 if evidence.holds else 1


def _answers(path: Path) -> Any:
    """`(1 + fresh keys, triggers)` classes in a table of answers."""
    import pandas as pd

    try:
        return pd.read_csv(path).T.to_numpy()
    except (ValueError, OSError) as error:
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
