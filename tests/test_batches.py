import torch

from fidlib.training.batches import batches, crop_and_flip, endless_batches, mix

CPU = torch.device("cpu")


def generator():
    return torch.Generator().manual_seed(0)


def test_batches_hold_every_index_once_in_equal_parts():
    source = generator()
    parts = batches(1297, 28, source, CPU)
    assert sorted(torch.cat(parts).tolist()) == list(range(1297))
    assert len(parts) == 28
    assert {len(part) for part in parts} == {46, 47}
    again = batches(1297, 28, source, CPU)
    assert not torch.equal(torch.cat(parts), torch.cat(again))


def test_endless_batches_favour_no_index():
    drawn = endless_batches(10, 4, generator(), CPU)
    parts = [next(drawn) for _ in range(25)]
    assert all(len(part) == 4 for part in parts)
    assert torch.bincount(torch.cat(parts)).tolist() == [10] * 10


def test_endless_batches_give_all_where_there_are_fewer():
    drawn = endless_batches(3, 32, generator(), CPU)
    assert sorted(next(drawn).tolist()) == [0, 1, 2]


def test_crop_and_flip_shifts_and_mirrors_each_image_by_itself():
    images = torch.arange(1, 1 + 3 * 6 * 5, dtype=torch.uint8).view(1, 3, 6, 5)
    found = crop_and_flip(images.expand(200, -1, -1, -1), generator(), padding=2)
    padded = torch.nn.functional.pad(images[0], [2] * 4)
    possible = {}
    for top in range(5):
        for left in range(5):
            crop = padded[:, top : top + 6, left : left + 5]
            possible[crop.numpy().tobytes()] = (top, left, False)
            possible[crop.flip(2).contiguous().numpy().tobytes()] = (top, left, True)
    seen = {possible[image.contiguous().numpy().tobytes()] for image in found}
    assert {top for top, _, _ in seen} == {left for _, left, _ in seen} == set(range(5))
    assert {flip for _, _, flip in seen} == {False, True}


def test_mix_takes_shares_of_two_images():
    images = torch.arange(5, dtype=torch.uint8)[:, None, None, None].expand(5, 1, 2, 2)
    found = mix(images * 51, generator()) * 5
    assert found.shape == (5, 1, 2, 2)
    assert found.min() >= 0
    assert found.max() <= 4
    assert (found == found[:, :, :1, :1]).all()  # one share for a whole image
    assert (found[:, 0, 0, 0] % 1 != 0).sum() >= 3
    assert torch.equal(found, mix(images * 51, generator()) * 5)
