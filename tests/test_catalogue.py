import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial import procrustes
from scipy.spatial.distance import jensenshannon
from scipy.special import rel_entr, softmax

import fidlib as fl
from fidlib.fidelity import LEVELS, Comparison, Fidelity, compare
from tests.test_similarity import naive_cka

SHARED = Path(__file__).parents[2] / "shared"
"""Real data and an authors' model that may lie beside a checkout."""


@pytest.fixture(scope="module")
def pair(study):
    return study.host(), study.marked("FTAL")


def plainly(host, marked, split, triggers):
    """Every number of the report, by numpy in float64, image by image."""
    found = []
    for model in (host, marked):
        double = fl.models.fresh(model, fl.runs.stream(9)).double()
        double.load_state_dict({k: v.double() for k, v in model.state_dict().items()})
        rows = {}
        for name, part in (("split", split), ("triggers", triggers)):
            images = part.images
            pixels = images.double() / 255 if images.dtype == torch.uint8 else images
            with torch.no_grad():
                seen = double.eval().features(pixels.double()).numpy()
            rows[name] = seen, seen @ double.head.weight.detach().numpy().T
        rows["weights"] = [p.detach().numpy() for p in double.parameters()]
        rows["head"] = double.head.weight.detach().numpy()
        found.append(rows)
    h, m = found
    probabilities = [softmax(r["split"][1], axis=1) for r in (h, m)]
    answers = [r["split"][1].argmax(1) for r in (h, m)]
    secrets = [r["triggers"][1].argmax(1) for r in (h, m)]
    labels, keys = split.labels.numpy(), triggers.labels.numpy()
    pairs = zip(h["weights"], m["weights"], strict=True)
    twl = sum(np.sum((a - b) ** 2) for a, b in pairs)
    x, y = h["split"][0], m["split"][0]
    pfl = np.mean(np.linalg.norm(x - y, axis=1) ** 2)
    right, still = (a == labels for a in answers)
    return {
        "twl": twl,
        "twl_relative": twl / sum(np.sum(a**2) for a in h["weights"]),
        "lp": np.linalg.norm(h["head"] - m["head"]) ** 2,
        "pfl": pfl,
        "pfl_relative": pfl / np.sum(np.var(x, axis=0)),
        "cka": naive_cka(x, y),
        "procrustes": procrustes(x, y)[2],
        "spl": np.mean(rel_entr(*probabilities).sum(1)),
        "jensen_shannon": np.mean(jensenshannon(*probabilities, axis=1) ** 2),
        "agreement": np.mean(answers[0] == answers[1]),
        "churn_lost": np.mean(right & ~still),
        "churn_gained": np.mean(~right & still),
        "margin_change": np.mean(margins(m["split"][1], labels))
        - np.mean(margins(h["split"][1], labels)),
        "host_accuracy": np.mean(right),
        "marked_accuracy": np.mean(still),
        "host_trigger_accuracy": np.mean(secrets[0] == keys),
        "trigger_accuracy": np.mean(secrets[1] == keys),
    }


def margins(logits, labels):
    true = np.eye(logits.shape[1], dtype=bool)[labels]
    return logits[true] - np.where(true, -np.inf, logits).max(1)


def test_compare_equals_an_independent_computation(pair, digits, study):
    expected = plainly(*pair, digits.test, study.triggers)
    report = compare(*pair, digits.test, study.triggers)
    found = {name: getattr(report, name) for name in expected}
    assert found == pytest.approx(expected, rel=1e-5)
    assert 0.1 < report.agreement < 1  # else the numbers above say little
    assert report.pfl > 0.01
    assert sum(report.twl_layers.values()) == pytest.approx(report.twl)
    assert report.twl_layers["head"] == pytest.approx(report.lp)


def test_each_class_is_compared_on_its_own_images(pair, digits, study):
    whole = compare(*pair, digits.test, study.triggers)
    label = 3
    members = digits.test.labels == label
    part = fl.data.Split(digits.test.images[members], digits.test.labels[members])
    alone = compare(*pair, part, study.triggers)
    for name in LEVELS["features"] + LEVELS["outputs"]:
        if name == "neighbor_overlap":  # neighbours are looked for among all images
            continue
        value, *interval = whole.by_class[name][label]
        assert value == pytest.approx(getattr(alone, name), rel=1e-6), name
        if name in alone.intervals:
            assert interval == pytest.approx(alone.intervals[name], rel=1e-6), name
        else:
            assert interval == [None, None]
            assert name == "ece_change"
    assert sum(v[0] for v in whole.by_class["lp"]) == pytest.approx(whole.lp)
    weighted = [
        (digits.test.labels == k).sum().item()
        * whole.by_class["neighbor_overlap"][k][0]
        for k in range(10)
    ]
    assert sum(weighted) / 500 == pytest.approx(whole.neighbor_overlap)


def test_intervals_hold_their_value(pair, digits, study):
    report = compare(*pair, digits.test, study.triggers)
    sampled = {
        n for level, names in LEVELS.items() if level != "weights" for n in names
    } - {"ece_change"}
    assert report.intervals.keys() == sampled
    for name, (low, high) in report.intervals.items():
        assert low <= getattr(report, name) <= high, name
        assert low < high, name


def test_compare_with_itself_is_perfect(pair, digits, study):
    host, _ = pair
    for other in (host, fl.models.load(study.folder("host"))):
        report = compare(host, other, digits.test, study.triggers)
        zeros = (
            *("twl", "twl_relative", "lp", "pfl", "pfl_relative", "procrustes", "spl"),
            *("jensen_shannon", "churn_lost", "churn_gained", "margin_change"),
            *("ece_change", *LEVELS["boundary"]),
        )
        assert {name: getattr(report, name) for name in zeros} == dict.fromkeys(
            zeros, 0
        )
        assert report.agreement == report.cka == report.neighbor_overlap == 1
        assert report.intervals["pfl"] == report.intervals["boundary_shift"] == [0, 0]
        assert report.intervals["cka"] == [1, 1]
        assert report.host_accuracy == report.marked_accuracy
        assert report.trigger_accuracy == report.host_trigger_accuracy


def test_a_report_survives_json(pair, digits, study):
    for triggers in (None, study.triggers):
        report = compare(*pair, digits.test, triggers)
        text = json.dumps(dataclasses.asdict(report), allow_nan=False)
        assert Fidelity(**json.loads(text)) == report
    other = compare(*pair, digits.test, triggers, seed=1)
    assert other.pfl == report.pfl
    assert other.intervals["pfl"] != report.intervals["pfl"]
    assert other.plane_disagreement != report.plane_disagreement


def test_table_has_every_measure_under_its_level(pair, digits, study):
    report = compare(*pair, digits.test)
    table = report.table()
    assert list(table.columns) == ["level", "value", "low", "high"]
    assert list(table.index) == [name for names in LEVELS.values() for name in names]
    assert table.loc["pfl"].tolist() == [
        "features",
        report.pfl,
        *report.intervals["pfl"],
    ]
    assert table.loc["trigger_accuracy"].isna().tolist() == [False, True, True, True]
    wide = report.table(by_class=True, layers=True)
    assert wide.loc["spl", 4] == report.by_class["spl"][4][0]
    assert wide.loc["twl", list(range(10))].isna().all()
    assert wide.loc["twl body.conv1", "value"] == report.twl_layers["body.conv1"]
    numbers = {f.name for f in dataclasses.fields(Fidelity)} - set(table.index)
    assert numbers == {"images", "twl_layers", "intervals", "by_class", "planes"}


def test_distances_are_the_reports(pair, digits, study):
    host, marked = pair
    comparison = Comparison(host, digits.test, study.triggers)
    found, report = comparison.distances(marked), comparison(marked)
    assert found.pop("accuracy") == report.marked_accuracy
    assert found == pytest.approx({name: getattr(report, name) for name in found})
    expected = {"trigger_accuracy", "twl", "lp", "pfl", "spl", "agreement"}
    assert set(found) == expected


def test_compare_works_between_architectures(pair, digits, network):
    host, _ = pair
    other = fl.models.wrap(network, image_size=8)
    report = compare(host, other, digits.test)
    assert (report.twl, report.twl_relative, report.lp) == (None, None, None)
    assert (report.pfl, report.pfl_relative, report.twl_layers) == (None, None, {})
    assert 0 < report.cka < 1
    assert 0 < report.procrustes < 1
    assert 0 < report.neighbor_overlap < 1
    assert report.spl > 0
    assert 0 <= report.agreement <= 1
    assert Comparison(host, digits.test).distances(other)["pfl"] is None


def linear(seed, *, size=4, classes=3, scale=1.0):
    """A network whose features are linear in the pixels: 2 x 2 of them."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        body = torch.nn.Linear(4, size)
        body.weight.data *= scale
        layers = (torch.nn.Flatten(), body, torch.nn.Linear(size, classes, bias=False))
        return fl.models.wrap(torch.nn.Sequential(*layers), image_size=2)


def shown(labels):
    generator = torch.Generator().manual_seed(5)
    labels = torch.as_tensor(labels)
    return fl.data.Split(torch.rand(len(labels), 1, 2, 2, generator=generator), labels)


def undefined(report):
    names = {name for names in LEVELS.values() for name in names}
    return {name for name in names if getattr(report, name) is None}


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
    report = compare(linear(0), linear(1), shown(labels))
    if len(labels) < 11:
        missing = missing | {"neighbor_overlap"}
    if len(labels) < 4:
        missing = missing | {"cka"}
    if len(labels) < 2:
        missing = missing | {"pfl_relative", "procrustes"}
    assert undefined(report) - {"cka"} == (missing | TRIGGERS) - {"cka"}
    assert (report.cka is None) >= ("cka" in missing)
    for label, (value, *interval) in enumerate(report.by_class["pfl"]):
        count = labels.count(label)
        assert (value is None) == (count == 0)
        assert (interval == [None, None]) == (count < 2)
    text = json.dumps(dataclasses.asdict(report), allow_nan=False)
    assert Fidelity(**json.loads(text)) == report


def test_constant_features_leave_their_measures_undefined():
    constant, split = linear(2, scale=0.0), shown([0, 1, 2] * 10)
    similar = {"cka", "procrustes", "neighbor_overlap"}
    assert undefined(compare(linear(0), constant, split)) == similar | TRIGGERS
    for other in (linear(0), linear(3, scale=0.0), constant):
        report = compare(constant, other, split)
        assert undefined(report) == similar | TRIGGERS | {"pfl_relative"}
        assert (report.pfl == 0) == (other is constant)


def test_boundary_shift_of_linear_classifiers_is_that_of_their_hyperplanes():
    host, marked = linear(3, classes=2), linear(5, classes=2)
    comparison = Comparison(host, shown([0, 1] * 40))
    found = comparison(marked)
    points = comparison._probes.probes["boundary_shift"].points.double()
    start, way = points[:, 0].flatten(1), (points[:, -1] - points[:, 0]).flatten(1)
    distances = []
    for model in (host, marked):
        body, head = model.body[1], model.head.weight.detach().double()
        normal = (head[0] - head[1]) @ body.weight.detach().double()
        offset = (head[0] - head[1]) @ body.bias.detach().double()
        share = -(start @ normal + offset) / (way @ normal)
        share = torch.where((share > 0) & (share < 1), share, 1)
        distances.append(share * way.norm(dim=1))
    changes = (distances[1] - distances[0]).abs()
    assert found.boundary_shift == pytest.approx(changes.mean().item(), rel=1e-4)
    assert (changes > 0).double().mean() > 0.2


def test_plane_disagreement_is_the_share_of_points_named_otherwise():
    host, marked = linear(0), linear(1)
    split = shown([0, 1, 2] * 20)
    comparison = Comparison(host, split)
    points = comparison._probes.probes["plane_disagreement"].points
    assert points.shape == (16, 81, 1, 2, 2)
    flat = points.flatten(0, 1)
    expected = (host(flat).argmax(1) != marked(flat).argmax(1)).double().mean().item()
    assert 0 < expected < 1
    found = comparison(marked)
    assert found.plane_disagreement == pytest.approx(expected)
    assert sum(found.planes) / len(found.planes) == pytest.approx(expected)
    assert len(set(found.planes)) > 1


def test_trigger_planes_go_through_trigger_source_and_target():
    host, split = linear(0), shown([0, 1, 2] * 20)
    sources = host(split.images[:9]).argmax(1)
    triggers = fl.data.Split(split.images[:9].flip(3), (sources + 1) % 3)
    probe = Comparison(host, split, triggers)._probes.probes[
        "trigger_plane_disagreement"
    ]
    answered = host(triggers.images).argmax(1)
    wanted = int((answered != triggers.labels).sum())
    assert len(probe.points) == wanted > 0
    right = fl.data.Split(triggers.images, answered)  # the host answers them already
    report = compare(host, linear(1), split, right)
    assert report.trigger_plane_disagreement is None
    assert report.host_trigger_accuracy == 1


def test_compare_refuses_what_it_cannot_compare(pair, digits, network):
    host = pair[0]
    other = fl.models.wrap(network, num_classes=4, image_size=8)
    with pytest.raises(ValueError, match="the host has 10 classes, the marked model 4"):
        compare(host, other, digits.test)
    with pytest.raises(ValueError, match="split run from 0 to 9, but the host has 4"):
        compare(other, other, digits.test)
    with pytest.raises(ValueError, match="split holds no image"):
        compare(host, host, digits.test.first(0))
    strange = fl.data.Split(digits.test.images[:2], torch.full((2,), 12))
    with pytest.raises(ValueError, match="triggers run from 12 to 12"):
        compare(host, host, digits.test, strange)
    broken = fl.models.wrap(network, image_size=8)
    broken.head.weight.data[0] = torch.nan
    with pytest.raises(ValueError, match="not finite"):
        compare(host, broken, digits.test)
    wide = fl.data.Split(torch.rand(1, 1, 9, 9), torch.tensor([1]))
    with pytest.raises(ValueError, match="make them alike"):
        compare(host, pair[1], digits.test, wide)


@pytest.fixture(scope="session")
def mnist(tmp_path_factory):
    """The real set: from $FIDLIB_DATA, the cache, or packed beside the checkout."""
    if (SHARED / "data" / "unpack.py").exists():
        import subprocess
        import sys

        folder = tmp_path_factory.mktemp("data")
        command = [sys.executable, SHARED / "data" / "unpack.py", folder, "mnist"]
        subprocess.run(command, check=True, capture_output=True)
        return fl.data.load("mnist", root=folder)
    folder = Path(os.environ.get("FIDLIB_DATA", "~/.cache/fidlib")).expanduser()
    if not (folder / "mnist.npz").exists():
        pytest.skip("needs mnist.npz in FIDLIB_DATA")
    return fl.data.load("mnist", root=folder)


def test_the_authors_host_gets_9946_of_10000(mnist):
    path = SHARED / "reference" / "authors-host-mnist-2d.pt"
    if not path.exists():
        pytest.skip("needs the authors' published MNIST host")
    model = fl.models.load_authors(path)
    logits = fl.features.outputs(model, mnist.test.images).logits
    assert (logits.argmax(1) == mnist.test.labels).sum().item() == 9946
