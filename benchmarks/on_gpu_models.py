"""What each process of `on_gpu` does: a model made and measured, if there is time."""

import json
import time
from dataclasses import replace
from functools import cache

from embed_speed import Noting

import fidlib as fl
from fidlib import training
from fidlib.study.lineage import Lineage
from fidlib.training import updates

MEASURING = 12.0
"""Seconds that measuring a model takes, about, of all sets."""


def left_out(takes: float, left: float) -> str:
    """Why something was not done, in words."""
    return f"left out: it takes about {takes:.0f} s, and {max(left, 0):.0f} s were left"


@cache
def _study(config: str) -> fl.Study:
    return fl.Study(fl.Config(**json.loads(config)))


def study(config: fl.Config) -> fl.Study:
    """The same one for the same configuration: its images are read once."""
    return _study(json.dumps(vars(config)))


def outcome(
    config: fl.Config, name: str, until: float, with_graphs: bool
) -> dict[str, float] | str:
    """Make and measure a model; words if there is no time for it before `until`."""
    updates.GRAPHS = with_graphs
    asked, lineage = study(config), Lineage.read(name)
    if lineage.parent is not None and not asked._store.is_made(lineage.parent):
        return "left out: its host is not there"
    if not asked._store.is_made(lineage):
        takes, left = estimate(asked, lineage) + MEASURING, until - time.time()
        if takes > left:
            return left_out(takes, left)
    started = time.time()
    asked.model(name)
    trained = time.time()
    report = asked.fidelity(name)
    numbers = {"training, s": trained - started, "measuring, s": time.time() - trained}
    shown = ("accuracy", "trigger_accuracy", "twl", "pfl", "pfl_relative", "spl")
    return numbers | {name: report[name].value for name in shown}


def estimate(asked: fl.Study, lineage: Lineage, steps: int = 24) -> float:
    """Seconds that training a model takes, from a few of its steps.

    What comes before the first step, such as quiet directions, is counted as it was.
    """
    models = asked._store
    plan, train = models._plan(lineage), models.images["train"]
    host = None if lineage.parent is None else asked.model()
    started = time.perf_counter()
    trained = training.train(
        models._blank() if host is None else training.start(host, plan),
        replace(plan, epochs=1, coarse=0.0),
        train.sample(steps * plan.batch_size),
        triggers=asked.triggers if plan.method.learns_triggers else None,
        host=host,
        observer=Noting(time.perf_counter),
    )
    whole = time.perf_counter() - started
    points = trained.history
    half = points[len(points) // 2]
    spent, share = (points[-1][n] - half[n] for n in ("noted", "epoch"))
    taken = plan.steps(min(len(train), steps * plan.batch_size))
    each = spent / (share * taken)
    before = max(0.0, whole - each * taken)
    all_steps = plan.epochs * plan.steps(len(train))
    return before + each * all_steps * (1 - 0.7 * plan.coarse)
