"""How far a training has come, in a file, so that one that was stopped goes on.

A resumed training ends at the very weights of an undisturbed one: whatever its next
steps depend on is kept, but for what its plan draws, which is drawn again.
"""

import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from fidlib.runs.store import written

STATE_SECONDS = 300.0
"""The state is written so often."""


class Stateful(Protocol):
    """What has a state of its own to keep, as tensors, numbers, lists and dicts."""

    def state_dict(self) -> dict[str, Any]: ...  # noqa: D102
    def load_state_dict(self, state_dict: dict[str, Any], /) -> object: ...  # noqa: D102


@dataclass
class Progress:
    """What a training has done so far."""

    step: int = 0
    """Number of steps taken."""
    seconds: float = 0.0
    """Seconds that they took, with what was measured on the way."""
    total: Tensor = field(default_factory=lambda: torch.zeros(()))
    """Scalar: the sum of the losses of the epoch's steps."""
    history: list[dict[str, float | None]] = field(default_factory=list)
    """The rows of the learning curve."""


class Checkpoint:
    """A training's state file: written every `STATE_SECONDS`, read if it is there.

    Args:
        path: It is this training's alone; None keeps nothing.
        model: What is trained.
        parts: What else has a state, by name, such as the optimizer.
        device: The model's.
    """

    def __init__(
        self,
        path: Path | None,
        model: nn.Module,
        parts: Mapping[str, Stateful],
        device: torch.device,
    ) -> None:
        self.path, self.model, self.parts, self.device = path, model, parts, device
        self.written_at = time.perf_counter()

    def due(self) -> bool:
        """Whether it is time to write."""
        waited = time.perf_counter() - self.written_at
        return self.path is not None and waited >= STATE_SECONDS

    def write(self, progress: Progress) -> None:
        """Keep the state before the next step; a disk that is full only warns."""
        assert self.path is not None
        values = {
            "progress": vars(progress),
            "model": self.model.state_dict(),
            "buffers": dict(self.model.named_buffers()),  # some are in no state_dict
            "parts": {name: part.state_dict() for name, part in self.parts.items()},
            "layers": torch.get_rng_state(),
        }
        if self.device.type == "cuda":
            values["layers_cuda"] = torch.cuda.get_rng_state(self.device)
        try:
            with written(self.path) as temporary:
                torch.save(values, temporary)
        except (OSError, RuntimeError) as error:  # training needs no disk
            text = f"the state in {self.path} was not written: {error}"
            warnings.warn(text, stacklevel=3)
        self.written_at = time.perf_counter()

    @torch.no_grad()
    def read(self) -> Progress:
        """Bring everything to where the training was stopped; else change nothing.

        Returns:
            How far it had come; nowhere if there is no file, or none that can be read.
        """
        if self.path is None or not self.path.exists():
            return Progress()
        try:
            values = torch.load(self.path, map_location="cpu", weights_only=True)
        except Exception as error:  # whatever a torn file makes of torch's reader
            text = f"{self.path} cannot be read ({error!r}): training begins anew."
            warnings.warn(text, stacklevel=3)
            return Progress()
        self.model.load_state_dict(values["model"])
        for name, buffer in self.model.named_buffers():
            buffer.copy_(values["buffers"][name])
        for name, part in self.parts.items():
            part.load_state_dict(values["parts"][name])
        torch.set_rng_state(values["layers"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(values["layers_cuda"], self.device)
        progress = Progress(**values["progress"])
        progress.total = progress.total.to(self.device)
        return progress
