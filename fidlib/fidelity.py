"""Host against marked, on every level, as one report."""

from dataclasses import dataclass, field
from functools import cached_property

import pandas as pd

from fidlib import estimates, metrics
from fidlib.data import Split
from fidlib.estimates import NONE, Estimate
from fidlib.features import Outputs, outputs
from fidlib.models import Classifier
from fidlib.probes import Probes

LEVELS = {
    "weights": ("twl", "twl_relative", "lp"),
    "features": ("pfl", "pfl_relative", "cka", "procrustes", "neighbor_overlap"),
    "outputs": (
        *("spl", "jensen_shannon", "agreement", "churn_lost", "churn_gained"),
        *("margin_change", "ece_change", "host_accuracy", "marked_accuracy"),
    ),
    "boundary": ("plane_disagreement", "trigger_plane_disagreement", "boundary_shift"),
    "triggers": ("host_trigger_accuracy", "trigger_accuracy"),
}
"""Level -> its measures, in the order of the table."""


@dataclass(frozen=True)
class Fidelity:
    """How far a marked model is from its host on one split.

    A number is None where there is nothing to measure: between parameters, heads or
    features of other shapes; of features that are the same for all images; of fewer
    images than a measure needs (four for CKA, eleven for neighbours); of a boundary
    when the split has no two classes (three for planes); of triggers that were not
    given, or that the host answers already (`trigger_plane_disagreement`).
    """

    twl: float | None
    """Total weight loss."""
    twl_relative: float | None
    """TWL over the squared norm of the host's parameters."""
    twl_layers: dict[str, float]
    """Layer -> its part of TWL; empty between architectures with other parameters."""
    lp: float | None
    """Prototype loss; of a class: its prototype's."""
    pfl: float | None
    """Penultimate feature loss."""
    pfl_relative: float | None
    """PFL over the total variance of the host's features on these images."""
    cka: float | None
    """Debiased linear CKA of the features: 1 when alike up to rotation and scale."""
    procrustes: float | None
    """Share of the features' variance that no rotation and scale explains."""
    neighbor_overlap: float | None
    """Mean share of an image's ten nearest neighbours, in features, that are kept."""
    spl: float
    """Softmax probability-distribution loss, nats."""
    jensen_shannon: float
    """Mean Jensen-Shannon divergence of the softmax, nats."""
    agreement: float
    """Fraction of images on which both name the same class."""
    churn_lost: float
    """Fraction of images that the host gets right and the marked model wrong."""
    churn_gained: float
    """Fraction of images that the host gets wrong and the marked model right."""
    margin_change: float | None
    """Mean change, marked less host, of the true class's logit over the best other."""
    ece_change: float
    """Change, marked less host, of the expected calibration error (15 bins)."""
    host_accuracy: float
    """Fraction of images the host gets right."""
    marked_accuracy: float
    """Fraction of images the marked model gets right."""
    plane_disagreement: float | None
    """Share of points, on planes through three images of three classes, on which the
    two disagree; of a class: of the points that the host gives it."""
    trigger_plane_disagreement: float | None
    """The same on planes through a trigger, an image of the class the host gives it and
    one of the class its label says."""
    boundary_shift: float | None
    """Mean absolute change of the distance from an image to the first change of the
    answer, towards an image of another class; L2 of pixels in [0, 1]."""
    host_trigger_accuracy: float | None
    """Fraction of triggers the host answers: near 1/K."""
    trigger_accuracy: float | None
    """Fraction of triggers the marked model answers."""
    images: int
    """N, the images behind the numbers."""
    intervals: dict[str, list[float]]
    """Measure -> low and high of its 95 % interval: over images, planes, segments or
    triggers, by bootstrap, or Wilson's for shares. Weights are exact and have none;
    nor has `ece_change`, whose bins bias a resample."""
    by_class: dict[str, list[Estimate]]
    """Measure -> for each class its value, low and high, on the images of the class."""
    planes: list[float] = field(default_factory=list)
    """Of every plane behind `plane_disagreement` its own share. One host, split and
    seed have the same planes, so that two marked models can be told apart in pairs."""

    def table(self, *, by_class: bool = False, layers: bool = False) -> pd.DataFrame:
        """A row per measure.

        Args:
            by_class: Add a column for each class.
            layers: Add a row for each layer's part of TWL.

        Returns:
            Indexed by measure; columns `level`, `value`, `low`, `high`, then the class
            indices. NaN where there is no such number.
        """
        classes = range(len(self.by_class["agreement"])) if by_class else ()
        rows = {}
        for level, names in LEVELS.items():
            for name in names:
                low, high = self.intervals.get(name, (None, None))
                row = {"value": getattr(self, name), "low": low, "high": high}
                each = self.by_class.get(name, [NONE] * len(classes))
                values = {label: each[label][0] for label in classes}
                rows[name] = {"level": level, **row, **values}
        for layer, part in self.twl_layers.items() if layers else ():
            rows[f"twl {layer}"] = {"level": "layers", "value": part}
        table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("measure")
        return table.astype({name: float for name in table.columns[1:]})


class Comparison:
    """A host's side of a comparison, computed once for many marked models.

    Args:
        host: The reference.
        split: Images and labels to compare on.
        triggers: The watermark, if there is one.
        boundary: Whether to look at planes and segments too, which costs 3,600 forwards
            of each model.
        seed: Decides planes, segments, and the resamples of the intervals.

    Raises:
        ValueError: If there is no image, or a label that is none of the host's classes,
            or the host gives numbers that are not finite.
    """

    def __init__(
        self,
        host: Classifier,
        split: Split,
        triggers: Split | None = None,
        *,
        boundary: bool = True,
        seed: int = 0,
    ) -> None:
        _check_model(host)
        self.host, self.split, self.triggers, self.seed = host, split, triggers, seed
        self.boundary = boundary
        for name, part in (("split", split), ("triggers", triggers)):
            if part is not None:
                _check_labels(name, part, host.num_classes)
        self.outputs = self._run(host)

    def __call__(self, marked: Classifier) -> Fidelity:
        """The whole report for one marked model.

        Raises:
            ValueError: If the two do not have the same number of classes, or the marked
                model gives numbers that are not finite.
        """
        _check_model(marked)
        host, labels = self.host, self.split.labels
        shown = self.outputs if marked is host else self._run(marked)
        features, logits = zip(self.outputs, shown, strict=True)
        layers = _layers(host, marked)
        found = _weights(host, marked, layers)
        found |= estimates.of_images(features, logits, labels, seed=self.seed)
        probed, planes = self._probes(marked) if self.boundary else ({}, [])
        found |= probed
        found["host_trigger_accuracy"] = self._host_answers
        found["trigger_accuracy"] = _answers(marked, self.triggers)
        none = [NONE] * (host.num_classes + 1)
        rows = {n: found.get(n, none) for level in LEVELS.values() for n in level}
        return Fidelity(
            **{name: row[0][0] for name, row in rows.items()},  # pyright: ignore
            twl_layers=layers,
            images=len(labels),
            intervals={
                n: row[0][1:] for n, row in rows.items() if row[0][1] is not None
            },  # pyright: ignore
            by_class={n: row[1:] for n, row in rows.items() if len(row) > 1},
            planes=planes,
        )

    def distances(self, marked: Classifier) -> dict[str, float | None]:
        """What a learning curve shows of the report, quickly: no planes, no intervals.

        `accuracy` is the report's `marked_accuracy`; `twl`, `lp`, `pfl`, `spl`,
        `agreement` and `trigger_accuracy` are its own.
        """
        x, host = self.outputs
        y, logits = self.outputs if marked is self.host else self._run(marked)
        moved = _weights(self.host, marked, _layers(self.host, marked))
        weights = {n: row[0][0] for n, row in moved.items()}
        return {
            "accuracy": metrics.accuracy(logits, self.split.labels),
            "trigger_accuracy": _answers(marked, self.triggers)[0][0],
            "twl": weights.get("twl"),
            "lp": weights.get("lp"),
            "pfl": metrics.pfl(x, y).item() if x.shape == y.shape else None,
            "spl": metrics.spl(host, logits).item(),
            "agreement": metrics.agreement(host, logits),
        }

    def _run(self, model: Classifier) -> Outputs:
        """Outputs on the split, float64: sums of many small squares follow."""
        if model.num_classes != self.host.num_classes:
            raise ValueError(
                f"the host has {self.host.num_classes} classes, the marked model "
                f"{model.num_classes}; compare classifiers of the same classes."
            )
        found = outputs(model, self.split.images)
        if not all(tensor.isfinite().all() for tensor in found):
            raise ValueError(
                "a model's features or logits are not finite on these images: compare "
                "models whose training did not diverge."
            )
        return Outputs(*(tensor.double() for tensor in found))

    @cached_property
    def _probes(self) -> Probes:
        """Left until a whole report is asked for; a learning curve needs none."""
        return Probes(self.host, self.split, self.triggers, seed=self.seed)

    @cached_property
    def _host_answers(self) -> list[Estimate]:
        return _answers(self.host, self.triggers)


def compare(
    host: Classifier,
    marked: Classifier,
    split: Split,
    triggers: Split | None = None,
    *,
    seed: int = 0,
) -> Fidelity:
    """How far a marked model is from its host, on every level.

    Works for any two classifiers of the same classes, watermarked or not.

    Args:
        host: The reference.
        marked: The model that is compared with it.
        split: Images and labels to compare on, on the models' device.
        triggers: The watermark, if there is one.
        seed: Decides planes, segments, and the resamples of the intervals.

    Raises:
        ValueError: If the two do not have the same number of classes, cannot take the
            images, or give numbers that are not finite; if there is no image, or a
            label that is none of theirs.
    """
    return Comparison(host, split, triggers, seed=seed)(marked)


def _check_model(model: Classifier) -> None:
    if not isinstance(model, Classifier):
        raise ValueError(
            f"a {type(model).__name__} cannot be compared as it is: pass "
            "fidlib.models.wrap(network, ...)."
        )


def _check_labels(name: str, part: Split, classes: int) -> None:
    if not len(part):
        raise ValueError(f"{name} holds no image; compare on one or more.")
    low, high = int(part.labels.min()), int(part.labels.max())
    if low < 0 or high >= classes:
        raise ValueError(
            f"labels of {name} run from {low} to {high}, but the host has {classes} "
            "classes, numbered from 0: compare on images of the host's own classes."
        )


def _answers(model: Classifier, triggers: Split | None) -> list[Estimate]:
    """Trigger accuracy; nothing without triggers."""
    if triggers is None:
        return [NONE] * (model.num_classes + 1)
    right = outputs(model, triggers.images).logits.argmax(1) == triggers.labels
    return estimates.of_answers(right, triggers.labels, classes=model.num_classes)


def _weights(
    host: Classifier, marked: Classifier, layers: dict[str, float]
) -> dict[str, list[Estimate]]:
    """Numbers of the parameters; those between other shapes are left out."""
    found: dict[str, list[Estimate]] = {}
    if layers:
        total = sum(layers.values())
        size = sum(p.detach().double().square().sum() for p in host.parameters())
        found["twl"] = [[total, None, None]]
        found["twl_relative"] = [[total / float(size), None, None]]
    heads = [model.head.weight.detach().double() for model in (host, marked)]
    if heads[0].shape == heads[1].shape:
        each = (heads[1] - heads[0]).square().sum(1).tolist()
        found["lp"] = [
            [value, None, None] for value in (metrics.lp(*heads).item(), *each)
        ]
    return found


def _layers(host: Classifier, marked: Classifier) -> dict[str, float]:
    """Layer -> its part of TWL; empty where parameters have other names or shapes."""
    pair = [
        {n: p.detach().double() for n, p in model.named_parameters()}
        for model in (host, marked)
    ]
    shapes = [{n: p.shape for n, p in parameters.items()} for parameters in pair]
    if shapes[0] != shapes[1]:
        return {}
    layers: dict[str, list[str]] = {}
    for name in pair[0]:
        layers.setdefault(name.rpartition(".")[0], []).append(name)
    return {
        layer: metrics.twl(*({n: p[n] for n in names} for p in pair)).item()
        for layer, names in layers.items()
    }
