"""Intervals hold the truth as often as they say, on what released models give.

`per_image.npz` has, of five released models, what each test image adds to a measure:
drawing images from these is drawing from a population whose mean is known.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from fidlib.measures.catalogue import MEASURES
from fidlib.measures.intervals import gamma, student
from fidlib.measures.measure import OF_A_CLASS

DRAWS = 2000

HELD = np.load(Path(__file__).with_name("per_image.npz"))

PAIRS = sorted({name.rsplit(" ", 1)[0] for name in HELD if name.endswith(" spl")})

MEANS = ("spl", "jensen_shannon", "pfl", "margin_change")

FALLS_SHORT = {("mnist fine-tuned", "spl", 1000): 0.9}
"""Where an interval is given that covers less than it says, and how often it does."""


def population(pair, measure):
    unit = HELD[f"{pair} {measure} unit"]
    return torch.from_numpy(HELD[f"{pair} {measure}"].astype(np.float32) * unit)


def ends(measure, values, level=0.95):
    return (student if MEASURES[measure].signed else gamma)(values, level)


def held(measure, values, count, level=0.95):
    """`(DRAWS,)` whether intervals from so many images hold the mean of all."""
    draw, truth, hits = np.random.default_rng(0), values.double().mean().item(), []
    size = min(DRAWS, 4_000_000 // count)
    for _ in range(DRAWS // size):
        rows = torch.from_numpy(draw.integers(0, len(values), (size, count)))
        low, high = ends(measure, values[rows], level)
        hits.append((low <= truth) & (truth <= high))
    return np.concatenate(hits)


@pytest.mark.parametrize("count", [50, 200, 1000, 10_000])
@pytest.mark.parametrize("measure", MEANS)
def test_intervals_cover(measure, count):
    if count < MEASURES[measure].least:
        pytest.skip("has no interval of so few images")
    few = ["mnist FTAL", *["mnist fine-tuned", "cifar10 FTAL"] * (measure == "spl")]
    for pair in few if count == 10_000 else PAIRS:  # of so many images a second each
        covered = held(measure, population(pair, measure), count).mean()
        if (pair, measure, count) in FALLS_SHORT:
            named = FALLS_SHORT[pair, measure, count]
            assert covered == pytest.approx(named, abs=0.015)
        else:
            assert 0.92 <= covered <= 0.98, pair


@pytest.mark.parametrize("measure", ["spl", "jensen_shannon"])
def test_fewer_images_than_an_interval_asks_for_do_not_cover(measure):
    few = MEASURES[measure].least // 2
    covered = [held(measure, population(p, measure), few).mean() for p in PAIRS]
    assert min(covered) < 0.92


@pytest.mark.parametrize("measure", ["pfl", "margin_change"])
def test_intervals_of_classes_cover_all_at_once(measure):
    for pair in ("mnist FTAL", "cifar10 FixLL+PFL"):
        values = population(pair, measure)
        labels = torch.from_numpy(HELD[f"{pair.split()[0]} labels"])
        together = np.ones(DRAWS, bool)
        for label in range(10):
            members = values[labels == label]
            assert len(members) >= OF_A_CLASS * MEASURES[measure].least
            together &= held(measure, members, len(members), level=0.995)
        assert 0.92 <= together.mean() <= 0.98, pair


@pytest.mark.parametrize("count", [16, 64])
def test_intervals_over_planes_cover(count):
    for name in (n for n in HELD if n.endswith(" planes")):
        values = torch.from_numpy(HELD[name].astype(np.float32))
        assert 0.92 <= held("plane_disagreement", values, count).mean() <= 0.98, name


def test_stated_deviation_of_the_margin_is_that_of_other_images():
    for pair in PAIRS:
        values, draw = population(pair, "margin_change"), np.random.default_rng(1)
        drawn = values[torch.from_numpy(draw.integers(0, len(values), (DRAWS, 500)))]
        low, high = student(drawn)
        stated = (high - low).mean() / 2 / 1.965  # Student's, of 500
        assert stated == pytest.approx(drawn.double().mean(1).std().item(), rel=0.05)
