import dataclasses

import torch

from fidlib.methods import METHODS
from fidlib.training import Plan
from fidlib.training.batches import (
    PADDING,
    batches,
    crop_and_flip,
    draws,
    endless_batches,
    mix,
    sent,
)

CPU = torch.device("cpu")
PLAN = Plan(
    method=METHODS["FixLL+PFL+mix+quiet"],
    epochs=3,
    learning_rate=1e-3,
    batch_size=20,
    seed=0,
    trigger_batch_size=4,
    augment=True,
    weights=(("PFL", 1.0),),
)


def generator():
    return torch.Generator().manual_seed(0)


def test_batches_hold_every_index_once_in_equal_parts():
    source = generator()
    parts = batches(1297, 28, source)
    assert sorted(torch.cat(parts).tolist()) == list(range(1297))
    assert len(parts) == 28
    assert {len(part) for part in parts} == {46, 47}
    again = batches(1297, 28, source)
    assert not torch.equal(torch.cat(parts), torch.cat(again))


def test_endless_batches_favour_no_index():
    drawn = endless_batches(10, 4, generator())
    parts = [next(drawn) for _ in range(25)]
    assert all(len(part) == 4 for part in parts)
    assert torch.bincount(torch.cat(parts)).tolist() == [10] * 10


def test_endless_batches_give_all_where_there_are_fewer():
    drawn = endless_batches(3, 32, generator())
    assert sorted(next(drawn).tolist()) == [0, 1, 2]


def test_draws_are_those_of_the_plan_alone_and_change_with_its_seed():
    torch.manual_seed(5)
    first, again = ([*draws(PLAN, 50, 10, CPU)] for _ in range(2))
    other = [*draws(dataclasses.replace(PLAN, seed=1), 50, 10, CPU)]
    assert len(first) == 3 * 3
    assert [len(draw.index) for draw in first] == [17, 17, 16] * 3
    for draw, same, different in zip(first, again, other, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(draw, same, strict=True))
        assert not torch.equal(draw.shares, different.shares)
        assert sorted(draw.others.tolist()) == list(range(len(draw.index)))
        assert len(draw.secret) == 4
        assert 0 <= draw.shifts.min() <= draw.shifts.max() <= 2 * PADDING


def test_nothing_is_drawn_for_what_a_plan_does_not_do():
    plain = dataclasses.replace(PLAN, method=METHODS["FTAL"], augment=False, weights=())
    for draw in draws(plain, 50, 0, CPU):
        sizes = [part.numel() for part in draw]
        assert sizes == [len(draw.index), 0, 0, 0, 0, 0]


def test_draws_that_are_sent_together_are_the_same():
    drawn = [*draws(PLAN, 50, 10, CPU)]
    for draw, same in zip(drawn, sent(drawn, CPU), strict=True):
        for a, b in zip(draw, same, strict=True):
            assert torch.equal(a, b)
            assert a.dtype == b.dtype


def test_crop_and_flip_shifts_and_mirrors_each_image_by_itself():
    images = torch.arange(1, 1 + 3 * 6 * 5, dtype=torch.uint8).view(1, 3, 6, 5)
    source, many = generator(), 700
    shifts = torch.randint(0, 2 * PADDING + 1, (2, many), generator=source)
    flips = torch.rand(many, generator=source) < 0.5
    crops = crop_and_flip(images.expand(many, -1, -1, -1), shifts, flips)
    padded = torch.nn.functional.pad(images[0], [PADDING] * 4)
    for image, top, left, flip in zip(crops, *shifts, flips, strict=True):
        crop = padded[:, top : top + 6, left : left + 5]
        assert torch.equal(image, crop.flip(2) if flip else crop)


def test_mix_takes_shares_of_two_images():
    images = torch.arange(5, dtype=torch.uint8)[:, None, None, None].expand(5, 1, 2, 2)
    shares, others = torch.tensor([0, 0.25, 0.5, 1, 0.5]), torch.tensor([4, 3, 2, 0, 1])
    mixtures = mix(images * 51, shares, others) * 5
    assert mixtures.shape == (5, 1, 2, 2)
    assert (mixtures == mixtures[:, :, :1, :1]).all()  # one share for a whole image
    expected = torch.tensor([0, 1.5, 2, 0, 2.5])
    assert torch.allclose(mixtures[:, 0, 0, 0], expected)
