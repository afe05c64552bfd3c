"""fidlib: after a backdoor watermark, is it still the same classifier?"""

from fidlib import (
    boundary,
    data,
    features,
    fidelity,
    intervals,
    metrics,
    models,
    plots,
    report,
    runs,
    similarity,
    training,
    triggers,
    yardsticks,
)
from fidlib.methods import METHODS, TERMS, Method, Step
from fidlib.models import MODELS, Classifier
from fidlib.study import Config, Study

__all__ = [
    "METHODS",
    "MODELS",
    "TERMS",
    "Classifier",
    "Config",
    "Method",
    "Step",
    "Study",
    "boundary",
    "data",
    "features",
    "fidelity",
    "intervals",
    "metrics",
    "models",
    "plots",
    "report",
    "runs",
    "similarity",
    "training",
    "triggers",
    "yardsticks",
]
