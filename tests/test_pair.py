import copy

import pytest
import torch

import fidlib as fl
from fidlib.measures.pair import Pair
from fidlib.models import outputs
from tests.little import convolutional, linear, shown


@pytest.fixture
def counted():
    """What runs models, and the images that each was run on."""
    asked = []

    def run(model, images):
        asked.append((model, images))
        return outputs(model, images)

    return asked, run


def test_a_pair_runs_a_model_once_and_only_when_asked(counted):
    asked, run = counted
    pair = Pair(linear(0), linear(1), shown([0, 1, 2] * 10), run=run)
    assert not asked
    first = pair.features
    assert pair.logits[0].dtype == torch.float64
    assert pair.features is first
    assert [model for model, _ in asked] == [pair.host, pair.marked]
    same = Pair(pair.host, pair.host, pair.split, run=run)
    assert torch.equal(*same.features)
    assert len(asked) == 3


def test_outputs_of_a_pair_are_those_of_its_models():
    pair = Pair(linear(0), linear(1), shown([0, 1, 2] * 10))
    for model, features, logits in zip(
        (pair.host, pair.marked), pair.features, pair.logits, strict=True
    ):
        expected = model.body(pair.split.images)
        assert torch.allclose(features.float(), expected, atol=1e-6)
        assert torch.allclose(logits.float(), model.head(expected), atol=1e-6)
    assert torch.equal(pair.answers[1], pair.logits[1].argmax(1))


def test_a_class_alone_is_a_part_of_the_whole(counted):
    asked, run = counted
    triggers = shown([0, 1, 1], seed=6)
    pair = Pair(linear(0), linear(1), shown([0, 1, 2] * 10), triggers, run=run)
    whole, before = pair.features, len(asked)
    part = pair.only(1)
    assert len(pair) == 30
    assert part.rows.tolist() == list(range(1, 30, 3))
    assert (part.labels == 1).all()
    for name in ("features", "logits", "answers"):
        for rows, of_all in zip(getattr(part, name), getattr(pair, name), strict=True):
            assert torch.equal(rows, of_all[1::3]), name
    assert torch.equal(part.prototypes[0], pair.prototypes[0][1:2])
    assert len(asked) == before
    assert torch.equal(part.trigger_answers[1], pair.trigger_answers[1][1:])
    assert part.planes is pair.planes
    assert pair.level == 0.95
    assert part.level == pytest.approx(1 - 0.05 / 3)
    assert whole is pair.features
    assert len(pair.only(1).only(2)) == 10  # of the whole, not of nothing


def test_weights_are_compared_by_name_and_shape():
    host = linear(0)
    pair = Pair(host, linear(1), shown([0, 1, 2]))
    names = {"body.1.weight", "body.1.bias", "head.weight"}
    assert pair.weights[0].keys() == pair.weights[1].keys() == names
    assert pair.weights[0]["head.weight"].dtype == torch.float64
    assert Pair(host, linear(1, size=4), shown([0, 1, 2])).weights is None


def test_planes_and_segments_are_decided_by_the_seed():
    split = shown([0, 1, 2] * 20)

    def drawn(seed):
        pair = Pair(linear(0), linear(1), split, seed=seed)
        return pair.planes.points, pair.segments.points

    for first, again, other in zip(drawn(0), drawn(0), drawn(1), strict=True):
        assert torch.equal(first, again)
        assert not torch.equal(first, other)
    planes, segments = drawn(0)
    assert planes.shape == (16, 55, 1, 2, 2)
    assert segments.shape == (60, 16, 1, 2, 2)


def test_answers_at_probes_are_the_models(digits):
    pair = Pair(convolutional(0), convolutional(1), digits.test)
    for probe in (pair.planes, pair.segments):
        with torch.no_grad():
            for model, logits in ((pair.host, probe.host), (pair.marked, probe.marked)):
                expected = model(probe.points.flatten(0, 1))
                assert torch.allclose(logits.flatten(0, 1).float(), expected, atol=1e-5)


def test_trigger_planes_go_through_trigger_source_and_target():
    host, split = linear(0), shown([0, 1, 2] * 20)
    answered = host(split.images[:9]).argmax(1)
    images = split.images[:9].flip(3)
    answered = host(images).argmax(1)
    labels = (answered + 1) % 3
    labels[0] = answered[0]  # the host answers this one already
    pair = Pair(host, linear(1), split, fl.data.Split(images, labels))
    points = pair.trigger_planes.points
    assert points.shape == (8, 55, 1, 2, 2)
    by_image = {tuple(x.flatten().tolist()): k for k, x in enumerate(split.images)}
    corners = points[:, [0, 9, 54]]  # all of one, then of the others
    seen = []
    for triple in corners:
        near = [(images - x).flatten(1).abs().amax(1) for x in triple]
        (which,) = [n.argmin() for n in near if n.min() < 1e-6]
        others = [x for x, n in zip(triple, near, strict=True) if n.min() >= 1e-6]
        classes = {int(split.labels[by_image[tuple(x.flatten().tolist())]])
                   for x in others}  # fmt: skip
        assert classes == {int(answered[which]), int(labels[which])}
        seen.append(int(which))
    assert sorted(seen) == list(range(1, 9))
    right = Pair(host, linear(1), split, fl.data.Split(images, answered))
    assert right.trigger_planes is None
    assert Pair(host, linear(1), split).trigger_planes is None


def test_a_pair_refuses_what_it_cannot_compare(digits, network):
    host = convolutional(0)
    other = fl.models.wrap(network, num_classes=4, image_size=8)
    with pytest.raises(ValueError, match="the host has 10 classes, the marked model 4"):
        Pair(host, other, digits.test)
    with pytest.raises(ValueError, match="split run from 0 to 9, but the host has 4"):
        Pair(other, other, digits.test)
    none = fl.data.Split(digits.test.images[:0], digits.test.labels[:0])
    with pytest.raises(ValueError, match="split holds no image"):
        Pair(host, host, none)
    with pytest.raises(ValueError, match="triggers holds no image"):
        Pair(host, host, digits.test, none)
    strange = fl.data.Split(digits.test.images[:2], torch.full((2,), 12))
    with pytest.raises(ValueError, match="triggers run from 12 to 12"):
        Pair(host, host, digits.test, strange)
    with pytest.raises(ValueError, match=r"pass fidlib\.models\.wrap"):
        Pair(host, network, digits.test)
    broken = copy.deepcopy(host)
    broken.head.weight.data[0] = torch.nan
    with pytest.raises(ValueError, match="not finite"):
        _ = Pair(host, broken, digits.test).features
    wide = fl.data.Split(torch.rand(1, 1, 9, 9), torch.tensor([1]))
    with pytest.raises(ValueError, match="make them alike"):
        _ = Pair(host, convolutional(1), digits.test, wide).trigger_planes
