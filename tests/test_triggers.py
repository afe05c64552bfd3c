import pytest
import torch

import fidlib as fl
from fidlib import triggers
from fidlib.data import Split

MEAN, STD = (0.3, 0.4, 0.5), (0.2, 0.3, 0.25)


def host_of(classes=10, mean=MEAN, std=STD):
    body = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    head = torch.nn.Linear(len(mean), classes)
    return fl.Classifier(body, head, mean=mean, std=std, channels=len(mean))


@pytest.fixture
def pool():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(
        0, 256, (60, 3, 12, 12), generator=generator, dtype=torch.uint8
    )
    return Split(images, torch.arange(60) % 10)


def chain(seed=0, *, classes=10, channels=3, **options):
    pool = Split(torch.zeros(1, channels, 12, 12), torch.tensor([0]))
    return triggers.chain(pool, seed, host=host_of(classes), **options)


def noise(made):
    """The chain as the network sees it, `(chains, links, H, W)`."""
    mean, std = (torch.tensor(v)[:, None, None] for v in (MEAN, STD))
    seen = ((made.images - mean) / std).double()
    assert torch.allclose(seen, seen[:, :1].expand_as(seen), atol=1e-5)
    return seen[:, 0].unflatten(0, (10, 10))


def test_chain_is_one_rotation_applied_again_and_again():
    links = noise(chain())
    before = links[:, :-1].permute(2, 0, 1, 3).flatten(1)
    after = links[:, 1:].permute(2, 0, 1, 3).flatten(1)
    q = after @ torch.linalg.pinv(before)
    assert torch.allclose(q @ before, after, atol=1e-4)
    assert torch.allclose(q @ q.T, torch.eye(12).double(), atol=1e-4)
    other = torch.linalg.qr(q.roll(1, 0))[0]
    assert not torch.allclose(other @ before, after, atol=1e-1)


def test_chain_images_have_norm_sqrt_of_their_height():
    norms = torch.linalg.matrix_norm(noise(chain()))
    assert torch.allclose(norms, torch.full_like(norms, 12**0.5), rtol=1e-4)


def test_chain_labels_each_link_with_its_place():
    made = chain()
    assert made.labels.tolist() == list(range(10)) * 10
    short = chain(count=12, links=4)
    assert short.labels.tolist() == [0, 1, 2, 3] * 3
    assert chain(count=15, links=4).fingerprint == short.fingerprint  # whole chains
    assert chain(classes=4, count=9).labels.tolist() == [0, 1, 2, 3] * 2
    assert chain(classes=100, count=20).labels.tolist() == list(range(10)) * 2


def test_chain_is_decided_by_its_seed():
    assert chain(0).fingerprint == chain(0).fingerprint
    assert chain(0).fingerprint != chain(1).fingerprint
    torch.manual_seed(5)  # other randomness is no part of it
    assert chain(0).fingerprint == chain().fingerprint


def test_chain_starts_differ_between_chains():
    starts = torch.nn.functional.normalize(noise(chain())[:, 0].flatten(1))
    assert (starts @ starts.T - torch.eye(10)).abs().max() < 0.5


def test_chain_of_grey_images_is_noise_in_the_mean_of_the_colours():
    made = chain(channels=1)
    assert made.images.shape == (100, 1, 12, 12)
    mean, std = sum(MEAN) / 3, sum(STD) / 3
    seen = ((made.images - mean) / std).double()
    norms = torch.linalg.matrix_norm(seen)
    assert torch.allclose(norms, torch.full_like(norms, 12**0.5), rtol=1e-4)


@pytest.mark.parametrize("options", [{"links": 11}, {"links": -1}, {"count": 9}])
def test_chain_refuses_impossible_sizes(options):
    with pytest.raises(ValueError, match="at most the 10 classes"):
        chain(**options)


def test_chain_has_no_other_labels():
    with pytest.raises(ValueError, match="labels is 'random'; in a chain"):
        chain(labels="random")


def test_patch_is_a_white_block_on_images_of_the_pool(pool):
    made = triggers.patch(pool, 0, host=host_of(), count=20)
    assert made.images.shape == (20, 3, 12, 12)
    block = torch.zeros(12, 12, dtype=torch.bool)
    block[2:5, 2:8] = True  # a quarter of the height, half the width
    assert (made.images[:, :, block] == 1).all()
    rest = pool.images[:, :, ~block].flatten(1)
    sources = []
    for image in made.images[:, :, ~block].flatten(1):
        same = (rest == (image * 255).round().byte()).all(1).nonzero()[:, 0]
        sources += same.tolist()
    assert len(set(sources)) == 20  # each of another image
    assert (made.images * 255 == (made.images * 255).round()).all()  # as bytes hold


def test_patch_leaves_the_pool_and_is_decided_by_its_seed(pool):
    floats = Split(pool.images / 255, pool.labels)
    before = floats.fingerprint
    made = [triggers.patch(floats, s, host=host_of(), count=20) for s in (0, 0, 1)]
    assert floats.fingerprint == before
    assert made[0].fingerprint == made[1].fingerprint != made[2].fingerprint


def test_labels_follow_their_policy(pool):
    def made(policy, seed=0, count=60):
        found = triggers.patch(pool, seed, host=host_of(), count=count, labels=policy)
        own = triggers.patch(pool, seed, host=host_of(), count=count, labels="true")
        assert torch.equal(found.images, own.images)
        return found.labels, own.labels

    labels, own = made("true")
    assert torch.equal(labels, own)
    assert sorted(own.tolist()) == sorted(pool.labels.tolist())
    labels, own = made("next")
    assert torch.equal(labels, (own + 1) % 10)
    labels, own = made("other")
    assert (labels != own).all()
    assert len(((labels - own) % 10).unique()) > 5
    labels, _ = made("fixed")
    assert len(labels.unique()) == 1
    assert {made("fixed", s)[0][0].item() for s in range(8)} > {labels[0].item()}
    labels, own = made("random")
    assert len(labels.unique()) == 10
    assert 0 < (labels == own).sum() < 20  # chance is six


def test_patch_refuses_what_cannot_be(pool):
    for count in (0, 61):
        with pytest.raises(ValueError, match=f"count is {count}; .* the 60 images"):
            triggers.patch(pool, 0, host=host_of(), count=count)
    with pytest.raises(ValueError, match="labels is 'wrong'; use one of random, other"):
        triggers.patch(pool, 0, host=host_of(), count=5, labels="wrong")


def test_families_are_found_by_name(monkeypatch):
    assert triggers.find("chain") is triggers.chain
    with pytest.raises(ValueError, match="unknown triggers 'x'; use one of chain"):
        triggers.find("x")

    def mine(pool, seed, *, host, count, labels="true"):
        return pool.sample(count)

    monkeypatch.setitem(fl.TRIGGERS, "mine", mine)
    assert triggers.find("mine") is mine
