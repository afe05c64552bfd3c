import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

import fidlib as fl
from fidlib import models
from fidlib.runs.keys import stream

MEAN, STD = (0.3, 0.4, 0.5), (0.2, 0.3, 0.25)


def build(name="resnet18", feature_dim=2, num_classes=10):
    return models.build(
        name, num_classes=num_classes, feature_dim=feature_dim, mean=MEAN, std=STD
    ).eval()


@pytest.mark.parametrize("feature_dim", [2, 64])
def test_resnet18_is_the_papers(feature_dim):
    model = build(feature_dim=feature_dim)
    count = sum(p.numel() for p in model.parameters())
    assert count == 702_374 + (feature_dim - 2) * (128 + 1 + 10)
    assert model.head.bias is None
    images = torch.rand(3, 3, 20, 16)
    assert model.features(images).shape == (3, feature_dim)
    assert model(images).shape == (3, 10)


def test_wrn28_10_is_the_usual_one():
    model = build("wrn28_10", feature_dim=640, num_classes=100)
    # Zagoruyko and Komodakis give 36.5 M; without the head's 100 biases.
    assert sum(p.numel() for p in model.parameters()) == 36_536_884 - 100
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert len([c for c in convolutions if c.kernel_size == (3, 3)]) == 25
    with torch.no_grad():
        assert model.features(torch.rand(2, 3, 32, 32)).shape == (2, 640)


def test_logits_are_the_head_of_the_features():
    model, images = build(feature_dim=5), torch.rand(4, 3, 12, 12)
    expected = model.features(images) @ model.head.weight.T
    assert torch.allclose(model(images), expected)


def test_classifier_normalises_and_repeats_grey():
    model = build()
    grey = torch.randint(0, 256, (4, 1, 12, 12), dtype=torch.uint8)
    pixels = grey.float().expand(-1, 3, -1, -1) / 255
    mean, std = (torch.tensor(v)[:, None, None] for v in (MEAN, STD))
    assert torch.allclose(model.normalise(grey), (pixels - mean) / std)
    assert torch.allclose(model(grey), model(pixels), atol=1e-6)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.rand(3, 12, 12), r"takes \(N, C, H, W\)"),
        (torch.rand(2, 2, 12, 12), "C = 1 or 3"),
        (torch.zeros(2, 3, 12, 12, dtype=torch.int64), "uint8 pixels"),
    ],
)
def test_classifier_refuses_what_cannot_be_images(images, message):
    with pytest.raises(ValueError, match=message):
        build()(images)


@pytest.mark.parametrize(
    ("name", "feature_dim"),
    [("resnet18", 512), ("mobilenet_v3_small", 1024), ("convnext_tiny", 768)],
)
def test_wrap_keeps_torchvisions_networks(name, feature_dim):
    network = getattr(torchvision.models, name)(num_classes=10).eval()
    model = models.wrap(network, num_classes=10, mean=MEAN, std=STD).eval()
    assert model.head.bias is not None
    assert model.feature_dim == feature_dim
    images = torch.rand(2, 3, 64, 64)
    mean, std = (torch.tensor(v)[:, None, None] for v in (MEAN, STD))
    with torch.no_grad():
        expected = network((images - mean) / std)
        assert torch.allclose(model(images), expected, atol=1e-5)
        again = model.head(model.features(images))
    assert torch.allclose(again, expected, atol=1e-5)


def test_wrap_leaves_the_network_as_it_was(network):
    before = [str(network), network.training, network[1].running_mean.clone()]
    models.wrap(network, num_classes=10)
    assert before[:2] == [str(network), network.training]
    assert torch.equal(before[2], network[1].running_mean)


def test_wrap_gives_a_head_of_the_size_asked_for(network):
    assert models.wrap(network).head is not network[-1]
    assert torch.equal(models.wrap(network).head.weight, network[-1].weight)
    assert models.wrap(network, num_classes=4).head.out_features == 4


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            nn.Sequential(nn.Flatten(), nn.Linear(64 * 64, 10), nn.Softmax(1)),
            "softmax",
        ),
        (nn.Sequential(nn.Conv2d(3, 10, 64), nn.Flatten()), "no linear layer"),
        (nn.Linear(3, 10), "no linear layer inside"),
        (
            nn.Sequential(nn.Linear(64, 8), nn.Conv2d(3, 10, (64, 8)), nn.Flatten()),
            "not linear|could not be run",
        ),
        (nn.Sequential(nn.Flatten(), nn.Linear(7, 10)), "image_size="),
        (nn.Sequential(nn.Flatten(), nn.Linear(9, 10)).double(), "are torch.float64"),
    ],
)
def test_wrap_refuses_what_it_cannot_split(wrong, message):
    with pytest.raises(ValueError, match=message):
        models.wrap(wrong, num_classes=10)


def test_wrap_takes_rounding_for_what_it_is():
    # Logits in the hundreds, some of which nearly cancel: rounding is not small beside
    # those. An order of summation of its own comes with the memory format.
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 64, 3, padding=1)]
    layers += [nn.Conv2d(64, 64, 3, padding=1) for _ in range(5)]
    for layer in layers:
        nn.init.kaiming_normal_(layer.weight)
    network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 8 * 8, 1000))
    with torch.no_grad():
        network[-1].weight *= 100
    assert models.wrap(network, image_size=8).head.out_features == 1000


def test_build_names_the_models_there_are():
    with pytest.raises(ValueError, match="use one of resnet18, resnet18_8, wrn28_10"):
        build("resnet19")
    with pytest.raises(ValueError, match="set feature_dim=640"):
        build("wrn28_10", feature_dim=2)


def test_a_model_of_your_own_builds_saves_and_loads(tmp_path, monkeypatch, network):
    monkeypatch.setitem(fl.NETWORKS, "mine", lambda num_classes, feature_dim: network)
    model = models.build("mine", num_classes=10, feature_dim=16, mean=(0,), std=(1,))
    models.save(model, tmp_path / "m.safetensors")
    again = models.load(tmp_path / "m.safetensors")
    images = torch.rand(2, 1, 12, 12)
    assert torch.equal(again(images), model.eval()(images))


def test_save_and_load_give_the_same_bytes(tmp_path):
    model, images = build(feature_dim=3), torch.rand(2, 3, 12, 12)
    models.save(model, tmp_path / "a.safetensors")
    again = models.load(tmp_path / "a.safetensors")
    assert torch.equal(again(images), model(images))
    assert torch.equal(again.mean, model.mean)
    models.save(again, tmp_path / "b.safetensors")
    first, second = ((tmp_path / f"{n}.safetensors").read_bytes() for n in "ab")
    assert first == second


def test_load_needs_the_architecture_of_a_wrapped_network(tmp_path, network):
    model = models.wrap(network).eval()
    models.save(model, tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match="like="):
        models.load(tmp_path / "m.safetensors")
    images = torch.rand(2, 1, 12, 12)
    again = models.load(tmp_path / "m.safetensors", like=models.wrap(network))
    assert torch.equal(again(images), model(images))
    with pytest.raises(ValueError, match="another architecture"):
        models.load(tmp_path / "m.safetensors", like=build())


@pytest.mark.parametrize("keep", [0, 5, 200, -100])
def test_load_says_that_a_truncated_file_is_damaged(tmp_path, keep):
    path = tmp_path / "m.safetensors"
    models.save(build(), path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"is damaged or no \.safetensors"):
        models.load(path)


@pytest.mark.parametrize("spec", ["{}", '"x"', '{"model": "resnet18"}'])
def test_load_says_that_a_file_does_not_describe_its_network(tmp_path, spec):
    path = tmp_path / "m.safetensors"
    state = {name: values.contiguous() for name, values in build().state_dict().items()}
    save_file(state, path, {"fidlib": spec})
    with pytest.raises(ValueError, match="does not say what network it holds"):
        models.load(path)


def test_load_authors_reads_their_names_and_says_what_is_wrong(tmp_path):
    network = fl.networks.ResNet18(10, 2).eval()
    path = tmp_path / "host.pt"
    torch.save(network.state_dict(), path)
    model = models.load_authors(path)
    pixels = torch.rand(2, 1, 28, 28)
    seen = (pixels.expand(-1, 3, -1, -1) - 0.1307) / 0.3081
    assert torch.allclose(model(pixels), network(seen), atol=1e-5)
    colour = torch.rand(2, 3, 32, 32)
    mean, std = (
        torch.tensor(v)[:, None, None] for v in fl.data.NORMALISATION["cifar10"]
    )
    model = models.load_authors(path, dataset="cifar10")
    assert torch.allclose(model(colour), network((colour - mean) / std), atol=1e-5)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match="is damaged"):
        models.load_authors(path)
    with pytest.raises(FileNotFoundError, match="no model at"):
        models.load_authors(tmp_path / "none.pt")
    with pytest.raises(ValueError, match="not on 'digits': say which"):
        models.load_authors(path, dataset="digits")


def test_fresh_draws_new_weights_from_its_stream_alone():
    model = build()
    first = models.fresh(model, stream(0, "a"))
    state = torch.manual_seed(99).get_state()
    second = models.fresh(model, stream(0, "a"))
    third = models.fresh(model, stream(1, "a"))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.head.weight, second.head.weight)
    assert not torch.equal(first.head.weight, third.head.weight)
    assert not torch.equal(first.head.weight, model.head.weight)
    assert torch.equal(first.mean, model.mean)


class Drawing(torch.nn.Module):
    """What it draws is in no state dict."""

    def __init__(self, place):
        super().__init__()
        self.layers = torch.nn.Linear(64, 12), torch.nn.Linear(12, 10)
        self.layers = torch.nn.Sequential(*self.layers)
        self.drawn = torch.randn(64)
        if place == "buffer":
            del self.drawn
            self.register_buffer("drawn", torch.randn(64), persistent=False)

    def forward(self, x):
        return self.layers(x.flatten(1) * self.drawn)


@pytest.mark.parametrize("place", ["attribute", "buffer"])
def test_what_weights_alone_do_not_tell_is_not_built_anew(tmp_path, place, monkeypatch):
    monkeypatch.setitem(models.NETWORKS, "mine", lambda k, d: Drawing(place))
    sizes = {"num_classes": 10, "feature_dim": 12, "image_size": 8}
    model = models.build("mine", **sizes, mean=0.5, std=0.5)
    with pytest.raises(ValueError, match="how its weights were drawn"):
        models.fresh(model, stream(0))
    models.save(model, tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match="pass it as"):
        models.load(tmp_path / "m.safetensors")
    again = models.load(tmp_path / "m.safetensors", like=model)
    images = torch.rand(3, 1, 8, 8)
    assert torch.equal(again(images), model.eval()(images))


def swapped(model):
    model.body.body[2] = torch.nn.Tanh()  # for ReLU, of no weights either


def normalised(model):
    torch.nn.utils.parametrizations.spectral_norm(model.head)


@pytest.mark.parametrize("change", [swapped, normalised])
def test_what_was_changed_since_it_was_built_is_not_built_anew(tmp_path, change):
    sizes = {"num_classes": 10, "feature_dim": 2, "image_size": 8}
    model = models.build("smallnet", **sizes, mean=0.5, std=0.5).eval()
    models.save(model, tmp_path / "m.safetensors")
    assert models.load(tmp_path / "m.safetensors").spec == model.spec
    change(model)
    with pytest.raises(ValueError, match="how its weights were drawn"):
        models.fresh(model, stream(0))
    models.save(model, tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match="pass it as"):
        models.load(tmp_path / "m.safetensors")


def test_a_wrapped_network_does_not_say_how_its_weights_are_drawn(network):
    with pytest.raises(ValueError, match="add that function to fidlib"):
        models.fresh(models.wrap(network), stream(0))


@pytest.mark.parametrize("values", [{"mean": (123.7,)}, {"std": 255}, {"mean": -2}])
def test_mean_and_deviation_are_those_of_fractions(values, network):
    with pytest.raises(ValueError, match="divide them by 255"):
        models.wrap(network, **values)


def test_sizes_are_whole_numbers_also_numpys(tmp_path, network):
    sizes = {"num_classes": np.int64(10), "feature_dim": np.int64(2), "mean": 0.5}
    model = models.build("smallnet", **sizes, std=0.5, image_size=np.int64(8))
    models.save(model, tmp_path / "m.safetensors")
    assert models.load(tmp_path / "m.safetensors").spec["image_size"] == 8
    assert models.wrap(network, num_classes=np.int64(7)).num_classes == 7
    for name in ("num_classes", "channels"):
        for odd in (0, -3, 7.0, "7"):
            with pytest.raises(ValueError, match=f"{name} is {odd!r}; pass a whole"):
                models.wrap(network, **{name: odd})
    with pytest.raises(ValueError, match="feature_dim is 2"):
        models.build("smallnet", **sizes | {"feature_dim": 2.5}, std=0.5)


def test_classifier_refuses_a_normalisation_of_other_channels(network):
    with pytest.raises(ValueError, match="pass one value or 1"):
        models.wrap(network, mean=(0, 0, 0), std=(1, 1, 1))
    with pytest.raises(ValueError, match="must be positive"):
        models.wrap(network, std=(0.0,))


def test_outputs_do_not_depend_on_the_batch_size(network):
    model = models.wrap(network)
    images = torch.rand(23, 1, 12, 12)
    whole = models.outputs(model, images)
    parts = models.outputs(model, images, batch_size=5)
    assert torch.allclose(whole.features, parts.features, atol=1e-6)
    assert torch.allclose(whole.logits, model.head(whole.features), atol=1e-6)


def test_autocast_around_changes_no_number(network):
    model, images = models.wrap(network).eval(), torch.rand(30, 1, 12, 12)
    split = fl.data.Split(images, torch.arange(30) % 10)
    other = models.wrap(network, std=0.5)
    expected = models.outputs(model, images), fl.compare(model, other, split)
    with torch.autocast("cpu", torch.bfloat16):
        answers = models.outputs(model, images), fl.compare(model, other, split)
    assert torch.equal(answers[0].logits, expected[0].logits)
    assert answers[1] == expected[1]


def test_build_refuses_another_default_type():
    try:
        torch.set_default_dtype(torch.float64)
        with pytest.raises(ValueError, match="default type is"):
            build("smallnet")
    finally:
        torch.set_default_dtype(torch.float32)


def test_outputs_are_of_the_model_at_rest_and_leave_it_training(network):
    model = models.wrap(network).train()
    model.body[1].eval()  # as one that fine-tunes with BatchNorm frozen does
    images = torch.rand(23, 1, 12, 12)
    logits = models.outputs(model, images).logits
    assert model.training
    assert not model.body[1].training
    assert model.body[1].num_batches_tracked == 0
    assert torch.allclose(logits, model.eval()(images), atol=1e-6)


def test_build_refuses_a_network_of_other_features(monkeypatch, network):
    monkeypatch.setitem(fl.NETWORKS, "mine", lambda num_classes, feature_dim: network)
    with pytest.raises(ValueError, match="mine has 16 features, feature_dim is 2: set"):
        models.build("mine", num_classes=10, feature_dim=2, mean=(0,), std=(1,))


def test_fingerprint_tells_weights_buffers_and_layers_apart(network):
    def wrapped(change=None):
        model = models.wrap(network, image_size=8)
        if change is not None:
            change(model)
        return models.fingerprint(model)

    @torch.no_grad()
    def weight(model):
        model.head.weight[0, 0] += 1e-6

    def buffer(model):
        model.body[1].running_mean[0] += 1

    def mean(model):
        model.mean += 1

    def layer(model):
        model.body[2] = nn.SiLU()

    assert wrapped() == wrapped()
    prints = {wrapped(change) for change in (None, weight, buffer, mean, layer)}
    assert len(prints) == 5
