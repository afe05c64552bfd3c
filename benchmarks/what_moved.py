"""What each part of the fast path is worth: a step without it, alternated in one run.

A line tells how long a step takes when that part alone is missing.

    python benchmarks/what_moved.py --images 320 --rounds 5
"""

import contextlib
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from unittest import mock

import torch
import tyro
from embed_speed import AUTO, Noting, Setting, ours, setting
from torch import Tensor

from fidlib.models import Classifier, Outputs
from fidlib.runs import machine
from fidlib.training import loop
from fidlib.training.objective import Objective


@dataclass
class Options:
    """What to time."""

    images: int = 320
    """Training images of an epoch."""
    rounds: int = 5
    """Epochs of each; the medians count."""
    methods: tuple[str, ...] = ("host", "FTAL+TWL", "FixLL+PFL", "FixLL+PFL+mix+quiet")
    """Methods, a column of the table each."""


@torch.no_grad()
def _asked(objective: Objective, _index: Tensor, images: Tensor) -> Outputs:
    host = objective.host
    features = objective._body(host, host.normalise(images))
    return Outputs(features, host.head(features))


def _any_layout(objective: Objective, model: Classifier, shown: Tensor) -> Tensor:
    model.to(memory_format=torch.contiguous_format)
    precision = objective.plan.precision
    fast = precision != torch.float32
    with torch.autocast(shown.device.type, precision, enabled=fast):
        return model.body(shown).float()


_adam = torch.optim.Adam.__init__


def _not_fused(self: torch.optim.Adam, *arguments, **options) -> None:
    _adam(self, *arguments, **options | {"fused": None})


WITHOUT: dict[str, Callable[[], contextlib.AbstractContextManager]] = {
    "nothing": contextlib.nullcontext,
    "the host's outputs kept": lambda: mock.patch.object(
        Objective, "_host_outputs", _asked
    ),
    "channels last": lambda: mock.patch.object(Objective, "_body", _any_layout),
    "Adam fused": lambda: mock.patch.object(torch.optim.Adam, "__init__", _not_fused),
}


def times(method: str, given: Setting, rounds: int) -> dict[str, float]:
    """Milliseconds of a step, by what was left out; setting up is not counted."""
    steps = len(given.train) / given.recipe.batch_size
    seen = defaultdict(list)
    for _ in range(rounds):
        for name, without in WITHOUT.items():
            with without():
                seen[name].append(_epoch(method, given, AUTO))
        seen["bfloat16"].append(_epoch(method, given, torch.float32))
    return {n: statistics.median(t) / steps * 1e3 for n, t in seen.items()}


def _epoch(method: str, given: Setting, precision: torch.dtype) -> float:
    """Seconds of a second epoch; the first finds kernels and fills caches."""
    longer = replace(given, recipe=given.recipe.with_epochs(2))
    with mock.patch.object(loop, "CURVE_POINTS", 2):  # a point an epoch
        trained = ours(method, longer, precision, Noting(time.perf_counter))
    _, first, second = (row["noted"] for row in trained.history)
    return second - first


def main(options: Options) -> None:
    """Milliseconds of a step without each part, by method, as a table."""
    if AUTO is torch.float32:
        raise SystemExit(
            "float32 is what fidlib chooses here: the last line needs more."
        )
    print(f"{machine.name()}, torch {torch.__version__}; auto: {AUTO}\n")
    given = setting("mnist", options.images)
    spent = {m: times(m, given, options.rounds) for m in options.methods}
    print(f"| without | {' | '.join(spent)} |\n{'|---' * (len(spent) + 1)}|")
    for name in (*WITHOUT, "bfloat16"):
        cells = (
            f"{t[name]:.1f} ({t[name] / t['nothing']:.2f} x)" for t in spent.values()
        )
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
