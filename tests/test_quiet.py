import copy

import numpy as np
import pytest
import torch
from torch import nn

from fidlib import data, models
from fidlib.methods import Method
from fidlib.training import HOST, Plan, quiet, start, train
from fidlib.training.quiet import QuietAdam, projections


@pytest.fixture
def model(network):
    return models.wrap(network, image_size=8).eval()


@pytest.fixture
def images(digits):
    return digits.train.images[:40]


def patches(images):
    """All 3 x 3 patches of grey images, a row each, cut out one by one."""
    pixels = images[:, 0].numpy() / 255
    return np.array(
        [
            image[i : i + 3, j : j + 3].ravel()
            for image in pixels
            for i in range(6)
            for j in range(6)
        ]
    )


def test_projections_are_the_formula(model, images):
    matrices = projections(model, images, 0.1)
    assert set(matrices) == {model.body[0].weight}
    rows = patches(images)
    moment = rows.T @ rows / len(rows)
    level = 0.1 * np.trace(moment) / 9
    squared = level * np.linalg.inv(moment + level * np.eye(9))
    projection = matrices[model.body[0].weight].numpy()
    np.testing.assert_allclose(projection @ projection, squared, atol=1e-5)
    np.testing.assert_allclose(projection, projection.T, atol=1e-6)


def test_projections_pass_what_the_images_do_not_use(images):
    flat = nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.Linear(5, 10))
    model = models.wrap(flat, image_size=8, mean=(0.0,))
    corner = images.clone()
    corner[:, :, 4:] = 0  # the lower half is never lit
    (projection,) = (
        p for w, p in projections(model, corner, 0.01).items() if w.shape[1] == 64
    )
    upper, lower = projection[:32, :32], projection[32:, 32:]
    torch.testing.assert_close(lower, torch.eye(32), atol=1e-4, rtol=0)
    assert torch.linalg.eigvalsh(upper)[0] < 0.1


def test_projections_leave_out_what_is_not_trained_and_grouped(images):
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding="same"),
        nn.Conv2d(4, 4, 3, groups=4),
        nn.Flatten(),
        nn.Linear(144, 6),
        nn.Linear(6, 10),
    )
    model = models.wrap(network, image_size=8)
    model.body[3].requires_grad_(False)
    assert set(projections(model, images, 0.1)) == {model.body[0].weight}


@pytest.mark.parametrize("mode", ["zeros", "reflect", "circular"])
def test_rows_are_what_a_padded_weight_is_multiplied_with(images, mode):
    layer = nn.Conv2d(1, 4, 3, padding=1, stride=2, padding_mode=mode)
    x = images[:5].float() / 255
    product = quiet._rows(layer, x) @ layer.weight.flatten(1).T + layer.bias
    expected = layer(x).permute(0, 2, 3, 1).flatten(0, 2)
    torch.testing.assert_close(product, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_quiet_adam_with_nothing_projected_is_adam(layout):
    start = torch.randn(4, 3, 3, 3).contiguous(memory_format=layout)
    target = torch.randn(4, 3, 3, 3)
    plain, quiet = (nn.Parameter(start.clone()) for _ in range(2))
    optimizers = (
        torch.optim.Adam([plain], 0.1),
        QuietAdam([quiet], 0.1, {quiet: torch.eye(27)}),
    )
    for weight, optimizer in zip((plain, quiet), optimizers, strict=True):
        for _ in range(5):
            optimizer.zero_grad()
            (weight - target).pow(4).sum().backward()
            optimizer.step()
    assert (plain - start).abs().max() > 0.3
    torch.testing.assert_close(quiet, plain)


def test_quiet_adam_moves_only_where_it_may():
    weight, free = nn.Parameter(torch.zeros(2, 3)), nn.Parameter(torch.zeros(2))
    optimizer = QuietAdam(
        [weight, free], 0.1, {weight: torch.diag(torch.tensor([0.0, 0.5, 1]))}
    )
    for _ in range(3):
        optimizer.zero_grad()
        ((weight - 1).square().sum() + (free - 1).square().sum()).backward()
        optimizer.step()
    assert (weight[:, 0] == 0).all()
    assert (weight[:, 1] > 0).all()
    assert (weight[:, 1] < weight[:, 2]).all()
    assert (free > 0.2).all()


def test_quiet_adam_projects_in_bfloat16_to_nearly_the_same():
    draw = torch.Generator().manual_seed(0)
    rows, target = (torch.randn(64, n, generator=draw) for n in (64, 8))
    projection = torch.linalg.inv(torch.eye(64) + rows.T @ rows)
    moved = []
    for precision in (torch.float32, torch.bfloat16):
        weight = nn.Parameter(torch.zeros(8, 64))
        optimizer = QuietAdam([weight], 0.1, {weight: projection}, precision)
        for _ in range(5):
            optimizer.zero_grad()
            (weight - target.T).square().sum().backward()
            optimizer.step()
        assert weight.dtype == torch.float32
        moved.append(weight.detach())
    assert 0 < (moved[0] - moved[1]).norm() < 0.02 * moved[0].norm()


def test_a_quiet_watermark_moves_the_features_less(digits):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 16)
        network = nn.Sequential(*layers, nn.ReLU(), nn.Linear(16, 10))
        noise = data.Split(torch.rand(6, 1, 8, 8), torch.arange(6))
    images = data.Split(digits.train.images[:200], digits.train.labels[:200])
    how = {"epochs": 20, "learning_rate": 3e-3, "batch_size": 40, "seed": 0}
    untrained = models.wrap(network, image_size=8)
    host = train(untrained, Plan(method=HOST, **how), images).model
    known, moved, weights = models.outputs(host, images.images), [], []
    for loudness in (0.0, 0.1):
        method = Method("mine", trained="body", learns="triggers", quiet=loudness)
        plan = Plan(method=method, trigger_batch_size=6, quiet=loudness, **how)
        model = train(start(host, plan), plan, images, triggers=noise).model
        assert (model(noise.images).argmax(1) == noise.labels).all()
        features = models.outputs(model, images.images).features
        moved.append((features - known.features).square().sum(1).mean().item())
        pairs = zip(host.parameters(), model.parameters(), strict=True)
        weights.append(sum((a - b).square().sum().item() for a, b in pairs))
    assert moved[1] < 0.5 * moved[0]
    assert weights[1] > weights[0]  # quiet, not small


def test_a_state_holds_where_the_weights_may_go_on_from():
    weights = [nn.Parameter(torch.ones(2, 3)) for _ in range(2)]
    whole, resumed = (
        QuietAdam([weight], 0.1, {weight: torch.eye(3) / 2}) for weight in weights
    )

    def steps(optimizer, weight):
        for _ in range(3):
            optimizer.zero_grad()
            weight.pow(4).sum().backward()
            optimizer.step()

    steps(whole, weights[0])
    resumed.load_state_dict(copy.deepcopy(whole.state_dict()))
    weights[1].data.copy_(weights[0])
    for optimizer, weight in zip((whole, resumed), weights, strict=True):
        steps(optimizer, weight)
    assert torch.equal(*weights)


def test_quiet_needs_a_host_and_mixtures_have_no_labels():
    for other in ({"start": "random"}, {"trained": "head"}):
        with pytest.raises(ValueError, match="only a body that starts from the host"):
            Method("mine", **other, quiet=0.1)
    with pytest.raises(ValueError, match="mixtures have no labels"):
        Method("mine", mixes=True)


def test_projections_are_right_where_most_inputs_are_dead():
    """As of a convolution of stride 2 on 2 x 2: its kernel reaches over the edge."""
    layer = torch.nn.Conv2d(64, 4, 3, stride=2, padding=1, bias=False)
    x = torch.rand(300, 64, 2, 2, generator=torch.Generator().manual_seed(0))
    rows = quiet._rows(layer, x)
    moment = rows.T @ rows
    assert (moment.diagonal() == 0).sum() == 5 * 64
    energy, directions = torch.linalg.eigh(moment.double())
    loud = 0.1 * energy.mean()
    parts = (loud / (energy.clamp_min(0) + loud)).sqrt()
    expected = directions * parts @ directions.T
    assert torch.allclose(quiet._passing(moment, 0.1).double(), expected, atol=1e-4)
