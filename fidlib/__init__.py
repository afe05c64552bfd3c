"""fidlib: after a backdoor watermark, is it still the same classifier?"""

from fidlib import (
    boundary,
    claims,
    data,
    features,
    fidelity,
    intervals,
    metrics,
    models,
    networks,
    plots,
    quiet,
    report,
    runs,
    similarity,
    training,
    triggers,
    yardsticks,
)
from fidlib.methods import FLOORS, LEARNED, METHODS, PAPER, TERMS, Method, Step
from fidlib.models import Classifier
from fidlib.networks import MODELS
from fidlib.study import Config, Study, over_seeds

__all__ = [
    "FLOORS",
    "LEARNED",
    "METHODS",
    "MODELS",
    "PAPER",
    "TERMS",
    "Classifier",
    "Config",
    "Method",
    "Step",
    "Study",
    "boundary",
    "claims",
    "data",
    "features",
    "fidelity",
    "intervals",
    "metrics",
    "models",
    "networks",
    "over_seeds",
    "plots",
    "quiet",
    "report",
    "runs",
    "similarity",
    "training",
    "triggers",
    "yardsticks",
]
