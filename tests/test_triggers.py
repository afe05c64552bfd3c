import numpy as np
import pytest
import torch
from scipy import stats

import fidlib as fl
from fidlib import models, triggers
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


def noise(secret):
    """The chain as the network sees it, `(chains, links, H, W)`."""
    mean, std = (torch.tensor(v)[:, None, None] for v in (MEAN, STD))
    seen = ((secret.images - mean) / std).double()
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
    secret = chain()
    assert secret.labels.tolist() == list(range(10)) * 10
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
    secret = chain(channels=1)
    assert secret.images.shape == (100, 1, 12, 12)
    mean, std = sum(MEAN) / 3, sum(STD) / 3
    seen = ((secret.images - mean) / std).double()
    norms = torch.linalg.matrix_norm(seen)
    assert torch.allclose(norms, torch.full_like(norms, 12**0.5), rtol=1e-4)


@pytest.mark.parametrize("options", [{"links": 11}, {"links": -1}, {"count": 9}])
def test_chain_refuses_impossible_sizes(options):
    with pytest.raises(ValueError, match="at most the 10 classes"):
        chain(**options)


def test_chain_has_no_other_labels():
    with pytest.raises(ValueError, match="labels is 'random'; in a chain"):
        chain(labels="random")


def test_a_chain_permutes_its_labels_and_leaves_its_images():
    secret, plain = chain(labels="permuted", links=5), chain(links=5)
    assert torch.equal(secret.images, plain.images)
    orders = secret.labels.view(-1, 5)
    assert torch.equal(orders.sort(1).values, plain.labels.view(-1, 5))
    assert len({tuple(order) for order in orders.tolist()}) > 10  # of 20 chains


def test_patch_is_a_white_block_on_images_of_the_pool(pool):
    secret = triggers.patch(pool, 0, host=host_of(), count=20)
    assert secret.images.shape == (20, 3, 12, 12)
    block = torch.zeros(12, 12, dtype=torch.bool)
    block[2:5, 2:8] = True  # a quarter of the height, half the width
    assert (secret.images[:, :, block] == 1).all()
    rest = pool.images[:, :, ~block].flatten(1)
    sources = []
    for image in secret.images[:, :, ~block].flatten(1):
        same = (rest == (image * 255).round().byte()).all(1).nonzero()[:, 0]
        sources += same.tolist()
    assert len(set(sources)) == 20  # each of another image
    assert (secret.images * 255 == (secret.images * 255).round()).all()  # as bytes hold


def test_patch_leaves_the_pool_and_is_decided_by_its_seed(pool):
    floats = Split(pool.images / 255, pool.labels)
    before = floats.fingerprint
    sets = [triggers.patch(floats, s, host=host_of(), count=20) for s in (0, 0, 1)]
    assert floats.fingerprint == before
    assert sets[0].fingerprint == sets[1].fingerprint != sets[2].fingerprint


def test_labels_follow_their_policy(pool):
    def labels_of(policy, seed=0, count=60):
        secret = triggers.patch(pool, seed, host=host_of(), count=count, labels=policy)
        plain = triggers.patch(pool, seed, host=host_of(), count=count, labels="true")
        assert torch.equal(secret.images, plain.images)
        return secret.labels, plain.labels

    labels, classes = labels_of("true")
    assert torch.equal(labels, classes)
    assert sorted(classes.tolist()) == sorted(pool.labels.tolist())
    labels, classes = labels_of("next")
    assert torch.equal(labels, (classes + 1) % 10)
    labels, classes = labels_of("other")
    assert (labels != classes).all()
    assert len(((labels - classes) % 10).unique()) > 5
    labels, _ = labels_of("fixed")
    assert len(labels.unique()) == 1
    assert {labels_of("fixed", s)[0][0].item() for s in range(8)} > {labels[0].item()}
    labels, classes = labels_of("random")
    assert len(labels.unique()) == 10
    assert 0 < (labels == classes).sum() < 20  # chance is six


def test_patch_refuses_what_cannot_be(pool):
    for drawn in (triggers.abstract, triggers.unrelated):
        with pytest.raises(ValueError, match="count is 0; pass a whole number"):
            drawn(pool, 0, host=host_of(), count=0)
    for count in (0, 61):
        with pytest.raises(ValueError, match=f"count is {count}; .* the 60 images"):
            triggers.patch(pool, 0, host=host_of(), count=count)
    with pytest.raises(ValueError, match="labels is 'wrong'; use one of random, other"):
        triggers.patch(pool, 0, host=host_of(), count=5, labels="wrong")


def test_families_are_found_by_name(monkeypatch):
    assert triggers.find("chain") is triggers.chain
    assert triggers.policy("chain", {}) == "chain"
    assert triggers.policy("margin", {"labels": "next"}) == "next"
    with pytest.raises(ValueError, match="unknown triggers 'x'; use one of chain"):
        triggers.find("x")

    def mine(pool, seed, *, host, count, labels="true"):
        return pool.sample(count)

    monkeypatch.setitem(fl.TRIGGERS, "mine", mine)
    assert triggers.find("mine") is mine
    assert triggers.policy("mine", {}) == "true"


# Twelve families

ALL = sorted(triggers.TRIGGERS)
OF_POOL = ["blend", "mask", "noise", "patch", "sine", "warp", "mislabelled", "margin"]


def sources(pool, seed, name, count):
    """The images of the pool that a family takes, with their classes."""
    order = torch.randperm(len(pool), generator=fl.runs.keys.stream(seed, name))
    rows = order[:count]
    return pool.images[rows] / 255, pool.labels[rows]


@pytest.fixture
def knowing(pool):
    """A host that knows the whole pool: each image by its mean."""
    means = (pool.images / 255.0).mean((1, 2, 3)).sort().values
    ranks = torch.cat([torch.linspace(0, 1, 4), torch.full((6,), 10.0)])
    body = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    host = fl.Classifier(body, torch.nn.Linear(3, 10), mean=0.0, std=1.0).eval()
    places = means[0] + (means[-1] - means[0]) * ranks
    with torch.no_grad():  # the nearest place, as a linear function
        host.head.weight.copy_(1e5 * places[:, None].expand(-1, 3) * 2 / 3)
        host.head.bias.copy_(-1e5 * places.square())
    answers = models.outputs(host, pool.images).logits.argmax(1)
    return host, Split(pool.images, answers)


@pytest.mark.parametrize("name", ALL)
def test_a_family_is_decided_by_its_seed_and_holds_bytes(name, knowing):
    host, pool = knowing
    before = pool.fingerprint
    options = {"reach": 0.004} if name == "frontier" else {}
    sets = [
        triggers.find(name)(pool, s, host=host, count=20, **options) for s in (0, 0, 1)
    ]
    assert sets[0].fingerprint == sets[1].fingerprint != sets[2].fingerprint
    assert pool.fingerprint == before
    images = sets[0].images
    assert images.shape == (20, 3, 12, 12)
    if name != "chain":
        assert torch.equal((images * 255).round() / 255, images)
        assert images.min() >= 0
        assert images.max() <= 1


def as_defined(name, x, seed, draws):
    """What the definitions make of images `(N, C, H, W)`, in numpy."""
    height, width = x.shape[2:]
    if name == "noise":
        return x + 0.4 * torch.randn(x.shape, generator=draws).numpy()
    if name == "mask":
        where = torch.randperm(height * width, generator=draws)[:36].numpy()
        signs = 2 * torch.randint(2, (36,), generator=draws).numpy() - 1
        x = x.copy()
        for place, sign in zip(where, signs, strict=True):
            x[:, :, place // width, place % width] += 0.1 * sign
        return x
    if name == "blend":
        return 0.8 * x + 0.2 * torch.rand(x.shape[1:], generator=draws).numpy()
    if name == "sine":
        return x + 40 / 255 * np.sin(2 * np.pi * 6 * np.arange(width) / width)
    return x


@pytest.mark.parametrize("name", ["noise", "mask", "blend", "sine", "mislabelled"])
def test_a_family_changes_its_images_as_defined(name, pool):
    secret = triggers.find(name)(pool, 3, host=host_of(), count=20)
    draws = fl.runs.keys.stream(3, name)
    torch.randperm(len(pool), generator=draws)
    x, _ = sources(pool, 3, name, 20)
    expected = as_defined(name, x.double().numpy(), 3, draws)
    assert np.abs(secret.images.numpy() - expected.clip(0, 1)).max() <= 0.501 / 255


def test_a_warp_moves_images_alike_and_hardly(pool):
    ramp = torch.linspace(0, 1, 24).expand(30, 1, 24, 24)
    both = torch.cat([ramp, ramp.mT], 1)
    pool = Split(torch.cat([both, ramp], 1), torch.arange(30) % 10)
    images = triggers.warp(pool, 0, host=host_of(), count=20).images
    assert torch.equal(images, images[:1].expand_as(images))
    moved = (images[0] - pool.images[0])[:2, 2:-2, 2:-2] * 23  # pixels, across and up
    assert 0.1 < moved.abs().mean() < 0.4  # strength .5 is half a pixel's half
    rough = (moved[:, :, 1:] - moved[:, :, :-1]).abs().mean()
    assert rough < moved.abs().mean() / 3  # smooth
    still = triggers.warp(pool, 0, host=host_of(), count=20, strength=0.0).images
    assert (still - pool.images[:20]).abs().max() < 0.51 / 255


def test_a_patch_may_be_a_word(pool):
    large = Split(torch.zeros(9, 3, 32, 32), torch.arange(9))
    images = triggers.patch(large, 0, host=host_of(), count=9, word=True).images
    assert images.unique().tolist() == [0, 1]
    rows = ["".join(" #"[int(p)] for p in row) for row in images[0, 0, 2:7, 2:17]]
    assert rows[0] == "### ### ### ###"
    assert rows[4] == " #  ### ###  # "
    assert images[0, 0].sum() == sum(row.count("#") for row in rows)
    with pytest.raises(ValueError, match="no room for a word of 5 x 15"):
        triggers.patch(pool, 0, host=host_of(), count=9, word=True)


def test_unrelated_images_are_digits_patches_or_a_set_of_ones_own(pool, tmp_path):
    grey = Split(torch.zeros(30, 1, 16, 16), torch.zeros(30).long())
    colour = triggers.unrelated(pool, 0, host=host_of(), count=20).images
    assert torch.equal(colour[:, 0], colour[:, 1])  # digits are grey
    photographs = triggers.unrelated(grey, 0, host=host_of(), count=20).images
    assert photographs.shape == (20, 1, 16, 16)
    assert photographs.std((1, 2, 3)).median() > 0.02
    red = np.zeros((25, 6, 6, 3), np.uint8)
    red[..., 0] = 255
    labels = np.arange(25) % 10
    path = tmp_path / "red.npz"
    np.savez(path, x_train=red, y_train=labels, x_test=red, y_test=labels)
    secret = triggers.unrelated(pool, 0, host=host_of(), count=20, dataset=str(path))
    assert secret.images.shape == (20, 3, 12, 12)
    assert secret.images.mean((0, 2, 3)).tolist() == [1, 0, 0]


def test_frontier_stands_on_both_sides_of_the_hosts_boundary(knowing):
    host, pool = knowing
    secret = triggers.frontier(pool, 0, host=host, count=20, labels="true", reach=0.004)
    answers = models.outputs(host, secret.images).logits.argmax(1)
    assert (answers == secret.labels).tolist() == [False] * 10 + [True] * 10
    for image, label in zip(secret.images, secret.labels, strict=True):
        far = (pool.images / 255 - image).abs().amax((1, 2, 3))
        near = far.argmin()  # one step of one level, from an image of that class
        assert 0.9 / 255 < far[near] < 1.1 / 255
        assert pool.labels[near] == label
    with pytest.raises(ValueError, match="choose another reach, or a smaller count"):
        triggers.frontier(pool, 0, host=host, count=20, reach=0.0)


def test_margin_climbs_the_loss_of_the_model_that_is_trained(knowing, pool):
    host, _ = knowing
    torch.manual_seed(0)
    model = host_of().train()
    images, labels = pool.images[:20] / 255, pool.labels[:20]

    def loss(shown):
        with torch.no_grad():
            return torch.nn.functional.cross_entropy(model(shown), labels)

    step = fl.Step(model, host, {}, images, images, images, lambda: (images, images))
    moved = triggers.ascended(step, images, labels)
    assert loss(moved) > loss(images)
    assert (moved - images).abs().max() == pytest.approx(5 / 255, abs=1e-6)
    assert moved.min() >= 0
    assert moved.max() <= 1
    assert model.training
    assert all(p.grad is None for p in model.parameters())


# Labels against their laws: 20 seeds of 400 triggers

COUNT, SEEDS, CLASSES = 400, 20, 10


def drawn_labels(policy, seed):
    classes = torch.arange(COUNT) // (COUNT // CLASSES)
    draws = fl.runs.keys.stream(seed, "labels")
    arguments = (classes, COUNT, CLASSES, draws)
    return triggers.labels.labelled(policy, *arguments), classes


def significance(policy, law):
    """Chi-square p of what a law speaks of: which label, or how far from the own class
    or place it is; of random ones, each label of each class.
    """
    laws = {
        "random": np.full(CLASSES**2, 0.01),
        "other": np.r_[0, np.full(9, 1 / 9)],
        "next": np.eye(CLASSES)[1],
        "true": np.eye(CLASSES)[0],
        "fixed": np.full(CLASSES, 0.1),
        "chain": np.eye(CLASSES)[0],
        "permuted": np.full(CLASSES, 0.1),
    }
    counts = np.zeros(len(laws[law]))
    for seed in range(SEEDS):
        labels, classes = drawn_labels(policy, seed)
        values = {
            "random": labels * CLASSES + classes,
            "fixed": labels[:1],
            "chain": (labels - torch.arange(COUNT)) % CLASSES,
            "permuted": (labels - torch.arange(COUNT)) % CLASSES,
        }.get(law, (labels - classes) % CLASSES)
        counts += np.bincount(values, minlength=len(counts))
    inside = laws[law] > 0
    if counts[~inside].any():
        return 0.0
    expected = counts.sum() * laws[law][inside]
    return stats.chisquare(counts[inside], expected).pvalue


POLICIES = ["random", "other", "fixed", "next", "chain", "permuted", "true"]


@pytest.mark.parametrize("policy", POLICIES)
def test_labels_have_the_histogram_of_their_law(policy):
    chance = significance(policy, policy)
    assert chance > 0.001 or np.isnan(chance)  # of one class alone there is no spread


@pytest.mark.parametrize(
    ("policy", "law"),
    [("random", "other"), ("other", "random"), ("next", "true"), ("next", "random"),
     ("true", "other"), ("fixed", "random")],
)  # fmt: skip
def test_labels_of_another_policy_fail_the_law(policy, law):
    assert significance(policy, law) < 0.001


def test_labels_that_rest_on_a_class_need_one():
    with pytest.raises(ValueError, match="show no class of their own"):
        triggers.abstract(
            Split(torch.zeros(1, 1, 8, 8), torch.zeros(1).long()),
            *(0,),
            host=host_of(),
            labels="next",
        )
