"""What each part of the fast path is worth: a step without it, alternated in one run.

A line tells how long a step takes when that part alone is missing.

    python benchmarks/what_moved.py --images 320 --rounds 5
"""

import contextlib
import copy
import statistics
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from unittest import mock

import torch
import tyro
from embed_speed import AUTO, Setting, seconds, setting
from torch import Tensor, nn

import fidlib as fl
from fidlib import runs, training


@dataclass
class Options:
    """What to time."""

    images: int = 320
    """Training images of an epoch."""
    rounds: int = 5
    """Epochs of each; the medians count."""
    methods: tuple[str, ...] = ("ref", "FTAL+TWL", "FixLL+PFL", "FixLL+PFL+mix+quiet")
    """Columns."""


Loop = training._Loop


def _asked(loop: Loop, _index: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        features = loop._body(loop.host_body, loop.host.normalise(images))
        return features, loop.host.head(features)


def _any_layout(loop: Loop, body: nn.Module, shown: Tensor) -> Tensor:
    body.to(memory_format=torch.contiguous_format)
    fast = loop.precision != torch.float32
    with torch.autocast(loop.device.type, loop.precision, enabled=fast):
        return body(shown).float()


_adam = torch.optim.Adam.__init__


def _not_fused(self: torch.optim.Adam, *arguments, **options) -> None:
    _adam(self, *arguments, **options | {"fused": None})


WITHOUT: dict[str, Callable[[], contextlib.AbstractContextManager]] = {
    "nothing": contextlib.nullcontext,
    "the host's outputs kept": lambda: mock.patch.object(Loop, "_host_outputs", _asked),
    "BatchNorm folded": lambda: mock.patch.object(
        training, "fold", lambda body, _images: body
    ),
    "channels last": lambda: mock.patch.object(Loop, "_body", _any_layout),
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
    host = copy.deepcopy(given.host).requires_grad_(False)
    triggers = None if method == "ref" else given.triggers
    loop = Loop(
        fl.METHODS[method],
        copy.deepcopy(given.host),
        host,
        given.train,
        triggers,
        given.recipe.with_epochs(2),
        0,
        precision,
        given.known,
    )
    loop._epoch(0, None, set())
    return seconds(lambda: loop._epoch(1, None, set()))


def main(options: Options) -> None:
    """Milliseconds of a step without each part, by method, as a table."""
    if AUTO is torch.float32:
        raise SystemExit(
            "float32 is what fidlib chooses here: the last line needs more."
        )
    print(f"{runs.machine()}, torch {torch.__version__}; auto: {AUTO}\n")
    given = setting("mnist", options.images)
    found = {m: times(m, given, options.rounds) for m in options.methods}
    print(f"| without | {' | '.join(found)} |\n{'|---' * (len(found) + 1)}|")
    for name in (*WITHOUT, "bfloat16"):
        cells = (
            f"{t[name]:.1f} ({t[name] / t['nothing']:.2f} x)" for t in found.values()
        )
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
