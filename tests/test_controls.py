import dataclasses

import numpy as np
import pytest
import torch
import torchvision
from scipy.linalg import null_space
from torch import nn

import fidlib as fl
from fidlib.measures import controls, geometry, losses
from fidlib.models import outputs
from fidlib.runs.keys import stream
from tests.conftest import SMALL


@pytest.fixture(scope="module")
def host():
    """A host at D = 64, whose head has a null space."""
    config = dataclasses.replace(SMALL, feature_dim=64, epochs=8)
    return fl.Study(config).model("host")


@pytest.fixture(scope="module")
def resnet():
    """The paper's network at D = 64 with running statistics, as if trained."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        norm = {"mean": (0.3,), "std": (0.38,)}
        model = fl.models.build("resnet18", num_classes=10, feature_dim=64, **norm)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                parts = (*module.parameters(), module.running_mean, module.running_var)
                for tensor in parts:
                    nn.init.uniform_(tensor, 0.5, 2)
    return model.eval()


@pytest.fixture(scope="module")
def images(digits):
    return digits.test.images[:200]


def distance(host, model):
    """TWL, by numpy, parameter by parameter."""
    pairs = zip(host.parameters(), model.parameters(), strict=True)
    return sum(np.sum((a - b).detach().numpy().astype(float) ** 2) for a, b in pairs)


def changed(host, model, images):
    a, b = (outputs(m, images).logits.argmax(1) for m in (host, model))
    return (a != b).double().mean().item()


def probability_moved(host, model, images):
    a, b = (outputs(m, images).logits.softmax(1) for m in (host, model))
    return (a - b).abs().max().item()


def feature_move(host, model, images):
    a, b = (outputs(m, images).features.numpy().astype(float) for m in (host, model))
    return b - a


@pytest.mark.parametrize("name", ["host", "resnet"])
def test_permuted_computes_the_same_far_away(name, images, request):
    host = request.getfixturevalue(name)
    expected = outputs(host, images).logits
    near = controls.permuted(host, stream(0), scale=1)
    far = controls.permuted(host, stream(0), scale=100)
    for model in (near, far):
        logits = outputs(model, images).logits
        assert (logits - expected).abs().max() < 1e-4 * expected.abs().max()
    size = distance(host, controls.noisy(host, 1.0, stream(0)))
    assert 0.1 * size < distance(host, near) < 3 * size
    assert distance(host, far) > 100 * distance(host, near)


def test_permuted_changes_every_hidden_layer(resnet):
    model = controls.permuted(resnet, stream(0))
    before, after = resnet.state_dict(), model.state_dict()
    same = {name for name in before if torch.equal(before[name], after[name])}
    for stage in range(1, 5):
        for block in range(2):
            for part in ("conv1.weight", "bn1.weight", "bn1.running_var"):
                assert f"body.layer{stage}.{block}.{part}" not in same
            assert f"body.layer{stage}.{block}.conv2.weight" not in same
            # What is added to the residual must stay in its place.
            assert f"body.layer{stage}.{block}.bn2.weight" in same


def chain():
    """Biases, a pool, a BatchNorm, convolutions and linear layers."""
    return nn.Sequential(
        *(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 5, 1)),
        *(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(20, 16)),
        *(nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 12), nn.ReLU()),
        nn.Linear(12, 10),
    )


def wide():
    block = fl.networks._WideBlock(1, 8, 1)
    pool = nn.AdaptiveAvgPool2d(2)
    return nn.Sequential(block, pool, nn.Flatten(), nn.Linear(32, 10))


@pytest.mark.parametrize("build", [chain, wide, torchvision.models.resnet18])
def test_permuted_works_on_other_networks(build, images):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                parts = (*module.parameters(), module.running_mean, module.running_var)
                for tensor in parts:
                    nn.init.uniform_(tensor, 0.5, 2)
    model = fl.models.wrap(network, image_size=8).eval()
    other = controls.permuted(model, stream(1))
    expected, logits = (outputs(m, images).logits for m in (model, other))
    assert (logits - expected).abs().max() < 1e-4 * expected.abs().max()
    assert distance(model, other) > 1


class Branching(nn.Sequential):
    def forward(self, x):
        return super().forward(x if x.sum() > 0 else -x)


def test_permuted_says_where_it_cannot(network, host):
    alone = fl.models.wrap(network, image_size=8)
    with pytest.raises(ValueError, match="Sequential has no hidden channels"):
        controls.permuted(alone, stream(0))
    grouped = nn.Sequential(nn.Conv2d(1, 4, 1), nn.Conv2d(4, 4, 1, groups=2))
    for body, message in (
        (grouped, "no hidden channels"),
        (Branching(), "cannot be traced .* must not branch"),
    ):
        model = fl.models.Classifier(body, nn.Linear(4, 2), mean=(0,), std=(1,))
        with pytest.raises(ValueError, match=message):
            controls.permuted(model, stream(0))
    with pytest.raises(ValueError, match=r"scale is 0\.5"):
        controls.permuted(host, stream(0), scale=0.5)


@pytest.mark.parametrize("name", ["host", "resnet"])
def test_rotated_turns_features_and_keeps_logits(name, images, request):
    host = request.getfixturevalue(name)
    model = controls.rotated(host, stream(0))
    before, after = (outputs(m, images) for m in (host, model))
    error = (after.logits - before.logits).abs().max()
    assert error < 1e-4 * before.logits.abs().max()
    grams = [f.features.double() @ f.features.double().T for f in (before, after)]
    assert torch.allclose(*grams, atol=1e-4 * grams[0].abs().max().item())
    size = before.features.square().sum(1).mean()
    assert losses.pfl(before.features, after.features) > size


@pytest.mark.parametrize(("name", "size"), [("host", 30.0), ("resnet", 0.5)])
def test_shifted_moves_all_features_by_its_size_unseen(name, images, size, request):
    host = request.getfixturevalue(name)
    model = controls.shifted(host, size, stream(0))
    move = feature_move(host, model, images)
    assert np.mean((move**2).sum(1)) == pytest.approx(size**2, rel=1e-3)
    assert np.allclose(move, move[0], atol=1e-4)
    assert probability_moved(host, model, images) < 1e-5
    assert torch.equal(model.head.weight, host.head.weight)


def test_sheared_stretches_features_unseen(host, images):
    model = controls.sheared(host, 2.0, stream(0))
    move = feature_move(host, model, images)
    assert np.linalg.matrix_rank(move, tol=1e-2) == 1
    lengths = (outputs(host, images).features.numpy() ** 2).sum(1)
    assert 0.05 < np.mean((move**2).sum(1)) / (4 * lengths.mean()) < 20
    assert probability_moved(host, model, images) < 1e-5
    turned = controls.rotated(host, stream(0))
    features = [outputs(m, images).features for m in (host, turned, model)]
    assert geometry.cka(features[0], features[1]) > 0.999
    assert geometry.cka(features[0], features[2]) < 0.9


def test_null_space_is_scipys(host):
    weight = host.head.weight.detach().numpy().astype(float)
    expected = null_space(weight - weight.mean(0))
    basis = controls.null_space(host.head).numpy()
    assert basis.shape == expected.shape == (64, 55)
    assert np.allclose(basis @ basis.T, expected @ expected.T)


def test_a_head_that_sees_all_is_an_error():
    model = fl.models.build(
        "resnet18", num_classes=10, feature_dim=2, mean=(0,), std=(1,)
    )
    for move in (controls.shifted, controls.sheared):
        with pytest.raises(ValueError, match=r"all D = 2 .* needs D >= K"):
            move(model, 1.0, stream(0))
    model.head.weight.data[:, 1] = 2 * model.head.weight[:, 0]  # of lower rank
    assert controls.null_space(model.head).shape == (2, 1)


def test_other_networks_get_a_linear_layer_more(network, images):
    model = fl.models.wrap(network, image_size=8).eval()
    for other in (
        controls.rotated(model, stream(0)),
        controls.shifted(model, 3.0, stream(0)),
    ):
        assert probability_moved(model, other, images) < 1e-5
        assert np.abs(feature_move(model, other, images)).max() > 0.1
    assert fl.compare(model, other, fl.data.load("digits").test).twl is None


def test_noise_moves_more_the_more_there_is(host, images):
    amounts = [0.01, 0.1, 0.3, 1.0]
    models = [controls.noisy(host, a, stream(0)) for a in amounts]
    size = sum(p.detach().double().square().sum().item() for p in host.parameters())
    for amount, model in zip(amounts, models, strict=True):
        assert distance(host, model) == pytest.approx(amount**2 * size, rel=0.1)
    shares = [changed(host, model, images) for model in models]
    assert shares == sorted(shares)
    assert shares[0] < 0.05 < 0.5 < shares[-1]


def test_flipped_changes_its_share_with_less_than_noise_needs(host, images):
    model = controls.flipped(host, images, 0.1)
    assert 0.1 <= changed(host, model, images) < 0.4
    near = distance(host, model)
    size = sum(p.detach().double().square().sum().item() for p in host.parameters())
    noise = controls.noisy(host, (near / size) ** 0.5, stream(0))
    assert distance(host, noise) == pytest.approx(near, rel=0.1)
    assert changed(host, noise, images) < 0.02
    far = controls.noisy(host, 10 * (near / size) ** 0.5, stream(0))
    assert changed(host, far, images) < 0.1  # a hundred times the TWL do not suffice


def test_flipped_says_what_it_cannot(host, images):
    with pytest.raises(ValueError, match="share is 0"):
        controls.flipped(host, images, 0.0)
    with pytest.raises(ValueError, match=r"2 steps changed .* 90.0% were asked"):
        controls.flipped(host, images, 0.9, steps=2)


def test_the_given_model_stays_and_the_generator_decides(host, images):
    before = fl.models.fingerprint(host)
    makers = [
        controls.permuted,
        controls.rotated,
        lambda m, g: controls.shifted(m, 1.0, g),
        lambda m, g: controls.sheared(m, 1.0, g),
        lambda m, g: controls.noisy(m, 0.1, g),
    ]
    for make in makers:
        prints = [fl.models.fingerprint(make(host, stream(seed))) for seed in (0, 0, 1)]
        assert prints[0] == prints[1] != prints[2]
        assert prints[0] != before
    flips = [controls.flipped(host, images, 0.02) for _ in range(2)]
    assert len({fl.models.fingerprint(m) for m in flips}) == 1
    assert fl.models.fingerprint(host) == before
    assert all(p.grad is None for p in host.parameters())


def test_models_of_the_same_function_are_named_after_what_was_done(host, images):
    sizes = {"factors": [10, 100], "sizes": [2.0], "shears": [0.5]}
    twins = controls.same_function(host, stream(0), **sizes)
    named = ["permuted, x 10", "permuted, x 100", "rotated", "shifted by 2"]
    assert list(twins) == [*named, "sheared by 0.5"]
    for model in twins.values():
        assert probability_moved(host, model, images) < 1e-3
    apart = np.square(feature_move(host, twins["shifted by 2"], images)).sum(1)
    assert np.allclose(apart, 4, rtol=1e-3)
