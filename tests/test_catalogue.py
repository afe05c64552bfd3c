import dataclasses
import itertools
from typing import get_args

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.spatial import procrustes
from scipy.spatial.distance import jensenshannon, pdist
from scipy.special import rel_entr, softmax
from scipy.stats import binomtest, ttest_1samp
from sklearn.linear_model import LinearRegression
from sklearn.metrics import accuracy_score
from sklearn.neighbors import kneighbors_graph
from torch.nn import functional

import fidlib as fl
from fidlib.measures import boundary, catalogue, conditions, controls, intervals
from fidlib.measures import pair as pairs
from fidlib.measures.catalogue import MEASURES, Level, measure, usual, value
from fidlib.measures.pair import Pair
from fidlib.runs import keys, store
from tests.little import convolutional, linear, shown
from tests.test_geometry import naive_cka, shared_neighbors

ALONE = {"ece_change", "neighbor_overlap", "mutual_neighbors"}
"""Measures of images without an interval."""

SAMPLED = {n for n, m in MEASURES.items() if m.level not in ("weights", "halves")}
SAMPLED -= ALONE
"""Measures with an interval."""

UNSURE = {"spl", "jensen_shannon", "cka", "layer_cka", "stitching"}
"""Of which 500 images are too few."""


@pytest.fixture(scope="module")
def triggers():
    generator = torch.Generator().manual_seed(3)
    images = torch.rand(20, 1, 8, 8, generator=generator)
    return fl.data.Split(images, torch.arange(20) % 10)


@pytest.fixture(scope="module")
def pair(digits, triggers):
    """Two nets of which one names other classes for some images, far from all."""
    host = convolutional(0)
    marked = controls.noisy(host, 0.15, keys.stream(0))
    return Pair(host, marked, digits.test, triggers)


@pytest.fixture(scope="module")
def measured(pair):
    return measure(pair, MEASURES)


@pytest.fixture(scope="module")
def part(pair, digits):
    """The two nets on few images."""
    return Pair(pair.host, pair.marked, digits.test.sample(90), pair.triggers)


def shared_graph(x, y):
    """Edges between mutual neighbours, of both models over those of either."""
    near = [kneighbors_graph(f, 10).toarray().astype(bool) for f in (x, y)]
    host, marked = (graph & graph.T for graph in near)
    return (host & marked).sum() / (host | marked).sum()


def stitched(x, y, head):
    """The head's answers to what a regression on every second image foretells."""
    forecast = np.empty_like(y)
    for half in (0, 1):
        fitted = LinearRegression().fit(x[1 - half :: 2], y[1 - half :: 2])
        forecast[half::2] = fitted.predict(x[half::2])
    return np.mean((forecast @ head.T).argmax(1) == (y @ head.T).argmax(1))


def test_layers_are_compared_one_by_one(part):
    seen = []
    for model in (part.host, part.marked):
        first, rest = model.body[0], model.body[1:3]
        with torch.no_grad():
            one = first(model.normalise(part.split.images))
            two = model.body[3](rest(one))
            linear = model.body[:8](model.normalise(part.split.images))
        places = (one.mean((2, 3)), two.mean((2, 3)), linear)
        seen.append([p.double().numpy() for p in places])
    expected = [naive_cka(x, y) for x, y in zip(*seen, strict=True)]
    result = measure(part, ["layer_cka"])["layer_cka"]
    assert list(result.parts) == ["0", "3", "7"]
    assert [*result.parts.values()] == pytest.approx(expected, rel=1e-5)
    assert result.estimate.value == pytest.approx(np.mean(expected), rel=1e-5)
    assert not any(layer._forward_hooks for layer in part.host.modules())


def test_shifts_are_measured_as_each_alone(part):
    names = [n for n, row in MEASURES.items() if row.level == "shift"]
    rows, labels, each = measure(part, names), part.split.labels.numpy(), []
    for condition in conditions.shifted(part.split.images, part.host):
        with torch.no_grad():
            logits = [
                m(condition.images).double().numpy() for m in (part.host, part.marked)
            ]
        probabilities = [softmax(x, axis=1) for x in logits]
        answers = [x.argmax(1) for x in logits]
        row = {
            "shift_agreement": accuracy_score(*answers),
            "shift_jensen_shannon": np.mean(jensenshannon(*probabilities, axis=1) ** 2),
            "shift_spl": np.mean(rel_entr(*probabilities).sum(1)),
        }
        if condition.strength:
            host, marked = (a == labels for a in answers)
            row |= {"shift_churn": np.mean(host ^ marked)}
            row |= {
                "host_shift_accuracy": np.mean(host),
                "shift_accuracy": marked.mean(),
            }
        each.append(row)
        for name in names:
            assert rows[name].parts.get(str(condition)) == (
                pytest.approx(row[name], rel=1e-6) if name in row else None
            )
    means = pd.DataFrame(each).mean()
    assert {n: rows[n].estimate.value for n in names} == pytest.approx(means.to_dict())
    assert len(each) == 41
    assert 0.3 < means.shift_agreement < 0.95


def margins(logits, labels):
    true = np.eye(logits.shape[1], dtype=bool)[labels]
    return logits[true] - np.where(true, -np.inf, logits).max(1)


def calibration(logits, labels):
    probabilities = softmax(logits, axis=1)
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    place = np.ceil(confidence * 15)
    gaps = [(confidence - right)[place == bin].sum() for bin in np.unique(place)]
    return np.abs(gaps).sum() / len(labels)


def related(x, y):
    """Procrustes' residual over that of the same features, paired otherwise."""
    draw = keys.stream(0, "permutations")
    orders = [torch.randperm(len(y), generator=draw).numpy() for _ in range(10)]
    return procrustes(x, y)[2] / np.mean([procrustes(x, y[o])[2] for o in orders])


def plainly(host, marked, split, triggers):
    """Measures by numpy, scipy and scikit-learn, from what the models give."""
    both = []
    for model in (host, marked):
        rows = {}
        for name, part in (("split", split), ("triggers", triggers)):
            seen = fl.models.outputs(model, part.images)
            rows[name] = tuple(each.double().numpy() for each in seen)
        used = fl.weights.used(model).items()
        weights = {n: p.detach().double().numpy() for n, p in used}
        both.append(rows | {"weights": weights})
    h, m = both
    probabilities = [softmax(r["split"][1], axis=1) for r in (h, m)]
    answers = [r["split"][1].argmax(1) for r in (h, m)]
    secrets = [r["triggers"][1].argmax(1) for r in (h, m)]
    labels, keys = split.labels.numpy(), triggers.labels.numpy()
    twl = sum(np.sum((w - m["weights"][n]) ** 2) for n, w in h["weights"].items())
    x, y = h["split"][0], m["split"][0]
    pfl = np.mean(np.linalg.norm(x - y, axis=1) ** 2)
    right, still = (a == labels for a in answers)
    heads = [model.head.weight.detach().double().numpy() for model in (host, marked)]
    size = max(1, round(len(x) / 50))
    chance = size / (len(x) - 1)
    kept = (shared_neighbors(x, y, size).mean() - chance) / (1 - chance)
    return {
        "twl": twl,
        "twl_relative": twl / sum(np.sum(w**2) for w in h["weights"].values()),
        "lp": np.linalg.norm(heads[0] - heads[1]) ** 2,
        "pfl": pfl,
        "pfl_relative": pfl / np.sum(np.var(x, axis=0)),
        "cka": naive_cka(x, y),
        "rsa": np.corrcoef(pdist(x), pdist(y))[0, 1],
        "mutual_neighbors": shared_graph(x, y),
        "stitching": stitched(x, y, heads[1]),
        "procrustes": related(x, y),
        "neighbor_overlap": kept,
        "spl": np.mean(rel_entr(*probabilities).sum(1)),
        "jensen_shannon": np.mean(jensenshannon(*probabilities, axis=1) ** 2),
        "agreement": accuracy_score(*answers),
        "churn_lost": np.mean(right & ~still),
        "churn_gained": np.mean(~right & still),
        "margin_change": np.mean(margins(m["split"][1], labels))
        - np.mean(margins(h["split"][1], labels)),
        "ece_change": calibration(m["split"][1], labels)
        - calibration(h["split"][1], labels),
        "host_accuracy": np.mean(right),
        "accuracy": accuracy_score(labels, answers[1]),
        "host_trigger_accuracy": np.mean(secrets[0] == keys),
        "trigger_accuracy": np.mean(secrets[1] == keys),
    }


def on_probes(pair):
    """Measures of the boundary, point by point."""
    values = {}
    for name in ("plane_disagreement", "trigger_plane_disagreement"):
        probe = getattr(pair, name.replace("_disagreement", "s"))
        answers = [each.argmax(2).flatten() for each in (probe.host, probe.marked)]
        values[name] = np.mean([a != b for a, b in zip(*answers, strict=True)])
    moves = []
    for points, *logits in zip(*pair.segments, strict=True):
        first = [each[0].argmax().item() for each in logits]
        if first[0] == first[1]:
            length = np.linalg.norm((points[-1] - points[0]).numpy())
            places = [first_change(each.numpy(), first[0]) for each in logits]
            moves.append(abs(places[0] - places[1]) * length)
    return values | {"boundary_shift": np.mean(moves)}


def first_change(logits, label):
    """The share of a segment before another class than this one is named."""
    over = logits[:, label] - np.delete(logits, label, axis=1).max(1)
    for step, (a, b) in enumerate(itertools.pairwise(over)):
        if b < 0:
            return (step + a / (a - b)) / (len(over) - 1)
    return 1.0


def assert_measured_plainly(pair, results):
    expected = plainly(pair.host, pair.marked, pair.split, pair.triggers)
    expected |= on_probes(pair)
    values = {name: results[name].estimate.value for name in results}
    usually = {name: values[name] for name in usual()}
    assert usually == pytest.approx(expected, rel=1e-6, abs=1e-9)
    return values


def test_measures_equal_an_independent_computation(pair, measured):
    values = assert_measured_plainly(pair, measured)
    assert 0.1 < values["agreement"] < 0.95  # else the numbers above say little
    assert values["pfl"] > 0.001
    assert 0 < measured["boundary_shift"].parts["named otherwise at the start"] < 1


def test_measures_of_a_released_pair_equal_an_independent_computation(
    digits, monkeypatch
):
    """FTAL on MNIST; of sixty digits, which it has not seen, and with few probes."""
    monkeypatch.setattr(pairs, "PLANES", 2)
    monkeypatch.setattr(pairs, "SEGMENTS", 8)
    folders = "host/fb4f05733a38c367", "marked/21d24ed87b9c5660"
    host, marked = (fl.models.load(store.RELEASED / folder) for folder in folders)
    few = digits.test.sample(60)
    shown = functional.pad(functional.interpolate(few.images / 255, size=20), [4] * 4)
    split = fl.data.Split(shown, few.labels)
    secret = fl.triggers.chain(split, 0, host=host, count=20)
    pair = Pair(host, marked, split, secret)
    values = assert_measured_plainly(pair, measure(pair, usual()))
    assert values["host_accuracy"] > 0.5
    assert values["trigger_plane_disagreement"] > 0


def test_value_is_the_measure_without_its_interval(pair, measured):
    for name in MEASURES:
        assert value(pair, name) == measured[name].estimate.value, name


@pytest.mark.parametrize("name", MEASURES)
def test_each_measure_says_what_it_is(name):
    row = MEASURES[name]
    assert row.name == name
    assert row.level in get_args(Level)
    assert row.unit
    assert row.source
    assert row.version >= 1


def test_measures_of_the_same_two_models_are_their_value_for_the_same(pair):
    for other in (pair.host, convolutional(0)):
        rows = measure(Pair(pair.host, other, pair.split, pair.triggers), MEASURES)
        for name, row in MEASURES.items():
            estimate, by_class, _ = rows[name]
            if row.same is None:
                host = f"host_{name}".replace("host_host", "host")
                alone = name if row.level == "halves" else host
                assert estimate.value == rows[alone].estimate.value
                continue
            for each in (estimate, *by_class):
                assert each.value in (row.same, None), name
            assert estimate.value == row.same, name
            sure = name in SAMPLED - UNSURE
            if sure and name != "agreement" and "churn" not in name:
                assert estimate[1:] == (row.same, row.same), name


def test_distances_are_zero_for_equal_models_and_never_negative(pair, digits):
    same = fl.compare(pair.host, convolutional(0), digits.test, pair.triggers)
    comparing = [name for name in usual() if MEASURES[name].same is not None]
    assert same.distances() == dict.fromkeys(comparing, 0)
    other = fl.compare(pair.host, pair.marked, digits.test, pair.triggers)
    assert list(other.distances()) == comparing
    for name, distance in other.distances().items():
        assert distance > 0, name
        assert distance == abs(other[name].value - MEASURES[name].same)
    none = fl.compare(pair.host, pair.marked, digits.test).distances()
    assert none["trigger_plane_disagreement"] is None


def assert_near(estimate, expected):
    """Estimates that differ by rounding, as sums in another order do."""
    for a, b in zip(estimate, expected, strict=True):
        assert a == b or a == pytest.approx(b, rel=1e-5)


def test_each_class_is_measured_on_its_own_images(pair, measured):
    label = 3
    members = pair.split.labels == label
    part = fl.data.Split(pair.split.images[members], pair.split.labels[members])
    alone = measure(Pair(pair.host, pair.marked, part, pair.triggers), MEASURES)
    for name, row in MEASURES.items():
        if row.level not in ("features", "outputs") or not row.by_class:
            continue
        estimate, expected = measured[name].by_class[label], alone[name].estimate
        assert estimate.value == pytest.approx(expected.value, rel=1e-5)
        # Of fifty images a class, shares alone have an interval.
        assert (estimate.low is None) == (row.least > 2 or name in ALONE), name
    parts = [each.value for each in measured["lp"].by_class]
    assert sum(parts) == pytest.approx(measured["lp"].estimate.value)
    answered = [each.value for each in measured["trigger_accuracy"].by_class]
    keys = pair.triggers.labels
    right = pair.marked(pair.triggers.images).argmax(1) == keys
    assert answered == [right[keys == k].double().mean().item() for k in range(10)]
    for name in ("twl", "twl_relative"):
        assert measured[name].by_class == []


def test_intervals_of_the_classes_hold_all_at_once(pair, measured, monkeypatch):
    same = (pair.answers[0] == pair.answers[1])[pair.split.labels == 3]
    interval = binomtest(int(same.sum()), len(same)).proportion_ci(0.995, "wilson")
    ends = pytest.approx((interval.low, interval.high))
    assert measured["agreement"].by_class[3][1:] == ends
    changes = pair.logits[1], pair.logits[0]
    changes = [margins(each.numpy(), pair.split.labels.numpy()) for each in changes]
    changes = (changes[0] - changes[1])[pair.split.labels == 3]
    few = dataclasses.replace(MEASURES["margin_change"], least=5)
    monkeypatch.setitem(MEASURES, "margin_change", few)
    estimate = measure(pair, ["margin_change"])["margin_change"].by_class[3]
    ends = ttest_1samp(changes, 0).confidence_interval(0.995)
    assert estimate[1:] == pytest.approx((ends.low, ends.high))


def test_a_measure_has_no_interval_where_none_would_cover(pair, monkeypatch):
    for least, known in ((501, False), (500, True)):
        row = dataclasses.replace(MEASURES["pfl"], least=least)
        monkeypatch.setitem(MEASURES, "pfl", row)
        estimate = measure(pair, ["pfl"])["pfl"].estimate
        assert (estimate.low is not None) == known
        assert estimate.value > 0


@pytest.mark.parametrize("name", ["pfl", "cka", "margin_change"])
def test_an_interval_is_of_how_far_a_measure_is_from_the_same(pair, name, monkeypatch):
    row = dataclasses.replace(MEASURES[name], least=2)
    monkeypatch.setitem(MEASURES, name, row)
    estimate, values = measure(pair, [name])[name].estimate, row.of(pair).linear()
    if row.signed:
        expected = intervals.student(values)
    elif estimate.value > row.same:
        expected = intervals.gamma(values - row.same)
    else:
        expected = [1 - end for end in intervals.gamma(1 - values)][::-1]
    assert estimate[1:] == pytest.approx([float(end) for end in expected])


def test_measuring_some_gives_what_measuring_all_does(pair, measured):
    names = ["spl", "pfl", "boundary_shift", "accuracy"]
    results = measure(pair, names)
    assert list(results) == names
    for name, (estimate, by_class, parts) in results.items():
        assert_near(estimate, measured[name].estimate)
        assert parts == measured[name].parts
        for a, b in zip(by_class, measured[name].by_class, strict=True):
            assert_near(a, b)


def test_intervals_hold_their_value(measured):
    known = {n for n, m in measured.items() if m.estimate.low is not None}
    assert known == SAMPLED - UNSURE
    for name in known:
        share, low, high = measured[name].estimate
        assert low <= share <= high, name
        assert low < high, name


def test_shares_have_wilsons_interval(pair, measured):
    same = pair.answers[0] == pair.answers[1]
    ends = binomtest(int(same.sum()), 500).proportion_ci(0.95, "wilson")
    assert measured["agreement"].estimate[1:] == pytest.approx((ends.low, ends.high))


def test_parts_add_up_to_the_measure(pair, measured):
    layers = measured["twl"].parts
    assert sum(layers.values()) == pytest.approx(measured["twl"].estimate.value)
    assert layers["head"] == pytest.approx(measured["lp"].estimate.value)
    moved = (pair.host.body[0].weight - pair.marked.body[0].weight).square().sum()
    moved = moved + (pair.host.body[0].bias - pair.marked.body[0].bias).square().sum()
    assert layers["body.0"] == pytest.approx(moved.item())
    shares = [*measured["plane_disagreement"].parts.values()]
    assert len(shares) == 16
    assert np.mean(shares) == pytest.approx(
        measured["plane_disagreement"].estimate.value
    )
    assert len(set(shares)) > 1


def test_boundary_shift_of_linear_classifiers_is_that_of_their_hyperplanes():
    pair = Pair(linear(3, classes=2), linear(5, classes=2), shown([0, 1] * 40))
    points = pair.segments.points.double()
    assert points.shape == (60, 16, 1, 2, 2)
    start, way = points[:, 0].flatten(1), (points[:, -1] - points[:, 0]).flatten(1)
    distances = []
    for model in (pair.host, pair.marked):
        body, head = model.body[1], model.head.weight.detach().double()
        normal = (head[0] - head[1]) @ body.weight.detach().double()
        offset = (head[0] - head[1]) @ body.bias.detach().double()
        share = -(start @ normal + offset) / (way @ normal)
        share = torch.where((share > 0) & (share < 1), share, 1)
        distances.append(share * way.norm(dim=1))
    changes = (distances[1] - distances[0]).abs()
    named, other = (m(points[:, 0].float()).argmax(1) for m in (pair.host, pair.marked))
    changes, named = changes[named == other], named[named == other]
    result = measure(pair, ["boundary_shift"])["boundary_shift"]
    apart = result.parts["named otherwise at the start"]
    assert apart == pytest.approx(1 - len(changes) / 60)
    assert 0.2 < apart < 0.8
    assert result.estimate.value == pytest.approx(changes.mean().item(), rel=1e-4)
    assert (changes > 0).double().mean() > 0.2
    # Of a class: the segments on which both name it at the start.
    for label in (0, 1):
        expected = changes[named == label].mean().item()
        of_class = result.by_class[label].value
        assert of_class is None or of_class == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("kind", ["plane_disagreement", "trigger_plane_disagreement"])
def test_plane_disagreement_is_the_share_of_points_named_otherwise(
    pair, measured, kind
):
    probe = getattr(pair, kind.replace("_disagreement", "s"))
    assert probe.points.shape[1:] == (55, 1, 8, 8)
    flat = probe.points.flatten(0, 1)
    with torch.no_grad():
        host, marked = (model(flat).argmax(1) for model in (pair.host, pair.marked))
    differs = host != marked
    share, low, high = measured[kind].estimate
    assert share == pytest.approx(differs.double().mean().item(), abs=1e-3)
    assert 0 < low < share < high < 1
    for label in range(10):
        inside = differs[host == label]
        expected = inside.double().mean().item() if len(inside) else None
        assert measured[kind].by_class[label].value == pytest.approx(expected, abs=2e-3)


def test_planes_are_drawn_whole(pair, measured):
    shares = [*measured["plane_disagreement"].parts.values()]
    draws = np.random.default_rng(0).integers(0, 16, (2000, 16))
    spread = np.std(np.mean(np.array(shares)[draws], axis=1))
    _, low, high = measured["plane_disagreement"].estimate
    assert high - low == pytest.approx(2 * 2.2 * spread, rel=0.3)  # Student's, of 16


def constant(pair):
    """A measure of one's own."""
    return float(len(pair)) * FACTOR


FACTOR = 2.0


def test_a_measure_of_your_own_is_measured_beside_the_others(monkeypatch, pair):
    row = catalogue.Measure(
        name="mine", level="outputs", unit="images", source="this test", same=None,
        of=constant,
    )  # fmt: skip
    monkeypatch.setitem(MEASURES, "mine", row)
    report = fl.compare(pair.host, pair.marked, pair.split)
    assert report.mine == 1000
    assert [e.value for e in report.by_class("mine")] == [
        2.0 * c for c in pair.split.labels.bincount().tolist()
    ]
    assert report.table().loc["mine", "value"] == 1000
    assert "mine" in report.values()
    assert "mine" not in report.distances()  # it compares nothing
    alike = dataclasses.replace(row, same=1.0)
    monkeypatch.setitem(MEASURES, "mine", alike)
    assert report.distances()["mine"] == 999


def test_triangles_are_of_images_alone(pair):
    # Every point is a mixture of three images: no pixel is outside of [0, 1].
    assert pair.planes.points.min() >= 0
    assert pair.planes.points.max() <= 1
    white = torch.ones(7, 3, 1, 8, 8)  # whose mixtures rounding would make whiter
    assert boundary.triangles(white).max() <= 1
    corners = pair.planes.points[0][[0, 9, 54]]
    rows = {tuple(p) for p in (pair.split.images.float() / 255).flatten(1).tolist()}
    near = torch.tensor(sorted(rows))
    for corner in corners.flatten(1):
        assert (near - corner).abs().amax(1).min() < 1e-6
    again = boundary.triangles(corners[None][:, [2, 1, 0]])
    sets = [{tuple(round(v, 4) for v in p) for p in x.flatten(1).tolist()}
            for x in (again[0], pair.planes.points[0])]  # fmt: skip
    assert len(sets[0]) == len(sets[1]) == 55
