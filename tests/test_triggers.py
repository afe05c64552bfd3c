import pytest
import torch

from fidlib.triggers import noise_chain

MEAN, STD = (0.3, 0.4, 0.5), (0.2, 0.3, 0.25)


def chain(seed=0, **changes):
    options = {"num_classes": 10, "mean": MEAN, "std": STD} | changes
    return noise_chain((3, 12, 12), seed=seed, **options)


def noise(triggers, **shape):
    """The chain as the network sees it, `(chains, links, H, W)`."""
    mean, std = (torch.tensor(v)[:, None, None] for v in (MEAN, STD))
    seen = ((triggers.images - mean) / std).double()
    assert torch.allclose(seen, seen[:, :1].expand_as(seen), atol=1e-5)
    return seen[:, 0].unflatten(0, (10, 10))


def test_noise_chain_is_one_rotation_applied_again_and_again():
    links = noise(chain())
    before = links[:, :-1].permute(2, 0, 1, 3).flatten(1)
    after = links[:, 1:].permute(2, 0, 1, 3).flatten(1)
    q = after @ torch.linalg.pinv(before)
    assert torch.allclose(q @ before, after, atol=1e-4)
    assert torch.allclose(q @ q.T, torch.eye(12).double(), atol=1e-4)
    other = torch.linalg.qr(q.roll(1, 0))[0]
    assert not torch.allclose(other @ before, after, atol=1e-1)


def test_noise_chain_images_have_norm_sqrt_of_their_height():
    norms = torch.linalg.matrix_norm(noise(chain()))
    assert torch.allclose(norms, torch.full_like(norms, 12**0.5), rtol=1e-4)


def test_noise_chain_labels_each_link_with_its_place():
    triggers = chain()
    assert triggers.labels.tolist() == list(range(10)) * 10
    assert torch.bincount(triggers.labels).tolist() == [10] * 10
    short = chain(chains=3, links=4)
    assert short.labels.tolist() == [0, 1, 2, 3] * 3


def test_noise_chain_is_decided_by_its_seed():
    assert chain(0).fingerprint == chain(0).fingerprint
    assert chain(0).fingerprint != chain(1).fingerprint
    torch.manual_seed(5)  # other randomness is no part of it
    assert chain(0).fingerprint == chain().fingerprint


def test_noise_chain_starts_differ_between_chains():
    starts = noise(chain())[:, 0].flatten(1)
    gram = (
        torch.nn.functional.normalize(starts) @ torch.nn.functional.normalize(starts).T
    )
    assert (gram - torch.eye(10)).abs().max() < 0.5


@pytest.mark.parametrize("changes", [{"links": 11}, {"links": 0}, {"chains": 0}])
def test_noise_chain_refuses_impossible_sizes(changes):
    with pytest.raises(ValueError, match="at most the 10 classes"):
        chain(**changes)
