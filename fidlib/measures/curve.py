"""What a learning curve shows: measures, and the outputs behind them."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from fidlib import data, models
from fidlib.data import Split
from fidlib.measures.catalogue import value
from fidlib.measures.pair import Pair
from fidlib.models import Classifier, Outputs

IMAGES = 2000
"""A curve is measured on so many images, at most; reports on all."""

OF_MARKED = ("accuracy", "trigger_accuracy", "twl", "lp", "pfl", "spl", "agreement")
"""Measures of a marked model's curve, against its host."""

OF_HOST = ("accuracy",)
"""Of a host's: it has no distance from itself."""

_LARGEST = torch.finfo(torch.float16).max


class Curve(NamedTuple):
    """Outputs at P points of a training, float16; T is 0 where no triggers were."""

    rows: Tensor
    """`(N,)` numbers of the test images."""
    features: Tensor
    """`(P, N, D)` features of those images."""
    logits: Tensor
    """`(P, N, K)` logits of those images."""
    trigger_features: Tensor
    """`(P, T, D)` features of the triggers."""
    trigger_logits: Tensor
    """`(P, T, K)` logits of the triggers."""


class Watch:
    """Measures a model while it is trained, and keeps its outputs.

    Args:
        host: What it is compared with; None for a host's own training.
        test: Images, of which a sample spread over the set and its classes is taken.
        triggers: The watermark, if the training has one.
    """

    def __init__(
        self, host: Classifier | None, test: Split, triggers: Split | None
    ) -> None:
        self.host, self.triggers = host, triggers
        self.rows, self.sample = test.sample_rows(IMAGES), test.sample(IMAGES)
        self.names = OF_HOST if host is None else OF_MARKED
        self.images = [self.sample.images]
        self.images += [] if triggers is None else [triggers.images]
        self.of_host = [] if host is None else self._outputs(host)
        self.seen: list[list[Outputs]] = []

    def __call__(self, model: Classifier) -> dict[str, float | None]:
        """The measures of a row; the outputs are kept."""
        outputs = self._outputs(model)

        def run(asked: Classifier, images: Tensor) -> Outputs:
            known = self.of_host if asked is self.host else outputs
            return known[[images is part for part in self.images].index(True)]

        pair = Pair(self.host or model, model, self.sample, self.triggers, run=run)
        row = {name: value(pair, name) for name in self.names}
        self.seen.append([_small(each) for each in outputs])
        return row

    def state_dict(self) -> dict[str, Any]:
        """What was kept so far."""
        return {"seen": [[[*outputs] for outputs in point] for point in self.seen]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.seen = [[Outputs(*pair) for pair in point] for point in state["seen"]]

    def save(self, path: Path) -> None:
        """Write the outputs as `read` reads them."""
        images = [point[0] for point in self.seen]
        empty = [Outputs(*(part[:0] for part in point)) for point in images]
        secret = [p[1] for p in self.seen] if self.triggers is not None else empty
        tensors = {"rows": self.rows.cpu()}
        for name, points in (("", images), ("trigger_", secret)):
            for part in Outputs._fields:
                stacked = torch.stack([getattr(point, part) for point in points])
                tensors[f"{name}{part}"] = stacked
        save_file(tensors, path, metadata={"images": data.digest(self.sample.images)})

    def _outputs(self, model: Classifier) -> list[Outputs]:
        return [models.outputs(model, images) for images in self.images]


def read(path: Path, test: Split) -> Curve:
    """The outputs that `Watch.save` wrote.

    Raises:
        ValueError: If they are of these images in another order.
    """
    curve = Curve(**load_file(path))
    with safe_open(path, framework="pt") as file:
        then = (file.metadata() or {}).get("images")
    if data.digest(test.images[curve.rows.to(test.images.device)]) != then:
        raise ValueError(
            f"{path} is of the test images in another order: train the model anew in "
            "another run store, or bring back the set in its order."
        )
    return curve


def _small(outputs: Outputs) -> Outputs:
    # What is too large for float16 is kept as its largest number, and never as inf.
    parts = (part.clamp(-_LARGEST, _LARGEST).half().cpu() for part in outputs)
    return Outputs(*parts)
