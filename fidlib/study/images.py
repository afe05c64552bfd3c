"""A study's images: what models learn, are judged on, marked and attacked with."""

import copy
from collections.abc import Callable
from typing import Any

import torch

from fidlib import data, triggers
from fidlib.attacks import attacker
from fidlib.data import Split
from fidlib.models import Classifier
from fidlib.runs import keys
from fidlib.study.config import Config

SAMPLE = 2000
"""Training images whose outputs are kept of every model, at most."""

PARTS = ("train", "test", "triggers", "sample", "pool", "rest")
"""Of the training images `sample` is spread over the classes, `pool` is what triggers
are made of, `rest` what models are marked and attacked with. The last two are all of
them, but for a family that reserves its pool."""

ATTACKERS = ("attacker", "validation", "unlabelled", "photographs")
"""What attackers have: images of their own and those that they try their models on, a
tenth of the training images; all but the latter, without labels; images of something
else. None are triggers or test images."""


class Images:
    """Images by part, each made when first asked for.

    Args:
        config: Of the study.
        watermark: Triggers of one's own; the configuration's family when None.
        device: Where they are.
        host: Gives the host, which a family may look at.
    """

    def __init__(
        self,
        config: Config,
        watermark: Split | Any | None,
        device: torch.device,
        host: Callable[[], Classifier],
    ) -> None:
        self.config, self.device, self._host = config, device, host
        self.data = data.load(config.dataset)
        train = self.data.train
        count = config.train_images or len(train)
        train = train if count >= len(train) else train.sample(count)
        if len(train) < 2:
            raise ValueError(
                f"there is {len(train)} training image; BatchNorm needs 2 or more: "
                f"raise train_images, or add to x_train of {config.dataset}."
            )
        parts = {"train": train.to(device), "test": self.data.test.to(device)}
        parts["sample"] = parts["train"].sample(SAMPLE)
        reserved = watermark is None and triggers.RESERVED.get(config.triggers, 0)
        parts["pool"], parts["rest"] = _apart(
            parts["train"], reserved * config.trigger_count, config.seed
        )
        self._parts = parts
        self.watermark = None if watermark is None else Split.of(watermark).copy()
        if self.watermark is not None:
            parts["triggers"] = self._checked(self.watermark)

    @property
    def labels(self) -> str:
        """The policy of the triggers' labels; empty if nobody knows."""
        if self.watermark is not None:
            return ""
        return triggers.policy(self.config.triggers, self.config.trigger_options)

    def __getitem__(self, part: str) -> Split:
        """Some of `PARTS` or `ATTACKERS`, not to be handed out."""
        if part == "triggers" and part not in self._parts:
            self._parts[part] = self.secret(self.config.seed)
        if part in ATTACKERS and part not in self._parts:
            self._parts |= self._of_attackers(part)
        if part not in self._parts:
            known = ", ".join(PARTS + ATTACKERS)
            raise ValueError(f"images is {part!r}; use {known}.")
        return self._parts[part]

    def secret(self, seed: int) -> Split:
        """What the configuration's family makes of a seed."""
        split = triggers.find(self.config.triggers)(
            self["pool"].copy(),
            seed,
            host=copy.deepcopy(self._host()),
            count=self.config.trigger_count,
            **self.config.trigger_options,
        )
        return self._checked(split)

    def attackers(self, part: str) -> dict[str, Any]:
        """What an attacker has, and that it is nothing that his model is judged on."""
        his, judged = self[part], ["test", "triggers", "validation"]
        judged += ["pool"] if self["pool"] is not self["rest"] else []
        shared = {name: attacker.shared(his, self[name]) for name in judged}
        assert not any(shared.values()), shared
        record = {"part": part, "images": len(his), "sha256": his.content}
        return record | {"shared": shared}

    def _of_attackers(self, part: str) -> dict[str, Split]:
        """Some of `ATTACKERS`, by name."""
        seed, images = self.config.seed, self["rest"]
        judged = [self["test"], self["triggers"]]
        judged += [self["pool"]] if self["pool"] is not images else []
        if part in ("attacker", "validation"):
            both = attacker.drawn(attacker.apart(images, judged), seed)
            if not all(map(len, both)):
                raise ValueError(
                    f"of {len(images)} training images {len(both[0])} are left to an "
                    "attacker and as a validation set "
                    f"{len(both[1])}, once test images and triggers are taken out: "
                    "raise train_images, or keep triggers out of them."
                )
            return dict(zip(ATTACKERS[:2], both, strict=True))
        if part == "photographs":
            images = attacker.photographs(images, len(images), seed)
        free = attacker.apart(images, [*judged, self["validation"]])
        return {part: Split(free.images, torch.zeros_like(free.labels))}

    def _checked(self, secret: Split) -> Split:
        """Triggers, on the study's device, if they fit its images and classes."""
        shape, classes = tuple(secret.images.shape[1:]), len(self.data.classes)
        if shape != self.data.image_shape:
            raise ValueError(
                f"triggers are {shape}, the images {self.data.image_shape} (channels, "
                "height, width); make them alike."
            )
        labels = secret.labels
        if not len(labels) or labels.min() < 0 or labels.max() >= classes:
            raise ValueError(
                f"the triggers' labels are {sorted(set(labels.tolist()))}; give at "
                f"least one trigger, and labels from 0 to {classes - 1}."
            )
        return secret.to(self.device)


def _apart(train: Split, count: int, seed: int) -> tuple[Split, Split]:
    """`count` training images, and the others; all and all if there are to be none."""
    if not count:
        return train, train
    if count > len(train) // 2:
        raise ValueError(
            f"these triggers reserve {count} of {len(train)} training images, more "
            "than half: lower trigger_count."
        )
    order = torch.randperm(len(train), generator=keys.stream(seed, "pool"))
    parts = (part.sort().values for part in (order[:count], order[count:]))
    pool, rest = (Split(train.images[rows], train.labels[rows]) for rows in parts)
    return pool, rest
