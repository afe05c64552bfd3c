"""What each part of the fast path is worth: a step without it, alternated in one run.

A line tells how long a step takes when that part alone is missing.

    python benchmarks/what_moved.py --images 320 --rounds 5
"""

import contextlib
import statistics
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from unittest import mock

import torch
import tyro
from embed_speed import AUTO, Setting, ours, seconds, setting
from torch import Tensor, nn

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


def _asked(loop: training._Loop, _index: Tensor, images: Tensor):
    with torch.no_grad():
        features = loop._body(loop.host_body, loop.host.normalise(images))
        return features, loop.host.head(features)


def _plain_layout(loop: training._Loop, body: nn.Module, shown: Tensor) -> Tensor:
    fast = loop.precision != torch.float32
    with torch.autocast(loop.device.type, loop.precision, enabled=fast):
        return body(shown.contiguous()).float()


_adam = torch.optim.Adam.__init__


def _not_fused(self: torch.optim.Adam, *arguments, fused: bool, **options) -> None:
    _adam(self, *arguments, **options, fused=not fused)


def _loop(name: str, replacement: Callable):
    return mock.patch.object(training._Loop, name, replacement)


WITHOUT: dict[str, Callable[[], contextlib.AbstractContextManager]] = {
    "nothing": contextlib.nullcontext,
    "the host's outputs kept": lambda: _loop("_host_outputs", _asked),
    "BatchNorm folded": lambda: mock.patch.object(
        training, "fold", lambda body, _images: body
    ),
    "images channels-last": lambda: _loop("_body", _plain_layout),
    "Adam fused": lambda: mock.patch.object(torch.optim.Adam, "__init__", _not_fused),
}


def times(method: str, given: Setting, rounds: int) -> dict[str, float]:
    """Milliseconds of a step, by what was left out."""
    steps = len(given.train) / given.recipe.batch_size
    seen = defaultdict(list)
    for _ in range(rounds + 1):
        for name, without in WITHOUT.items():
            with without():
                seen[name].append(seconds(lambda: ours(method, given, AUTO)))
        seen["bfloat16"].append(seconds(lambda: ours(method, given, torch.float32)))
    return {n: statistics.median(t[1:]) / steps * 1e3 for n, t in seen.items()}


def main(options: Options) -> None:
    """Milliseconds of a step without each part, by method, as a table."""
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
