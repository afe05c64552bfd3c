"""Where the time of a training step goes: convolutions, and all that is not.

Operations by torch.profiler, in milliseconds of their own, without what they call.

    python benchmarks/step_profile.py --images 320
"""

from dataclasses import dataclass, replace

import torch
import tyro
from embed_speed import AUTO, DEVICE, METHODS, ours, setting
from torch.profiler import ProfilerActivity, profile

from fidlib.runs import machine

PARTS = {
    "convolution, forward": ("aten::mkldnn_convolution", "aten::cudnn_convolution"),
    "convolution, backward": ("aten::convolution_backward",),
    "BatchNorm": ("aten::native_batch_norm", "aten::native_batch_norm_backward"),
    "ReLU, pooling": (
        "aten::threshold_backward",
        "aten::clamp_min_",
        "aten::relu_",
        "aten::max_pool2d_with_indices",
        "aten::max_pool2d_with_indices_backward",
    ),
    "casts, copies": ("aten::copy_", "aten::_to_copy"),
    "Adam": ("aten::_fused_adam_", "Optimizer.step#Adam.step"),
}


@dataclass
class Options:
    """What to profile."""

    images: int = 320
    """Training images of an epoch."""
    dataset: str = "mnist"
    """Shape of the images: mnist or cifar10."""


def milliseconds(method: str, options: Options, precision: torch.dtype) -> dict:
    """Part of a step -> its milliseconds, over one epoch after a first."""
    given = setting(options.dataset, options.images)
    given.recipe = replace(given.recipe, augment=False)
    ours(method, given, precision)
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        ours(method, given, precision)
    spent = {e.key: e.self_cpu_time_total / 1e3 for e in seen.key_averages()}
    steps = options.images / given.recipe.batch_size
    parts = {
        part: sum(spent.get(name, 0.0) for name in names) / steps
        for part, names in PARTS.items()
    }
    parts["all else"] = sum(spent.values()) / steps - sum(parts.values())
    return parts


def main(options: Options) -> None:
    """Milliseconds of each part of a step, by method and precision, as a table."""
    if DEVICE.type != "cpu":
        raise SystemExit("a profile of CPU operations: hide the GPU to get one.")
    print(f"{machine.name()}, torch {torch.__version__}, {options.dataset}\n")
    print(f"| method | type | step, ms | {' | '.join([*PARTS, 'all else'])} |")
    print("|---" * (len(PARTS) + 4) + "|")
    for method in METHODS:
        for precision in dict.fromkeys((torch.float32, AUTO)):
            parts = milliseconds(method, options, precision)
            total = sum(parts.values())
            cells = [f"{ms:.1f} ({ms / total:.0%})" for ms in parts.values()]
            name = str(precision).removeprefix("torch.")
            print(f"| {method} | {name} | {total:.1f} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
