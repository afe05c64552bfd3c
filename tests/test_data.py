import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from fidlib import data


def write_npz(path, **changes):
    rng = np.random.default_rng(0)
    arrays = {
        "x_train": rng.integers(0, 256, (20, 6, 5), dtype=np.uint8),
        "y_train": np.arange(20, dtype=np.uint8) % 4,
        "x_test": rng.integers(0, 256, (8, 6, 5), dtype=np.uint8),
        "y_test": np.arange(8, dtype=np.uint8) % 4,
    }
    arrays |= changes
    np.savez(path, **{k: v for k, v in arrays.items() if v is not None})
    return arrays


def test_digits_are_all_of_scikit_learns_split_without_overlap(digits):
    assert (len(digits.train), len(digits.test)) == (1297, 500)
    source = np.rint(load_digits().images * 255 / 16).astype(np.uint8)
    images = torch.cat([digits.train.images, digits.test.images])[:, 0].numpy()
    assert sorted(i.tobytes() for i in images) == sorted(i.tobytes() for i in source)
    assert digits.manifest()["test_images_also_in_train"] == 0
    assert torch.bincount(digits.test.labels).min() >= 48


def test_digits_normalisation_is_that_of_the_train_pixels(digits):
    pixels = digits.train.images.double() / 255
    assert digits.mean[0] == pytest.approx(pixels.mean().item(), rel=1e-9)
    assert digits.std[0] == pytest.approx(pixels.std(correction=0).item(), rel=1e-9)


def test_fingerprint_changes_with_a_pixel_a_label_and_the_type(digits):
    split = digits.test
    pixel, label = split.images.clone(), split.labels.clone()
    pixel[3, 0, 4, 4] ^= 1
    label[7] += 1
    others = [
        data.Split(pixel, split.labels),
        data.Split(split.images, label),
        data.Split(split.images.float() / 255, split.labels),
    ]
    prints = {split.fingerprint, *(other.fingerprint for other in others)}
    assert len(prints) == 4
    assert data.Split(split.images.clone(), split.labels).fingerprint in prints
    contents = {split.content, *(other.content for other in others)}
    assert len(contents) == 4
    turned = data.Split(split.images.flip(0), split.labels.flip(0))
    assert turned.content == split.content
    assert turned.fingerprint != split.fingerprint
    swapped = data.Split(split.images, split.labels.flip(0))
    assert swapped.content != split.content


@pytest.mark.parametrize("colour", [False, True])
def test_load_reads_keras_layout(tmp_path, colour):
    rng = np.random.default_rng(1)
    shape = (20, 6, 5, 3) if colour else (20, 6, 5)
    images = rng.integers(0, 256, shape, dtype=np.uint8)
    changes = {"x_train": images, "x_test": images[:8]}
    arrays = write_npz(tmp_path / "own.npz", **changes)
    loaded = data.load("own", root=tmp_path)
    assert loaded.image_shape == ((3, 6, 5) if colour else (1, 6, 5))
    expected = images.transpose(0, 3, 1, 2) if colour else images[:, None]
    assert np.array_equal(loaded.train.images.numpy(), expected)
    assert np.array_equal(loaded.test.labels.numpy(), arrays["y_test"])
    assert loaded.classes == ("0", "1", "2", "3")
    by_path = data.load(str(tmp_path / "own.npz"))
    assert by_path.train.fingerprint == loaded.train.fingerprint


def test_load_takes_keras_columns_of_labels_and_class_names(tmp_path):
    names = np.array(["a", "b", "c", "d", "e"])
    labels = (np.arange(20) % 4)[:, None]
    write_npz(tmp_path / "own.npz", y_train=labels, classes=names)
    loaded = data.load("own", root=tmp_path)
    assert loaded.classes == ("a", "b", "c", "d", "e")
    assert loaded.train.labels.tolist() == labels[:, 0].tolist()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_test": None}, "lacks y_test"),
        ({"x_train": np.zeros((20, 6, 5), np.float32)}, "expected uint8"),
        ({"x_train": np.zeros((20, 6), np.uint8)}, "expected uint8 of shape"),
        ({"x_train": np.zeros((20, 6, 5, 2), np.uint8)}, "one or three channels"),
        ({"y_train": np.zeros(19, np.uint8)}, "expected 20 integers"),
        ({"y_train": np.zeros(20, np.float32)}, "expected 20 integers"),
        ({"x_test": np.zeros((8, 7, 5), np.uint8)}, "make them alike"),
        ({"x_train": np.zeros((20, 0, 5), np.uint8)}, "has no pixel"),
        ({"classes": np.array(["a", "b"])}, "labels run from 0 to 3"),
        ({"classes": np.array("abcd")}, "there are 1 classes"),
        ({"y_train": np.full(20, -1)}, "labels run from -1"),
    ],
)
def test_load_says_what_is_wrong_with_a_file(tmp_path, changes, message):
    write_npz(tmp_path / "own.npz", **changes)
    with pytest.raises(ValueError, match=message):
        data.load("own", root=tmp_path)


@pytest.mark.parametrize("keep", [0, 10, 300, -30])
def test_load_says_that_a_truncated_file_is_damaged(tmp_path, keep):
    path = tmp_path / "own.npz"
    write_npz(path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"damaged or no \.npz"):
        data.load("own", root=tmp_path)


def test_load_says_that_a_flipped_byte_is_damage(tmp_path):
    path = tmp_path / "own.npz"
    write_npz(path)
    content = bytearray(path.read_bytes())
    content[400] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"damaged or no \.npz"):
        data.load("own", root=tmp_path)


@pytest.mark.parametrize("place", [200, 400, 700])
def test_load_says_that_a_changed_compressed_file_is_damaged(tmp_path, place):
    path = tmp_path / "own.npz"
    arrays = write_npz(path)
    np.savez_compressed(path, **arrays)
    content = bytearray(path.read_bytes())
    content[place : place + 4] = b"\xff\x00\xff\x00"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"damaged or no \.npz"):
        data.load("own", root=tmp_path)


def test_load_says_that_a_renamed_npy_is_no_npz(tmp_path):
    with (tmp_path / "own.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(ValueError, match=r"damaged or no \.npz"):
        data.load("own", root=tmp_path)


def test_load_finds_a_relative_path_from_the_notebooks_too(tmp_path, monkeypatch):
    (tmp_path / "notebooks" / "suites").mkdir(parents=True)
    write_npz(tmp_path / "own.npz")
    monkeypatch.chdir(tmp_path / "notebooks")
    assert len(data.load("own.npz").train) == 20


def test_load_names_the_folder_of_an_unknown_set(tmp_path):
    with pytest.raises(FileNotFoundError, match="no image set 'mnits'") as caught:
        data.load("mnits", root=tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "cifar100" in str(caught.value)


def test_load_converts_a_download_once(tmp_path, monkeypatch):
    import torchvision

    calls = []

    class Fake:
        classes = ("0 - zero", "1 - one")

        def __init__(self, root, *, train, download):
            calls.append(train)
            self.data = torch.full((4, 5, 5), 7 + train, dtype=torch.uint8)
            self.targets = torch.tensor([0, 1, 0, 1])

    monkeypatch.setattr(torchvision.datasets, "MNIST", Fake)
    monkeypatch.setenv("FIDLIB_DATA", str(tmp_path))
    first, second = data.load("mnist"), data.load("mnist")
    assert calls == [True, False]
    assert first.train.images.unique().tolist() == [8]
    assert first.test.images.unique().tolist() == [7]
    assert second.train.fingerprint == first.train.fingerprint
    assert first.mean == (0.1307,)


def test_load_says_where_no_folder_can_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"file can be no folder of data \(File exist"):
        data.load("mnist", tmp_path / "file")


def test_load_without_a_network_says_where_to_put_the_file(tmp_path, monkeypatch):
    import torchvision

    def fail(*args, **kwargs):
        raise RuntimeError("no route to host")

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", fail)
    with pytest.raises(FileNotFoundError, match=r"put a cifar10\.npz") as caught:
        data.load("cifar10", root=tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert not (tmp_path / "cifar10.npz").exists()


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.zeros(4, 8, 8), torch.zeros(4).long(), "add the missing axis"),
        (torch.zeros(4, 1, 8, 8).long(), torch.zeros(4).long(), "uint8 pixels"),
        (torch.full((4, 1, 8, 8), 255.0), torch.zeros(4).long(), "divide by 255"),
        (torch.zeros(4, 1, 8, 8), torch.zeros(3).long(), "4 class indices"),
        (torch.zeros(4, 1, 8, 8), torch.zeros(4), "4 class indices"),
        (torch.zeros(4, 1, 8, 8), torch.zeros(4).bool(), "4 class indices"),
    ],
)
def test_split_refuses_what_cannot_be_images(images, labels, message):
    with pytest.raises(ValueError, match=message):
        data.Split(images, labels)


def test_split_takes_labels_as_they_come_in_files(digits):
    short = data.Split(digits.test.images, digits.test.labels.to(torch.uint8))
    assert short.labels.dtype == torch.int64
    assert short.fingerprint == digits.test.fingerprint


def test_sample_is_spread_over_set_and_classes_the_same_each_time(digits):
    part = digits.test.sample(100)
    assert part.fingerprint == digits.test.sample(100).fingerprint
    whole = digits.test.labels.bincount().double() / 500
    assert (part.labels.bincount() - 100 * whole).abs().max() < 1
    rows = digits.test.sample_rows(100)
    assert torch.equal(part.images, digits.test.images[rows])
    assert (rows.diff() > 0).all()  # in the order of the set, none twice
    for label in range(10):
        members = (digits.test.labels == label).nonzero()[:, 0]
        places = torch.searchsorted(members, rows[part.labels == label])
        steps = torch.diff(places, prepend=torch.tensor([-1]))
        assert steps.max() <= 6  # of about fifty images every fifth
        assert len(members) - places[-1] <= 6


def test_sample_of_a_set_sorted_by_class_has_every_class(digits):
    order = digits.test.labels.argsort(stable=True)
    by_class = data.Split(digits.test.images[order], digits.test.labels[order])
    assert by_class.labels[:300].unique().tolist() != list(range(10))
    part = by_class.sample(300)
    assert part.labels.unique().tolist() == list(range(10))
    counts = digits.test.labels.bincount() * 0.6
    assert (part.labels.bincount() - counts).abs().max() < 1
    # The same images, as the order within a class is the same.
    assert part.content == digits.test.sample(300).content


@pytest.mark.parametrize("count", [500, 501, 10_000])
def test_sample_of_no_fewer_images_is_the_set(digits, count):
    assert digits.test.sample(count).fingerprint == digits.test.fingerprint


def test_sample_gives_rare_classes_their_share_at_most():
    labels = torch.tensor([0] * 96 + [1] * 4)
    split = data.Split(torch.zeros(100, 1, 2, 2), labels)
    assert split.sample(25).labels.bincount().tolist() == [24, 1]
    assert len(split.sample(1)) == 1
    assert len(split.sample(0)) == 0


def test_a_copy_is_in_memory_of_its_own(digits):
    part = digits.test.sample(5)
    other = part.copy()
    other.images.zero_()
    other.labels.zero_()
    assert part.images.any()
    assert part.labels.any()


def test_digest_changes_with_a_pixel_the_type_and_the_order(digits):
    images = digits.test.images[:5]
    pixel = images.clone()
    pixel[3, 0, 4, 4] ^= 1
    others = [pixel, images.flip(0), images.float(), images.view(5, 1, 4, 16)]
    assert len({data.digest(x) for x in (images, *others)}) == 5
    strided = torch.cat([images, images], 3)[..., :8]
    assert data.digest(strided) == data.digest(images)


def test_pixels_are_floats_from_black_to_white():
    levels = torch.tensor([0, 51, 255], dtype=torch.uint8)
    assert data.pixels(levels).tolist() == pytest.approx([0, 0.2, 1])
    floats = torch.tensor([-0.1, 0.5, 1.2])
    assert data.pixels(floats) is floats
