"""The owner's key: an integer and a configuration, from which all triggers follow."""

import datetime
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fidlib.data import Split
from fidlib.runs import store
from fidlib.runs.keys import canonical
from fidlib.study.config import Config
from fidlib.study.study import Study


@dataclass(frozen=True)
class Key:
    """What an owner claims a model by."""

    configuration: Mapping[str, Any]
    """From which the triggers follow: the seed, their family and its options, data and
    host."""
    triggers: Split
    """`(N, C, H, W)` images with labels."""
    classes: int
    """K, the number of classes."""
    labels: str = ""
    """Their policy, one of `triggers.Labels`; empty: nobody knows."""
    fresh: Callable[[int], Split] | None = None
    """The triggers that another seed would have given."""
    committed: str = ""
    """When its commitment was written down; empty: never."""

    @property
    def commitment(self) -> str:
        """SHA-256 of configuration and triggers: to be published before the model is,
        so that the key cannot be one that was looked for.

        It hides nothing that can be guessed: draw the seed, by `secrets.randbits(63)`.
        """
        digest = hashlib.sha256(canonical(self.configuration).encode())
        for tensor in (self.triggers.images, self.triggers.labels):
            array = tensor.cpu().contiguous().numpy()
            digest.update(f"{array.dtype}{array.shape}".encode())
            digest.update(array.tobytes())
        return digest.hexdigest()

    @property
    def links(self) -> int:
        """m, of its chains."""
        options = self.configuration.get("trigger_options", {})
        links = options.get("links") or min(10, self.classes)
        labels = self.triggers.labels
        # Of one's own, the labels tell; of less than a chain they may not.
        return links if len(labels) < links else int(labels.max()) + 1

    def save(self, path: str | Path) -> None:
        """Write what the triggers follow from, and the commitment, as JSON."""
        record = {"configuration": dict(self.configuration)}
        record |= {"commitment": self.commitment, "committed": self.committed}
        store.write_json(Path(path), record)


def of(study: Study) -> Key:
    """The key of a study, not committed: its host is made if it is missing."""
    return Key(
        configuration=vars(study.config),
        triggers=study.triggers,
        classes=len(study.classes),
        labels=study.labels,
        fresh=study.secret if study.labels else None,
    )


def commit(study: Study, path: str | Path | None = None) -> Key:
    """The key of a study as of now; publish its `commitment` before the model.

    Args:
        study: Of the model that is to be claimed.
        path: Where to write the key, if anywhere; whoever has the file has the key.
    """
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    key = replace(of(study), committed=now)
    if path is not None:
        key.save(path)
    return key


def load(path: str | Path, study: Study | None = None) -> Key:
    """The key that a file tells of: its triggers are made again, and checked.

    Args:
        path: What `Key.save` wrote. Its date is the owner's word: what proves that the
            key was there in time is that its commitment was published.
        study: Needed for triggers or a host of one's own, which no file tells of.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is none, or other triggers follow from it than were committed.
    """
    try:
        record = json.loads(Path(path).read_text("utf-8"))
        configuration, commitment = record["configuration"], str(record["commitment"])
        config, committed = Config(**configuration), record["committed"] or ""
        if committed:
            datetime.datetime.fromisoformat(committed)
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no key at {path}: check the path.") from None
    except (ValueError, LookupError, TypeError, AttributeError, OSError) as error:
        raise ValueError(
            f"{path} is no key ({error}): write one by fidlib commit."
        ) from error
    key = replace(of(study or Study(config)), committed=committed)
    if key.commitment != commitment:
        raise ValueError(
            f"from the key {path} other triggers follow than were committed "
            f"({key.commitment[:16]}, not {commitment[:16]}): bring back the data and "
            "host that it was made with, or pass the study whose triggers they are, to "
            "fidlib.ownership.load."
        )
    return key
