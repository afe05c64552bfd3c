import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import fidlib as fl
from fidlib import quiet
from fidlib.quiet import QuietAdam, projections
from tests.conftest import SMALL


@pytest.fixture
def model(network):
    return fl.models.wrap(network, image_size=8).eval()


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
    found = projections(model, images, 0.1)
    assert set(found) == {model.body[0].weight}
    rows = patches(images)
    moment = rows.T @ rows / len(rows)
    level = 0.1 * np.trace(moment) / 9
    squared = level * np.linalg.inv(moment + level * np.eye(9))
    projection = found[model.body[0].weight].numpy()
    np.testing.assert_allclose(projection @ projection, squared, atol=1e-5)
    np.testing.assert_allclose(projection, projection.T, atol=1e-6)


def test_projections_pass_what_the_images_do_not_use(images):
    flat = nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.Linear(5, 10))
    model = fl.models.wrap(flat, image_size=8, mean=(0.0,))
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
    model = fl.models.wrap(network, image_size=8)
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


def test_a_quiet_watermark_moves_the_features_less():
    # At D = 2 a class of so small a host may be out of the triggers' reach.
    study = fl.Study(replace(SMALL, model="convnet", feature_dim=16, epochs=20))
    plain = fl.Method("plain", trained="body", learns="triggers")
    quiet = fl.Method("quiet", trained="body", learns="triggers", quiet=0.1)
    reports = [study.fidelity(method) for method in (plain, quiet)]
    assert all(report.trigger_accuracy >= 0.9 for report in reports)
    assert reports[1].pfl < 0.5 * reports[0].pfl
    assert reports[1].twl > reports[0].twl  # quiet, not small


def test_quiet_needs_a_host_and_mixtures_have_no_labels():
    for other in ({"start": "random"}, {"trained": "head"}):
        with pytest.raises(ValueError, match="only a body that starts from the host"):
            fl.Method("mine", **other, quiet=0.1)
    with pytest.raises(ValueError, match="mixtures have no labels"):
        fl.Method("mine", mixes=True)


def test_mix_takes_shares_of_two_images():
    images = torch.arange(5, dtype=torch.uint8)[:, None, None, None].expand(5, 1, 2, 2)
    found = fl.data.mix(images * 51, fl.runs.stream(0)) * 5
    assert found.shape == (5, 1, 2, 2)
    assert found.min() >= 0
    assert found.max() <= 4
    assert (found == found[:, :, :1, :1]).all()  # one share for a whole image
    assert (found[:, 0, 0, 0] % 1 != 0).sum() >= 3
    same = fl.data.mix(images * 51, fl.runs.stream(0)) * 5
    assert torch.equal(found, same)


def test_terms_see_mixtures_and_the_hosts_answer_to_them(study):
    seen = []

    def term(step):
        again = step.host.head(step.host.features(step.images))
        seen.append((step.host_logits - again).abs().max().item())
        plain = study.train.images / 255
        as_it_was = (step.images[:, None] == plain).flatten(2).all(2).any(1)
        seen.append(as_it_was.float().mean().item())
        return step.logits.sum() * 0

    method = fl.Method("mine", learns="triggers", preserves={term: 1.0}, mixes=True)
    recipe = study.recipe.with_epochs(1)
    host = copy.deepcopy(study.host())
    fl.training.embed(host, method, study.train, study.triggers, recipe, seed=0)
    assert max(seen[::2]) < 1e-3
    assert max(seen[1::2]) < 0.5  # few are mixed with themselves
