"""How models are trained: a `Plan` says how, `train` is the one loop."""

from fidlib.training.loop import (
    CURVE_POINTS,
    Diverged,
    Observer,
    Trained,
    start,
    train,
)
from fidlib.training.plan import HOST, Plan
from fidlib.training.recipes import Recipe, Schedule, recipe

__all__ = [
    "CURVE_POINTS",
    "HOST",
    "Diverged",
    "Observer",
    "Plan",
    "Recipe",
    "Schedule",
    "Trained",
    "recipe",
    "start",
    "train",
]
