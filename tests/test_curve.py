import pytest
import torch

import fidlib as fl
from fidlib.measures import controls, curve
from fidlib.measures.curve import OF_MARKED, Watch
from fidlib.runs import keys
from tests.little import convolutional


@pytest.fixture
def host():
    return convolutional(0)


@pytest.fixture
def along(host):
    """Three models on a way."""
    amounts = (0.0, 0.05, 0.2)
    return [controls.noisy(host, a, keys.stream(0)) for a in amounts]


@pytest.fixture
def secret():
    images = torch.rand(7, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    return fl.data.Split(images, torch.arange(7))


def test_a_curve_keeps_the_outputs_of_each_point(
    host, along, digits, secret, tmp_path, monkeypatch
):
    monkeypatch.setattr(curve, "IMAGES", 60)
    watch = Watch(host, digits.test, secret)
    for model in along:
        watch(model)
    watch.save(tmp_path / "c.safetensors")
    outputs = curve.read(tmp_path / "c.safetensors", digits.test)
    sample = digits.test.sample(60)
    assert torch.equal(digits.test.images[outputs.rows], sample.images)
    for point, model in enumerate(along):
        for prefix, images in (("", sample.images), ("trigger_", secret.images)):
            expected = fl.models.outputs(model, images)
            for name in ("features", "logits"):
                kept = getattr(outputs, prefix + name)
                assert kept.dtype == torch.float16
                assert torch.equal(kept[point], getattr(expected, name).half())
    assert outputs.features.shape == (3, 60, 12)
    assert outputs.trigger_logits.shape == (3, 7, 10)


def test_a_curve_of_no_triggers_has_none(along, digits, tmp_path):
    watch = Watch(None, digits.test.sample(20), None)
    assert set(watch(along[0])) == {"accuracy"}
    watch.save(tmp_path / "c.safetensors")
    outputs = curve.read(tmp_path / "c.safetensors", digits.test.sample(20))
    assert outputs.trigger_features.shape == (1, 0, 12)
    assert outputs.trigger_logits.shape == (1, 0, 10)


def test_rows_are_measures_of_the_sample(host, along, digits, secret, monkeypatch):
    monkeypatch.setattr(curve, "IMAGES", 60)
    watch, sample = Watch(host, digits.test, secret), digits.test.sample(60)
    for model in along:
        row = watch(model)
        report = fl.compare(host, model, sample, secret)
        assert tuple(row) == OF_MARKED
        for name, value in row.items():
            assert value == pytest.approx(report[name].value, rel=1e-6, abs=1e-12)
    assert row["pfl"] > 0
    without = Watch(host, digits.test, None)(along[1])
    assert without["trigger_accuracy"] is None


def test_a_curve_goes_on_from_its_state(host, along, digits, secret, tmp_path):
    whole, first, second = (
        Watch(host, digits.test.sample(40), secret) for _ in range(3)
    )
    for model in along:
        whole(model)
    first(along[0])
    torch.save(first.state_dict(), tmp_path / "state")
    second.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    for model in along[1:]:
        second(model)
    for name, watch in (("whole", whole), ("second", second)):
        watch.save(tmp_path / name)
    assert (tmp_path / "whole").read_bytes() == (tmp_path / "second").read_bytes()


def test_what_is_too_large_for_float16_stays_a_number(host, digits, tmp_path):
    with torch.no_grad():
        host.head.weight.mul_(1e9)
    watch = Watch(None, digits.test.sample(20), None)
    watch(host)
    watch.save(tmp_path / "c.safetensors")
    logits = curve.read(tmp_path / "c.safetensors", digits.test.sample(20)).logits
    assert logits.isfinite().all()
    assert logits.abs().max() == torch.finfo(torch.float16).max


def test_a_curve_is_not_read_for_images_in_another_order(host, digits, tmp_path):
    watch = Watch(None, digits.test, None)
    watch(host)
    watch.save(tmp_path / "c.safetensors")
    back = fl.data.Split(digits.test.images.flip(0), digits.test.labels.flip(0))
    with pytest.raises(ValueError, match="of the test images in another order"):
        curve.read(tmp_path / "c.safetensors", back)
