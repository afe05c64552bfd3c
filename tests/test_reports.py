import dataclasses
import json

import pytest
import torch

from fidlib import models
from fidlib.measures import catalogue
from fidlib.measures.catalogue import MEASURES, Measure
from fidlib.measures.pair import Pair
from fidlib.runs import store
from fidlib.study import reports
from tests.little import linear, shown

pytestmark = pytest.mark.usefixtures("root")

KEY = {"host": "a", "marked": "b"}
NAMES = ["twl", "pfl", "spl"]


@pytest.fixture
def fails(monkeypatch):
    """Whoever runs a model from now on."""

    def switch():
        def run(*_, **__):
            raise AssertionError("a model was run")

        monkeypatch.setattr(models, "outputs", run)
        monkeypatch.setattr(models.Classifier, "forward", run)

    return switch


def outputs(seed, images):
    model = linear(seed)
    return reports.outputs(model, models.fingerprint(model), images)


def test_outputs_are_kept_and_read_back(fails):
    images = shown([0, 1, 2]).images
    expected = models.outputs(linear(0), images)
    first = outputs(0, images)
    assert reports.is_kept(models.fingerprint(linear(0)), images)
    fails()
    again = outputs(0, images)
    for result in (first, again):
        assert torch.equal(result.features, expected.features)
        assert torch.equal(result.logits, expected.logits)
        assert result.features.dtype == torch.float32
    for other in (images.flip(0), images[:2], images.double()):
        with pytest.raises(AssertionError, match="a model was run"):
            outputs(0, other)
        assert not reports.is_kept(models.fingerprint(linear(0)), other)
    with pytest.raises(AssertionError, match="a model was run"):
        outputs(1, images)


def pair(run=None):
    options = {} if run is None else {"run": run}
    return Pair(linear(0), linear(1), shown([0, 1, 2] * 10), **options)


def report(names=NAMES, make=pair, key=None):
    return reports.fidelity(key or KEY, names, make, 30)


@pytest.fixture
def measured(monkeypatch):
    """The names of what is measured, each time."""
    asked, whole = [], reports.measure

    def measure(pair, names):
        asked.append([*names])
        return whole(pair, names)

    monkeypatch.setattr(reports, "measure", measure)
    return asked


def never():
    raise AssertionError("measured again")


def test_a_report_is_kept_as_it_was_measured():
    expected = catalogue.measure(pair(), NAMES)
    first, again = report(), report(make=never)
    assert first.measured == again.measured == expected
    assert again.images == 30
    assert list(report(["spl", "pfl"], never).measured) == ["spl", "pfl"]
    text = json.dumps(json.loads(next(store.runs_root().rglob(
        "measures.json")).read_text()), allow_nan=False)  # fmt: skip
    assert json.loads(text)["pfl"]["version"] == MEASURES["pfl"].version


def test_a_report_of_every_measure_is_kept():
    whole = Pair(linear(0), linear(1), shown([0, 1, 2] * 10), shown([0, 1, 2], 6))
    first = report(list(MEASURES), lambda: whole)
    assert first.measured == catalogue.measure(whole, MEASURES)
    assert report(list(MEASURES), never) == first


def test_a_measure_of_another_version_alone_is_measured_again(
    monkeypatch, fails, measured
):
    first = report()
    assert reports.missing(KEY, NAMES) == []
    newer = dataclasses.replace(MEASURES["twl"], version=99, of=lambda pair: 7.0)
    newer = dataclasses.replace(newer, parts=None)
    monkeypatch.setitem(MEASURES, "twl", newer)
    assert reports.missing(KEY, NAMES) == ["twl"]
    fails()
    result = report()
    assert measured == [NAMES, ["twl"]]
    assert result.twl == 7
    for name in ("pfl", "spl"):
        assert result.measured[name] == first.measured[name]
    assert report(make=never) == result


def mine(pair):
    return 2.0 * len(pair)


def mine_otherwise(pair):
    return 3.0 * len(pair)


def measure_of(function, name="mine"):
    return Measure(
        name=name, level="outputs", unit="images", source="here", same=None, of=function
    )


def test_a_measure_added_later_is_added_and_the_rest_is_read(monkeypatch, measured):
    first = report()
    monkeypatch.setitem(MEASURES, "mine", measure_of(mine))
    result = report([*NAMES, "mine"])
    assert measured == [NAMES, ["mine"]]
    assert result.mine == 60
    assert {n: result.measured[n] for n in NAMES} == first.measured
    assert report([*NAMES, "mine"], never) == result
    # Another text under the same name is another measure.
    monkeypatch.setitem(MEASURES, "mine", measure_of(mine_otherwise))
    assert report([*NAMES, "mine"]).mine == 90
    assert measured == [NAMES, ["mine"], ["mine"]]


def test_a_measure_asks_for_outputs_that_are_kept(monkeypatch, fails):
    def run(model, images):
        return reports.outputs(model, models.fingerprint(model), images)

    whole = pair(run)
    report(make=lambda: whole)
    monkeypatch.setitem(MEASURES, "agrees", measure_of(
        lambda pair: float((pair.answers[0] == pair.answers[1]).sum()), "agrees"
    ))  # fmt: skip
    fails()
    result = report([*NAMES, "agrees"], lambda: pair(run))
    answers = (linear(seed).body(whole.split.images) for seed in (0, 1))
    heads = (linear(seed).head for seed in (0, 1))
    named = [h(a).argmax(1) for h, a in zip(heads, answers, strict=True)]
    assert result.agrees == (named[0] == named[1]).sum()


def test_another_pair_has_a_report_of_its_own():
    report()
    for key in (KEY | {"marked": "c"}, KEY | {"images": "d"}):
        with pytest.raises(AssertionError, match="measured again"):
            report(make=never, key=key)


def test_a_damaged_report_says_what_to_do():
    report()
    path = next(store.runs_root().rglob("measures.json"))
    path.write_text(path.read_text().replace("0.", "1.", 1))
    with pytest.raises(ValueError, match=r"measures\.json\): delete that folder"):
        report()
