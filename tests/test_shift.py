import dataclasses
import io
import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy import ndimage

import fidlib as fl
from fidlib.measures import conditions, pair, shift
from fidlib.models import outputs
from fidlib.runs import keys
from tests.little import convolutional


@pytest.fixture(scope="module")
def images():
    """Colours that change slowly, as in photographs."""
    drawn = torch.rand(6, 3, 5, 4, generator=keys.stream(0))
    return torch.nn.functional.interpolate(drawn, (20, 14), mode="bicubic").clamp(0, 1)


@pytest.fixture(scope="module")
def host():
    return convolutional(0)


def each(images, function):
    """A function of `(H, W)` arrays on every channel."""
    planes = images.flatten(0, 1).double().numpy()
    return np.stack([function(p) for p in planes]).reshape(images.shape)


def test_blur_is_scipys(images):
    size = 1.5 * 20 / 32
    settings = {"mode": "nearest", "radius": int(np.ceil(3 * size))}
    expected = each(images, lambda p: ndimage.gaussian_filter(p, size, **settings))
    assert np.allclose(conditions.blur(images, 1.5), expected, atol=1e-6)


def test_rotation_is_scipys_and_a_quarter_turn_is_exact(images):
    square = images[:, :, :14]
    quarter = conditions.rotation(square, 90)
    assert torch.allclose(quarter, square.rot90(1, (2, 3)), atol=1e-5)
    for shown in (square, images):
        expected = each(
            shown,
            lambda p: ndimage.rotate(p, 20, reshape=False, order=1, mode="nearest"),
        )
        assert np.allclose(conditions.rotation(shown, 20), expected, atol=1e-5)


def test_contrast_and_brightness_are_of_all_pixels(images):
    x = images.double().numpy()
    means = x.reshape(6, -1).mean(1)[:, None, None, None]
    assert np.allclose(conditions.contrast(images, 0.3), 0.3 * x + 0.7 * means)
    assert np.allclose(conditions.brightness(images, 0.2), x + 0.2)


def test_noise_is_gaussian_and_the_same_each_time():
    flat = torch.full((50, 3, 32, 32), 0.5)
    noise = conditions.noise(flat, 0.1) - flat
    assert noise.std().item() == pytest.approx(0.1, rel=0.01)
    assert noise.mean().item() == pytest.approx(0, abs=0.001)
    assert torch.equal(conditions.noise(flat, 0.1), flat + noise)


def test_pixelation_shows_means_of_blocks(images):
    blocks = images.double().numpy().reshape(6, 3, 10, 2, 7, 2).mean((3, 5))
    expected = blocks.repeat(2, 2).repeat(2, 3)
    assert np.allclose(conditions.pixelation(images, 0.5), expected)
    assert conditions.pixelation(images[:, :, :1, :1], 0.4).shape == (6, 3, 1, 1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("quality", [7, 30, 80])
def test_jpeg_is_pillows(images, channels, quality):
    levels = (255 * images[:, :channels]).round().byte()
    decoded = 255 * conditions.jpeg(levels / 255, quality).clamp(0, 1)
    read = []
    for image in levels.permute(0, 2, 3, 1):
        picture, buffer = Image.fromarray(image.numpy().squeeze()), io.BytesIO()
        picture.save(buffer, "JPEG", quality=quality, subsampling=0)
        read.append(np.asarray(Image.open(buffer), float).reshape(image.shape))
    read = np.stack(read).transpose(0, 3, 1, 2)
    apart = np.abs(decoded.numpy() - read)
    # Pillow rounds colours and pixels; a cosine at half a step may then go either way.
    assert (apart < 4).mean() > 0.9
    assert apart.mean() < 0.25 * np.abs(read - levels.numpy()).mean()


def test_conditions_are_all_kinds_and_strengths_the_same_each_time(images, host):
    all_conditions = list(conditions.shifted(images, fl.models.wrap(three_colours())))
    names = [f"{k} {s}" for k in (*conditions.KINDS, "fooling") for s in range(1, 6)]
    assert list(map(str, all_conditions)) == [*names, "other set", "other keys"]
    assert len(conditions.KINDS) == 7
    assert all(c.images.shape == images.shape for c in all_conditions)
    for one in all_conditions[:-1]:
        assert 0 <= one.images.min() < one.images.max() <= 1
    # The stronger, the farther from the images.
    for kind, group in itertools.groupby(all_conditions[:-2], lambda c: c.kind):
        apart = [(c.images - images).square().mean().item() for c in group]
        assert apart[0] > 0, kind
        assert apart == sorted(apart), kind
    again = conditions.shifted(images, fl.models.wrap(three_colours()), strengths=[2])
    by_name = {str(c): c.images for c in all_conditions}
    assert all(torch.equal(c.images, by_name[str(c)]) for c in again)
    with pytest.raises(ValueError, match=r"strengths are \[0, 3\]; use some of 1, 2"):
        next(conditions.shifted(images, host, strengths=[0, 3]))


def three_colours():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return torch.nn.Sequential(
            *(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1)),
            *(torch.nn.Flatten(), torch.nn.Linear(4, 10)),
        )


def test_fooling_images_go_against_the_hosts_margin(digits, host):
    shown = digits.test.sample(50).images
    by_name = {str(c): c.images for c in conditions.shifted(shown, host)}
    answers = outputs(host, shown).logits.argmax(1)
    before = fl.measures.losses.margins(outputs(host, shown).logits, answers)
    for strength, most in enumerate(conditions.FOOLING, 1):
        fooling = by_name[f"fooling {strength}"]
        assert (fooling - shown / 255).abs().max() <= most / 255 + 1e-6
        after = fl.measures.losses.margins(outputs(host, fooling).logits, answers)
        assert (after < before).all()
    noise = conditions.noise(shown / 255, conditions.FOOLING[-1] / 255)
    after_noise = fl.measures.losses.margins(outputs(host, noise).logits, answers)
    assert (before - after).mean() > 3 * (before - after_noise).abs().mean()
    assert all(p.grad is None for p in host.parameters())


def test_other_images_are_digits_and_noise_of_keys_that_are_no_studys(digits, host):
    grey = torch.zeros(120, 1, 12, 12)
    by_kind = {c.kind: c.images for c in conditions.shifted(grey, host)}
    small = torch.nn.functional.interpolate(by_kind["other set"], 8, mode="bilinear")
    expected = digits.test.sample(120).images / 255
    assert np.corrcoef(small.flatten(), expected.flatten())[0, 1] > 0.95
    pool = fl.data.Split(grey, torch.zeros(120).long())
    secret, other, next_one = (
        fl.triggers.chain(pool, seed, host=host).images
        for seed in (0, 1_000_000, 1_000_001)
    )
    assert torch.equal(by_kind["other keys"], torch.cat([other, next_one])[:120])
    assert not torch.equal(secret, other)
    # Of the digits themselves they are no other set.
    kinds = [c.kind for c in conditions.shifted(digits.test.images[:3], host)]
    assert "other set" not in kinds
    assert kinds[-1] == "other keys"


def test_parts_are_ordered_by_kind_and_strength():
    names = ["blur 1", "blur 2", "fooling 1", "other set"]
    parts = pd.DataFrame({"FTAL": [1.0, 2, 3, 4], "FixLL": [5.0, 6, 7, 8]}, names)
    table = shift.by_strength(parts, pd.Series({"FTAL": 0.0, "FixLL": 0.5}))
    assert table.loc["blur"].to_dict("list") == {
        "FTAL": [0, 1, 2],
        "FixLL": [0.5, 5, 6],
    }
    assert table.loc["fooling"].FixLL.tolist() == [0.5, 7]
    assert [n for n, _ in table.index] == 3 * ["blur"] + 2 * ["fooling"]


def test_a_study_keeps_what_models_say_of_shifted_images(bare, monkeypatch):
    monkeypatch.setattr(pair, "ASKED", 20)
    bare.make(["FTAL"], jobs=1)
    lineage = fl.Lineage.read("FTAL")
    assert not bare.is_missing(lineage, ["test"])
    assert bare.is_missing(lineage, ["test", "shift"])
    bare.make(["FTAL"], outputs=["shift"], jobs=1)
    assert not bare.is_missing(lineage, ["shift"])

    def fail(*_, **__):
        raise AssertionError("a model is run")

    monkeypatch.setattr(fl.models, "outputs", fail)
    names = [name for name, row in fl.MEASURES.items() if row.level == "shift"]
    again = fl.Study(bare.config)
    report = again.fidelity("FTAL", measures=names)
    assert len(report.parts("shift_agreement")) == 41
    assert 0 < report.shift_jensen_shannon < np.log(2)
    # A measure more is computed from what is kept.
    row = fl.MEASURES["shift_spl"]
    monkeypatch.setitem(fl.MEASURES, "shift_spl", dataclasses.replace(row, version=99))
    assert again.fidelity("FTAL", measures=names).shift_spl == report.shift_spl
