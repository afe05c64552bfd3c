"""Networks of strangers: what is taken is right, what is refused says why."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import prune

import fidlib as fl
from fidlib import models, training, weights
from fidlib.methods import METHODS
from fidlib.training import Plan
from fidlib.training.quiet import projections


class Net(nn.Module):
    """A little network, of which each test changes one thing."""

    def __init__(self, inputs=1, size=8):
        super().__init__()
        self.convolution = nn.Conv2d(inputs, 4, 3, padding=1)
        self.hidden = nn.Linear(4 * size * size, 12)
        self.head = nn.Linear(12, 10)

    def features(self, images):
        return self.hidden(F.relu(self.convolution(images)).flatten(1))

    def forward(self, images):
        return self.head(F.relu(self.features(images)))


def step(name, model, **options):
    """The model after two steps of a method."""
    method = METHODS[name]
    plan = Plan(
        method=method,
        epochs=1,
        learning_rate=1e-2,
        batch_size=8,
        seed=0,
        trigger_batch_size=4,
        quiet=method.quiet or 0.0,
        **options,
    )
    generator = torch.Generator().manual_seed(1)
    shape = (model.channels, 8, 8)
    shown = fl.data.Split(
        torch.rand(16, *shape, generator=generator), torch.arange(16) % 10
    )
    secret = fl.data.Split(torch.rand(4, *shape, generator=generator), torch.arange(4))
    started = training.start(model, plan)
    return training.train(started, plan, shown, triggers=secret, host=model).model


def moved(before, after):
    """Names of what the layers use that is no longer the same."""
    pairs = weights.used(before), weights.used(after)
    return {n for n, p in pairs[0].items() if not torch.equal(p, pairs[1][n])}


# What depends on the batch


class OverTheBatch(Net):
    """Attention whose first axis is the batch, as batch_first=False has it."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(12, 2)

    def features(self, images):
        x = super().features(images)[:, None]
        return self.attention(x, x, x)[0][:, 0]


class Whitened(Net):
    def features(self, images):
        return super().features(images / images.abs().amax())


class Centred(Net):
    def features(self, images):
        x = super().features(images)
        return x - x.mean(0)


class ByPlace(Net):
    def features(self, images):
        return super().features(images) + torch.arange(len(images))[:, None]


@pytest.mark.parametrize("kind", [OverTheBatch, Whitened, Centred, ByPlace])
def test_wrap_refuses_answers_that_depend_on_the_batch(kind):
    with pytest.raises(ValueError, match="depend on the other images"):
        models.wrap(kind(), image_size=8)


def test_a_head_of_zeros_hides_nothing():
    network = Centred()
    nn.init.zeros_(network.head.weight)
    with pytest.raises(ValueError, match="depend on the other images"):
        models.wrap(network, image_size=8)


def test_wrap_refuses_batch_norm_without_statistics():
    layers = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)]
    network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(144, 10))
    with pytest.raises(ValueError, match="track_running_stats=True"):
        models.wrap(network, image_size=8)
    layers[1] = nn.BatchNorm2d(4)
    models.wrap(nn.Sequential(*layers, nn.Flatten(), nn.Linear(144, 10)), image_size=8)
    layers[1] = nn.InstanceNorm2d(4)  # of each image alone
    models.wrap(nn.Sequential(*layers, nn.Flatten(), nn.Linear(144, 10)), image_size=8)


def test_wrap_refuses_answers_that_vary():
    class Dropped(Net):
        def features(self, images):
            return F.dropout(super().features(images))

    class Noisy(Net):
        def features(self, images):
            return super().features(images + 0.1 * torch.randn_like(images))

    for kind in (Dropped, Noisy):
        with pytest.raises(ValueError, match="differ from run to run"):
            models.wrap(kind(), image_size=8)


# Memory formats and shapes


class Viewed(Net):
    def features(self, images):
        x = F.relu(self.convolution(images))
        return self.hidden(x.view(x.size(0), -1))


def test_a_network_that_views_is_wrapped_trained_and_measured():
    host = models.wrap(Viewed(), image_size=8)
    assert host.layout == torch.contiguous_format
    assert models.wrap(Net(), image_size=8).layout == torch.channels_last
    marked = step("FTAL", host)
    assert moved(host, marked) == weights.used(host).keys()
    split = fl.data.Split(torch.rand(30, 1, 8, 8), torch.arange(30) % 10)
    assert fl.compare(host, marked, split).twl > 0


def test_permuted_images_are_seen_as_they_are():
    host, other = (models.wrap(Viewed(3), image_size=8) for _ in range(2))
    images, labels = torch.rand(30, 3, 8, 8), torch.arange(30) % 10
    permuted = images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    expected = fl.compare(host, other, (images, labels)).values()
    for pictures in (permuted, permuted.numpy()):
        assert fl.compare(host, other, (pictures, labels)).values() == expected
    assert torch.equal(host(permuted), host(images))


def test_a_network_that_views_is_trained_as_one_that_flattens():
    torch.manual_seed(0)
    viewed, flat = Viewed(3), Net(3)
    flat.load_state_dict(viewed.state_dict())
    of_viewed, of_flat = (
        step("FTAL", models.wrap(n, image_size=8)) for n in (viewed, flat)
    )
    images = torch.rand(5, 3, 8, 8)
    assert torch.allclose(of_viewed(images), of_flat(images), atol=1e-4)


def test_a_layer_that_ends_the_process_channels_last_is_trained_otherwise():
    layers = [nn.Conv2d(3, 48, 1, stride=2, bias=False), nn.Flatten()]
    network = nn.Sequential(*layers, nn.Linear(48 * 16, 10))
    host = models.wrap(network, image_size=8)
    assert host.layout == torch.contiguous_format
    assert moved(host, step("FTAL", host)) == weights.used(host).keys()


@pytest.mark.parametrize("size", [(20, 12), [20, 12], (np.int64(20), 12)])
def test_image_size_takes_height_and_width(size):
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 18 * 10, 10)
    )
    assert models.wrap(network, image_size=size).feature_dim == 720
    with pytest.raises(ValueError, match=r"shape \(3, 3, 12, 12\)"):
        models.wrap(network, image_size=12)


@pytest.mark.parametrize("size", [0, -3, 8.0, "8", (8, 8, 8), (8,), None])
def test_image_size_says_what_it_takes(size):
    with pytest.raises(ValueError, match=r"image_size is .*pass the side"):
        models.wrap(Net(), image_size=size)


def test_channels_are_those_of_the_images_not_of_the_first_convolution():
    class ByDepth(Net):
        def __init__(self, colours):
            super().__init__(4 * colours, 4)

        def features(self, images):
            return super().features(F.pixel_unshuffle(images, 2))

    for colours in (1, 3):
        assert models.wrap(ByDepth(colours), image_size=8).channels == colours
    assert models.wrap(ByDepth(2), image_size=8, channels=2).channels == 2
    with pytest.raises(ValueError, match="channels="):
        models.wrap(ByDepth(2), image_size=8)
    flat = nn.Sequential(nn.Flatten(), nn.Linear(192, 12), nn.Linear(12, 10))
    assert models.wrap(flat, image_size=8).channels == 3


def test_an_own_network_is_tried_on_the_datas_own_shape(tmp_path, monkeypatch, root):
    images = torch.randint(0, 256, (40, 20, 12), dtype=torch.uint8).numpy()
    labels = (torch.arange(40) % 4).numpy()
    arrays = {"x_train": images, "y_train": labels, "x_test": images, "y_test": labels}
    np.savez(tmp_path / "oblong.npz", **arrays)

    def oblong(num_classes, feature_dim):
        body = nn.Linear(240, feature_dim)
        return nn.Sequential(nn.Flatten(), body, nn.Linear(feature_dim, num_classes))

    monkeypatch.setitem(fl.NETWORKS, "oblong", oblong)
    config = fl.Config(
        str(tmp_path / "oblong.npz"), model="oblong", epochs=1, scale="smoke"
    )
    host = fl.Study(config).model("host")
    assert host.spec["image_size"] == [20, 12]
    models.save(host, tmp_path / "m.safetensors")
    again = models.load(tmp_path / "m.safetensors")
    assert models.fingerprint(again) == models.fingerprint(host)


# Heads


def test_the_head_is_what_gives_the_answer_wherever_it_is_defined():
    class First(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(12, 10)
            self.body = nn.Linear(64, 12)

        def forward(self, images):
            return self.head(self.body(images.flatten(1)))

    class Projected(Net):
        def __init__(self):
            super().__init__()
            self.projector = nn.Linear(12, 7)  # for another loss

    for network in (First(), Projected()):
        model = models.wrap(network, image_size=8)
        assert torch.equal(model.head.weight, network.head.weight)
        images = torch.rand(3, 1, 8, 8)
        assert torch.allclose(model(images), network(images), atol=1e-5)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (nn.Sequential(Net(), nn.Softmax(1)), r"1 \(Softmax\) follows"),
        (nn.Sequential(Net(), nn.Linear(10, 10), nn.ReLU()), r"2 \(ReLU\) follows"),
        (
            nn.Sequential(Net(), nn.Unflatten(1, (10, 1, 1)), nn.Conv2d(10, 10, 1)),
            "Conv",
        ),
    ],
)
def test_wrap_names_what_follows_the_head(network, message):
    with pytest.raises(ValueError, match=message):
        models.wrap(network, image_size=8)


class Distilled(Net):
    """Two heads, whose mean is the answer, as of DeiT and LeViT."""

    def __init__(self):
        super().__init__()
        self.taught = nn.Linear(12, 10)

    def forward(self, images):
        x = self.features(images)
        return (self.head(x) + self.taught(x)) / 2


def test_wrap_names_heads_whose_mean_is_the_answer():
    with pytest.raises(ValueError, match="by the mean of 2 heads, head, taught; "):
        models.wrap(Distilled(), image_size=8)


class Cosine(nn.Linear):
    def forward(self, x):
        return F.linear(F.normalize(x), F.normalize(self.weight))


class Answers(Net):
    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, images):
        return self.answer(self, super().forward(images))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda m, x: x.softmax(1), "something in its forward follows"),
        (lambda m, x: x.log_softmax(1), "something in its forward follows"),
        (lambda m, x: 2 * x, "something in its forward follows"),
        (lambda m, x: x.relu_(), "not linear"),
        (lambda m, x: {"out": x}, "returns a dict of out; .* forward returns them"),
        (lambda m, x: (x, x), "returns a tuple; .* forward returns them"),
        (lambda m, x: SimpleNamespace(scores=x), "returns a SimpleNamespace"),
        (lambda m, x: (x, x) if m.training else x, "in training mode Answers"),
        (lambda m, x: x.detach() if m.training else x, "no gradient|cannot be trained"),
        (lambda m, x: 1 / 0, "division by zero"),
    ],
)
def test_wrap_says_what_is_wrong_with_an_answer(answer, message):
    with pytest.raises(ValueError, match=message):
        models.wrap(Answers(answer), image_size=8)


@pytest.mark.parametrize(
    "answer",
    [
        lambda m, x: SimpleNamespace(logits=x, loss=None),
        lambda m, x: {"logits": x, "hidden": None},
    ],
)
def test_logits_inside_an_answer_are_taken(answer):
    network = Answers(answer)
    model, images = models.wrap(network, image_size=8), torch.rand(3, 1, 8, 8)
    assert torch.allclose(model(images), network.head(F.relu(network.features(images))))
    assert moved(model, step("FTLL", model)) == {"head.weight", "head.bias"}


def test_a_head_that_is_not_linear_is_refused():
    network = Net()
    network.head = Cosine(12, 10)
    with pytest.raises(ValueError, match=r"its head \(Cosine\)"):
        models.wrap(network, image_size=8)


@pytest.mark.parametrize(
    ("thing", "message"),
    [
        (Net().state_dict(), "a state dict holds weights and no network"),
        ("resnet18", "a str is no network"),
        (Net, "a type is no network"),
        (models.wrap(Net(), image_size=8), "wrapped already"),
        (nn.Sequential(nn.Flatten(), nn.LazyLinear(10)), "lazy layer"),
        (Net().half(), "are torch.float16"),
    ],
)
def test_wrap_says_what_it_takes(thing, message):
    with pytest.raises(ValueError, match=message):
        models.wrap(thing, image_size=8)


class Tied(Net):
    def __init__(self):
        super().__init__()
        self.reduced, self.back = nn.Linear(12, 10), nn.Linear(10, 12)
        self.head.weight = self.reduced.weight

    def features(self, images):
        return self.back(self.reduced(super().features(images)))


def test_a_head_that_shares_its_weight_is_refused():
    with pytest.raises(ValueError, match="head of Tied, head, shares its weight"):
        models.wrap(Tied(), image_size=8)
    network = Tied()
    network.head = nn.Linear(12, 10)
    network.back.weight = nn.Parameter(network.head.weight.T.clone())
    models.wrap(network, image_size=8)


class Shifts(Net):
    """It changes what it is given."""

    def features(self, images):
        images -= 0.5
        return super().features(images)


@pytest.mark.parametrize("answer", [lambda m, x: x, lambda m, x: {"logits": x}])
def test_a_network_may_change_what_it_is_given(answer):
    network, images = Answers(answer), torch.rand(3, 1, 8, 8)
    network.features = Shifts().features
    expected = network.head(F.relu(network.features(images.clone())))
    shown = images.clone()
    model = models.wrap(network, image_size=8)
    assert torch.allclose(model(shown), expected, atol=1e-6)
    assert torch.equal(shown, images)


# Training


class Frozen(Net):
    def features(self, images):
        with torch.no_grad():
            x = self.convolution(images)
        return self.hidden(x.flatten(1))


class Detached(Net):
    def features(self, images):
        return self.hidden(F.relu(self.convolution(images)).detach().flatten(1))


class Cached(Net):
    """At rest it keeps what it computed of a weight, as LeViT and TinyViT do."""

    def __init__(self):
        super().__init__()
        self.bias, self.kept = nn.Parameter(torch.rand(12)), None

    def train(self, mode=True):
        self.kept = None
        return super().train(mode)

    def features(self, images):
        bias = 2 * self.bias if self.training or self.kept is None else self.kept
        self.kept = None if self.training else bias
        return super().features(images) + bias


class Kept(Net):
    def features(self, images):
        self.last = super().features(images)
        return self.last


class InPlace(Net):
    def features(self, images):
        x = self.convolution(images).sigmoid()
        return self.hidden(x.mul_(2).flatten(1))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Frozen, "no gradient reaches convolution"),
        (Detached, "no gradient reaches convolution"),
        (Cached, "no gradient reaches bias of Cached in eval mode"),
        (Kept, "keep no tensor of the images"),
        (InPlace, "cannot be trained"),
    ],
)
def test_wrap_refuses_what_training_would_not_train(kind, message):
    with pytest.raises(ValueError, match=message):
        models.wrap(kind(), image_size=8)


class Aside(Net):
    """It computes what nobody asks for, as CLIP does for texts."""

    def __init__(self):
        super().__init__()
        self.aside = nn.Linear(12, 5)

    def features(self, images):
        x = super().features(images)
        self.aside(x)
        return x


def test_a_layer_on_which_no_answer_rests_need_not_be_trained():
    model = models.wrap(Aside(), image_size=8)
    left = {"body.aside.weight", "body.aside.bias"}
    assert moved(model, step("FTAL", model)) == weights.used(model).keys() - left


def test_wrap_leaves_randomness_and_the_network_alone():
    network = nn.Sequential(nn.BatchNorm2d(1), Net(), nn.Dropout(0.5))
    state, before = (
        torch.get_rng_state(),
        {n: t.clone() for n, t in network.state_dict().items()},
    )
    assert models.wrap(network, image_size=8).training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(t, before[n]) for n, t in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters())


@pytest.mark.parametrize("switched", ["grad", "inference", "dtype"])
def test_what_is_switched_at_the_top_of_a_notebook_does_not_reach_wrap(switched):
    network = Net()
    try:
        torch.set_grad_enabled(switched != "grad")
        torch.set_default_dtype(torch.float64 if switched == "dtype" else torch.float32)
        with torch.inference_mode(switched == "inference"):
            model = models.wrap(network, image_size=8)
        marked = step("FTAL", model)
    finally:
        torch.set_grad_enabled(True)
        torch.set_default_dtype(torch.float32)
    assert moved(model, marked)


def test_training_in_inference_mode_is_refused_first():
    model = models.wrap(Net(), image_size=8)
    with torch.inference_mode(), pytest.raises(ValueError, match="inference_mode"):
        step("FTAL", model)


# Wrappers and hooks


class Ema(nn.Module):
    """As many write it: no forward."""

    def __init__(self, network):
        super().__init__()
        self.module = network


WRAPPERS = {
    "DataParallel": nn.DataParallel,
    "AveragedModel": torch.optim.swa_utils.AveragedModel,
    "compile": torch.compile,
    "Ema": Ema,
    "both": lambda n: torch.optim.swa_utils.AveragedModel(nn.DataParallel(n)),
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_a_wrapped_network_is_compared_as_the_plain_one(name):
    torch.manual_seed(0)
    plain, other = Net(), Net()
    split = fl.data.Split(torch.rand(30, 1, 8, 8), torch.arange(30) % 10)
    around = models.wrap(WRAPPERS[name](other), image_size=8)
    host, other = (models.wrap(n, image_size=8) for n in (plain, other))
    expected = fl.compare(host, other, split)
    assert expected.twl > 0
    assert fl.compare(host, around, split).twl == expected.twl
    assert models.fingerprint(around) == models.fingerprint(other)


def test_a_compiled_layer_inside_counts_as_the_layer():
    network = Net()
    expected = models.wrap(network, image_size=8).state_dict().keys()
    network.hidden = torch.compile(network.hidden)
    assert models.wrap(network, image_size=8).state_dict().keys() == expected


def test_a_wrapper_that_does_more_stays():
    class Normalised(nn.Module):
        def __init__(self, network):
            super().__init__()
            self.module = network

        def forward(self, images):
            return self.module((images - 0.5) / 0.1)

    network, images = Normalised(Net()), torch.rand(3, 1, 8, 8)
    assert torch.allclose(models.wrap(network, image_size=8)(images), network(images))


def hooked():
    def halve(layer, inputs, output):
        return output / 2

    def masked(layer, inputs):
        layer.weight.data.mul_(layer.weight.abs() > 0.01)

    yield "halve", lambda n: n.hidden.register_forward_hook(halve)
    yield "masked", lambda n: n.convolution.register_forward_pre_hook(masked)
    yield "WeightNorm", lambda n: nn.utils.weight_norm(n.hidden)
    yield "SpectralNorm", lambda n: nn.utils.spectral_norm(n.head)
    yield "<lambda>", lambda n: n.hidden.weight.register_hook(lambda g: g * 0)
    yield "halve", lambda n: n.hidden.register_full_backward_hook(halve)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*spectral_norm.*:FutureWarning")
@pytest.mark.parametrize(("name", "add"), [*hooked()])
def test_a_hook_that_no_copy_keeps_is_refused(name, add):
    network = Net()
    add(network)
    with pytest.raises(ValueError, match=rf"has a hook \({name}\)"):
        models.wrap(network, image_size=8)


def pruned(share, after_a_step=False):
    torch.manual_seed(0)
    network = Net()
    for layer in (network.convolution, network.hidden, network.head):
        prune.l1_unstructured(layer, "weight", share)
    if after_a_step:
        network(torch.rand(2, 1, 8, 8)).sum().backward()
    return network


@pytest.mark.parametrize("after_a_step", [False, True])
@pytest.mark.parametrize("name", ["FTAL", "FTLL", "FixLL"])
def test_pruned_layers_are_trained_and_the_mask_stays(name, after_a_step):
    host = models.wrap(pruned(0.5, after_a_step), image_size=8)
    marked = step(name, host)
    trained = {"FTLL": {"head"}, "FixLL": {"body"}}.get(name, {"body", "head"})
    expected = {n for n in weights.used(host) if n.partition(".")[0] in trained}
    assert moved(host, marked) == expected
    for name, weight in weights.used(marked).items():
        if name.endswith("weight"):
            assert weight.eq(0).float().mean() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("pruned", [(1,), (0,), (0, 1)])
def test_batch_norm_stays_as_it_is_also_where_it_is_pruned(pruned):
    layers = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten()]
    for place in pruned:
        prune.l1_unstructured(layers[place], "weight", 0.5)
    network = nn.Sequential(*layers, nn.Linear(144, 12), nn.Linear(12, 10))
    host = models.wrap(network, image_size=8)
    before = weights.used(host)
    expected = {n for n in before if not n.startswith("body.1.")}
    assert moved(host, step("FTAL", host)) == expected < before.keys()


def test_pruning_by_rows_and_at_random_is_kept_too():
    network = Net()
    prune.ln_structured(network.hidden, "weight", 0.5, n=2, dim=0)
    prune.random_unstructured(network.convolution, "bias", 2)
    prune.random_unstructured(network.hidden, "weight", 0.2)  # a second time
    images = torch.rand(3, 1, 8, 8)
    expected = network(images)
    model = models.wrap(network, image_size=8)
    assert torch.allclose(model(images), expected, atol=1e-6)
    marked = step("FTAL", model)
    zero = weights.used(model)["body.hidden.weight"] == 0
    assert weights.used(marked)["body.hidden.weight"][zero].eq(0).all()
    assert weights.used(marked)["body.convolution.bias"].eq(0).sum() == 2


def test_twl_is_of_the_weights_that_are_used():
    networks = pruned(0.1), pruned(0.6)
    split = fl.data.Split(torch.rand(30, 1, 8, 8), torch.arange(30) % 10)
    report = fl.compare(*(models.wrap(n, image_size=8) for n in networks), split)
    layers = ("convolution", "hidden", "head")
    pairs = [[getattr(n, layer).weight for n in networks] for layer in layers]
    by_hand = sum((a - b).square().sum().item() for a, b in pairs)
    assert by_hand > 1e-3
    assert report.twl == pytest.approx(by_hand, rel=1e-4)
    assert sum(report.parts("twl").values()) == pytest.approx(by_hand, rel=1e-4)
    dense = models.wrap(Net(), image_size=8)
    assert fl.compare(dense, models.wrap(networks[1], image_size=8), split).twl > 0


def test_a_classifier_that_is_pruned_by_hooks_is_compared_by_its_weights():
    host = models.wrap(Net(), image_size=8).eval()
    other = models.wrap(Net(), image_size=8).eval()
    other.load_state_dict(host.state_dict())
    prune.l1_unstructured(other.head, "weight", 0.5)
    split = fl.data.Split(torch.rand(30, 1, 8, 8), torch.arange(30) % 10)
    report = fl.compare(host, other, split)
    assert report.twl == pytest.approx(report.lp, rel=1e-4)
    assert report.twl > 0


def computed():
    torch.manual_seed(0)
    from torch.nn.utils import parametrizations as p

    for add in (p.spectral_norm, p.weight_norm):
        network = Net()
        for layer in (network.convolution, network.hidden, network.head):
            add(layer)
        yield network
    network = Net()
    p.orthogonal(network.head)
    yield network


@pytest.mark.parametrize("place", range(3))
@pytest.mark.parametrize("name", ["FTAL", "FTLL", "FixLL"])
def test_the_trained_part_is_that_of_layers_whose_weights_are_computed(place, name):
    network = next(itertools.islice(computed(), place, None))
    host = models.wrap(network, image_size=8).eval()
    marked = step(name, host)
    trained = {"FTLL": {"head"}, "FixLL": {"body"}}.get(name, {"body", "head"})
    expected = {n for n in weights.used(host) if n.partition(".")[0] in trained}
    assert moved(host, marked) == expected
    again = models.fingerprint(marked), models.fingerprint(host)
    assert again[0] != again[1]


def test_quiet_directions_are_of_the_layer_whose_weight_is_computed():
    images = torch.rand(20, 1, 8, 8)
    plain, *hosts = (models.wrap(n, image_size=8) for n in (Net(), *computed()))
    expected = projections(plain, images, 0.03)
    for host in hosts[:2]:  # those of an orthogonal head have plain bodies
        moves = projections(host, images, 0.03)
        layers = [(m.body.convolution, m.body.hidden) for m in (plain, host)]
        assert {*moves} == {weights.stored(layer) for layer in layers[1]}
        first, same = (weights.stored(pair[0]) for pair in layers)  # of alike inputs
        assert torch.equal(moves[same], expected[first])
