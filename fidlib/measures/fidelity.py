"""The report: every measure of two models on one split."""

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
from torch import Tensor

from fidlib import models
from fidlib.data import Split, pixels
from fidlib.measures.catalogue import MEASURES, Measured, measure, usual
from fidlib.measures.intervals import NONE, Estimate
from fidlib.measures.pair import Pair
from fidlib.models import Classifier


@dataclass(frozen=True)
class Fidelity:
    """How far a marked model is from its host on one split.

    Every measure of `MEASURES` is an attribute with its value, such as `report.pfl`;
    `report["pfl"]` is the `Estimate` with its 95 % interval. A number is None where
    there is nothing to measure:

    - between parameters, heads or features of other shapes;
    - of features that are the same for all images;
    - of fewer images than a measure needs (four for CKA, ten for neighbours);
    - of a boundary when the split has no two classes (three for planes), or is not
      asked for, or where no image is named alike;
    - of triggers that were not given, or that the host answers already
      (`trigger_plane_disagreement`).

    Means of what a few images make most of have no interval on fewer images than
    `Measure.least`. Measures of the levels in `ON_REQUEST` are made only if they
    are named.
    """

    measured: Mapping[str, Measured]
    """By name; a measure that was not asked for is missing."""
    images: int
    """N, the images behind the numbers."""

    def __getitem__(self, name: str) -> Estimate:
        """Value, low and high of a measure on all images.

        Raises:
            KeyError: If there is no measure of that name.
        """
        entry = self.measured.get(name)
        if entry is None and name not in MEASURES:
            raise KeyError(f"unknown measure {name!r}; use one of {_known()}.")
        return NONE if entry is None else entry.estimate

    def __getattr__(self, name: str) -> float | None:
        if name.startswith("_") or name not in MEASURES:
            raise AttributeError(
                f"a report has no {name!r}; its measures are {_known()}."
            )
        return self[name].value

    def by_class(self, name: str) -> list[Estimate]:
        """A measure on the images of each class; empty if it has none by class."""
        entry = self.measured.get(name)
        return entry.by_class if entry else []

    def parts(self, name: str) -> dict[str, float]:
        """What a measure is the sum or mean of: TWL's layers, the planes' shares."""
        entry = self.measured.get(name)
        return entry.parts if entry else {}

    def values(self) -> dict[str, float | None]:
        """Every measure's value, by name."""
        return {name: self[name].value for name in self._shown()}

    def distances(self) -> dict[str, float | None]:
        """Every measure that compares, as a distance: 0 is the same."""
        distances: dict[str, float | None] = {}
        for name in self._shown():
            value, same = self[name].value, MEASURES[name].same
            if same is not None:
                distances[name] = None if value is None else abs(value - same)
        return distances

    def table(self, *, by_class: bool = False, layers: bool = False) -> pd.DataFrame:
        """A row per measure.

        Args:
            by_class: Add a column for each class.
            layers: Add a row for each layer's part of TWL.

        Returns:
            Indexed by measure; columns `level`, `value`, `low`, `high`, then the class
            indices. NaN where there is no such number.
        """
        rows = {}
        for name in self._shown():
            of_classes = self.by_class(name) if by_class else []
            classes = {label: each.value for label, each in enumerate(of_classes)}
            level = MEASURES[name].level
            rows[name] = {"level": level, **self[name]._asdict(), **classes}
        for layer, part in self.parts("twl").items() if layers else ():
            rows[f"twl {layer}"] = {"level": "layers", "value": part}
        table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("measure")
        return table.astype({name: float for name in table.columns[1:]})

    def _shown(self) -> list[str]:
        """Measures in their order: the usual ones, and others that were asked for."""
        return [n for n in MEASURES if n in self.measured or n in usual()]


def compare(
    host: Classifier,
    marked: Classifier,
    split: Split | Any,
    triggers: Split | Any = None,
    *,
    seed: int = 0,
    measures: Iterable[str] | None = None,
) -> Fidelity:
    """How far a marked model is from its host, on every level.

    Works for any two classifiers of the same classes, watermarked or not.

    Args:
        host: The reference.
        marked: The model that is compared with it.
        split: Images and labels to compare on, on the models' device; also what
            `Split.of` takes, such as a pair or a Dataset.
        triggers: The watermark, if there is one.
        seed: Decides planes, segments and permutations.
        measures: Those to have, by name; the usual ones when None.

    Raises:
        ValueError: If the two do not have the same number of classes, cannot take the
            images, or give numbers that are not finite; if there is no image, or a
            label that is none of theirs.
    """
    split = Split.of(split)
    triggers = None if triggers is None else Split.of(triggers)
    pair = Pair(host, marked, split, triggers, seed=seed)
    _check_pixels(split.images)
    for model in {pair.host, pair.marked}:
        models.check_takes(model, split.images)
    names = usual() if measures is None else named(measures)
    return Fidelity(measure(pair, names), len(split))


def named(measures: Iterable[str]) -> list[str]:
    """Names of measures.

    Raises:
        ValueError: If there is none of a name.
    """
    names = [measures] if isinstance(measures, str) else [*measures]
    if unknown := [str(name) for name in names if name not in MEASURES]:
        raise ValueError(
            f"unknown measures {', '.join(unknown)}; use some of {_known()}."
        )
    return names


def side_by_side(
    reports: Mapping[Hashable, Fidelity],
    titles: Mapping[str, str],
    *,
    rounding: float = 0.0,
) -> pd.DataFrame:
    """Measures of several models, as distances: 0 is the same.

    Args:
        reports: Of each model, by what names its row.
        titles: Measure that compares -> its column.
        rounding: What is no larger counts as 0.

    Returns:
        A row a model; NaN where there is nothing to measure.
    """
    rows = {of: {n: r.distances()[n] for n in titles} for of, r in reports.items()}
    table = pd.DataFrame(rows, dtype=float).T.rename(columns=dict(titles))
    return table.mask(table <= rounding, 0)


def _check_pixels(images: Tensor) -> None:
    """Raise if they look normalised; of triggers that is not known."""
    low, high = (float(end) for end in pixels(images).aminmax())
    if low < -0.5 or high > 1.5:
        raise ValueError(
            f"the images go from {low:.3g} to {high:.3g}, as normalised ones do: pass "
            "pixels in [0, 1], which a classifier normalises itself (mean and std of "
            "fidlib.models.wrap)."
        )


def _known() -> str:
    return ", ".join(MEASURES)
