import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

import fidlib as fl
from fidlib.measures import controls
from fidlib.measures.catalogue import MEASURES, usual
from fidlib.runs import keys
from tests.little import convolutional, linear, shown

SHARED = Path(__file__).parents[2] / "shared"
"""Real data and an authors' model that may lie beside a checkout."""


def models():
    host = convolutional(0)
    return host, controls.noisy(host, 0.15, keys.stream(0))


@pytest.fixture(scope="module")
def report(digits):
    return fl.compare(*models(), digits.test)


def test_a_measure_is_an_attribute_and_an_estimate_by_name(report):
    assert report.pfl == report["pfl"].value > 0
    assert report["pfl"].low < report.pfl < report["pfl"].high
    assert report.values() == {name: getattr(report, name) for name in usual()}
    assert report.trigger_accuracy is None
    assert report.images == 500
    with pytest.raises(AttributeError, match="no 'tlw'; its measures are twl, "):
        _ = report.tlw
    with pytest.raises(KeyError, match="unknown measure 'tlw'; use one of twl, "):
        _ = report["tlw"]


def test_what_was_not_asked_for_is_none():
    part = fl.Fidelity({}, 5)
    assert part.pfl is None
    assert part.by_class("pfl") == []
    assert part.parts("twl") == {}
    assert set(part.values().values()) == set(part.distances().values()) == {None}


def test_table_has_every_measure_under_its_level(report):
    table = report.table()
    assert list(table.columns) == ["level", "value", "low", "high"]
    assert table.level.to_dict() == {name: MEASURES[name].level for name in usual()}
    assert table.loc["pfl"].tolist() == ["features", *report["pfl"]]
    assert table.loc["trigger_accuracy"].isna().tolist() == [False, True, True, True]
    wide = report.table(by_class=True, layers=True)
    assert wide.loc["spl", 4] == report.by_class("spl")[4].value
    assert wide.loc["twl", list(range(10))].isna().all()
    assert wide.loc["twl body.0", "value"] == report.parts("twl")["body.0"]
    narrow = wide.loc[usual(), list(table.columns)]
    pd.testing.assert_frame_equal(narrow, table, check_column_type=False)


def test_a_seed_decides_planes_and_permutations(report, digits):
    assert fl.compare(*models(), digits.test) == report
    other = fl.compare(*models(), digits.test, seed=1)
    assert other["pfl"] == report["pfl"]
    assert other.procrustes == pytest.approx(report.procrustes, rel=0.02)
    assert other.procrustes != report.procrustes
    assert other.plane_disagreement != report.plane_disagreement


def undefined(report):
    return {name for name, value in report.values().items() if value is None}


TRIGGERS = {"host_trigger_accuracy", "trigger_accuracy", "trigger_plane_disagreement"}


@pytest.mark.parametrize(
    ("labels", "missing"),
    [
        ([0] * 30, {"plane_disagreement", "boundary_shift"}),
        ([0, 1] * 15, {"plane_disagreement"}),
        ([0, 1, 1, 2] * 5, set()),
        ([2], {"plane_disagreement", "boundary_shift"}),
        ([0, 1, 2], set()),
        ([0, 1, 2, 2], set()),
    ],
)
def test_small_and_one_sided_splits_are_measured_as_far_as_they_go(labels, missing):
    report = fl.compare(linear(0), linear(1), shown(labels))
    if len(labels) < 12:
        missing = missing | {"stitching"}
    if len(labels) < 11:
        missing = missing | {"mutual_neighbors"}
    if len(labels) < 10:
        missing = missing | {"neighbor_overlap"}
    if len(labels) < 4:
        missing = missing | {"cka"}
    if len(labels) < 3:
        missing = missing | {"rsa"}
    if len(labels) < 2:
        missing = missing | {"pfl_relative", "procrustes"}
    some = {"cka", "boundary_shift"}  # as many images, or ones named alike, as it takes
    assert undefined(report) - some == (missing | TRIGGERS) - some
    assert (report.boundary_shift is None) >= ("boundary_shift" in missing)
    assert (report.cka is None) >= ("cka" in missing)
    for name in ("pfl", "agreement"):
        for label, (value, low, _) in enumerate(report.by_class(name)):
            count = labels.count(label)
            assert (value is None) == (count == 0)
            assert (low is None) == (count == 0 or name == "pfl")


def test_constant_features_leave_their_measures_undefined():
    constant, split = linear(2, scale=0.0), shown([0, 1, 2] * 10)
    alike = {"rsa", "mutual_neighbors"}
    similar = {"cka", "procrustes", "neighbor_overlap"} | alike | TRIGGERS
    apart = {"boundary_shift"}  # where the two name no image alike
    names = undefined(fl.compare(linear(0), constant, split))
    assert names | apart == similar | apart
    for other in (linear(0), linear(3, scale=0.0), constant):
        report = fl.compare(constant, other, split)
        assert undefined(report) | apart == similar | apart | {"pfl_relative"}
        assert (report.pfl == 0) == (other is constant)


def test_what_takes_long_is_measured_when_it_is_named(digits):
    asked = ["layer_cka", "shift_agreement"]
    split = digits.test.sample(20)
    report = fl.compare(*models(), split, measures=asked)
    assert list(report.measured) == asked
    assert {*report.values()} == {*usual(), *asked}
    assert list(report.table().dropna(how="all", subset="value").index) == asked
    assert report.distances()["shift_agreement"] == 1 - report.shift_agreement > 0
    assert not {*fl.compare(*models(), split).values()} & {*asked}
    with pytest.raises(ValueError, match="unknown measures tlw; use some of twl, "):
        fl.compare(*models(), split, measures="tlw")


def test_compare_works_between_architectures(digits, network):
    other = fl.models.wrap(network, image_size=8)
    report = fl.compare(convolutional(0), other, digits.test)
    shaped = {"twl", "twl_relative", "lp", "pfl", "pfl_relative"}
    assert report.agreement < 0.1  # no image on a segment is named alike
    assert undefined(report) == shaped | TRIGGERS | {"boundary_shift"}
    assert report.parts("twl") == {}
    assert 0 < report.cka < 1
    assert report.spl > 0


def test_no_divergence_is_rounded_below_zero(digits):
    host, same = convolutional(0), convolutional(0)
    same.head = torch.nn.Linear(12, 10)  # the same probabilities
    with torch.no_grad():
        same.head.weight.copy_(host.head.weight)
        same.head.bias.fill_(0.1)
    report = fl.compare(host, same, digits.test, measures=["spl", "shift_spl"])
    assert 0 <= report.spl < 1e-12
    assert 0 <= report.shift_spl < 1e-12


@pytest.fixture(scope="session")
def mnist(tmp_path_factory):
    """The real set: from $FIDLIB_DATA, the cache, or packed beside the checkout."""
    if (SHARED / "data" / "unpack.py").exists():
        folder = tmp_path_factory.mktemp("data")
        command = [sys.executable, SHARED / "data" / "unpack.py", folder, "mnist"]
        subprocess.run(command, check=True, capture_output=True)
        return fl.data.load("mnist", root=folder)
    folder = Path(os.environ.get("FIDLIB_DATA", "~/.cache/fidlib")).expanduser()
    if not (folder / "mnist.npz").exists():
        pytest.skip("needs mnist.npz in FIDLIB_DATA")
    return fl.data.load("mnist", root=folder)


MISSED = """
    229 333 588 596 761 884 962 1599 1602 1670 2217 2252 2369 2576
    3417 3817 3848 4324 4428 4454 4716 4971 5143 5279 5479 5986 5990 6090
    6348 6439 6525 6914 7308 7469 7661 7735 7791 8023 8044 8344 8575 8674
    8748 8858 9032 9292 9389 9438 9490 9663 9695 9782 9888 9957
    """
"""What is left of 10,000 test images when 9,946 are right, as the authors say."""


def test_the_authors_host_misses_54_of_10000(mnist):
    path = SHARED / "reference" / "authors-host-mnist-2d.pt"
    if not path.exists():
        pytest.skip("needs the authors' published MNIST host")
    model = fl.models.load_authors(path)
    missed = torch.tensor([int(number) for number in MISSED.split()])
    assert len(missed) == 54
    rows = torch.cat([missed, mnist.test.sample_rows(500)]).unique()  # all take minutes
    logits = fl.models.outputs(model, mnist.test.images[rows]).logits
    wrong = rows[logits.argmax(1) != mnist.test.labels[rows]]
    assert wrong.tolist() == missed.tolist()


def test_reports_stand_side_by_side_as_distances(report):
    bare = fl.Fidelity({}, 5)
    titles = {"cka": "1 - CKA", "pfl": "PFL"}
    rows = {("FTAL", 1): report, ("FTAL", 2): bare}
    table = fl.measures.fidelity.side_by_side(rows, titles)
    assert list(table.columns) == ["1 - CKA", "PFL"]
    assert list(table.index) == list(rows)
    assert table.dtypes.tolist() == [float, float]
    assert table.loc[("FTAL", 1), "1 - CKA"] == pytest.approx(1 - report.cka)
    assert table.loc[("FTAL", 2)].isna().all()
    named = fl.measures.fidelity.side_by_side({"FTAL": report}, titles)
    assert named.PFL["FTAL"] == report.pfl
    coarse = fl.measures.fidelity.side_by_side(rows, titles, rounding=2 * report.pfl)
    assert coarse.PFL[("FTAL", 1)] == 0
    assert coarse.loc[("FTAL", 2)].isna().all()
