"""A random start is drawn as building the network anew would draw it, or refused."""

import pytest
import torch
import torchvision
from torch import nn

from fidlib import models
from fidlib.runs.keys import stream


def fresh(network, size=8):
    return models.fresh(models.wrap(network, image_size=size), stream(0))


class Drawn(nn.Module):
    """A block that says how the weights of its layers are drawn."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(1, 4, 3)
        self.reset_parameters()

    def reset_parameters(self):
        nn.init.constant_(self.layer.weight, 0.25)

    def forward(self, x):
        return self.layer(x)


class Plain(nn.Module):
    """As tutorials write it: nothing is drawn but by the layers."""

    def __init__(self, width=4):
        super(Plain, self).__init__()  # noqa: UP008
        self.width = width
        self.layer = nn.Conv2d(1, self.width, 3)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x):
        return nn.functional.relu_(self.norm(self.layer(x)))


def ending(block):
    return nn.Sequential(block, nn.Flatten(), nn.Linear(144, 10))


def test_a_block_draws_its_layers_weights_after_them():
    assert (fresh(ending(Drawn())).body[0].layer.weight == 0.25).all()
    assert (fresh(ending(nn.Sequential(Drawn()))).body[0][0].layer.weight == 0.25).all()


def test_a_block_of_plain_layers_is_drawn_as_they_are():
    network = ending(Plain())
    nn.init.constant_(network[0].layer.weight, 9.0)
    found = fresh(network).body[0].layer.weight
    assert found.abs().max() <= 1 / 3  # 1 / sqrt(fan in), as nn.Conv2d draws
    assert found.std() > 0.1


def test_attention_is_drawn_as_pytorch_builds_it():
    class Attending(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x):
            x = x[:, 0]
            return self.attention(x, x, x)[0].flatten(1)

    network = nn.Sequential(Attending(), nn.Linear(64, 10))
    nn.init.constant_(network[0].attention.in_proj_weight, 9.0)
    found = fresh(network).body[0].attention.in_proj_weight
    assert found.abs().max() <= (6 / 32) ** 0.5 + 1e-6
    assert found.std() > 0.1


class ByInit(Plain):
    def __init__(self):
        super().__init__()
        nn.init.kaiming_normal_(self.layer.weight)


class ByApply(Plain):
    def __init__(self):
        super().__init__()
        self.apply(lambda m: None)


class InPlace(Plain):
    def __init__(self):
        super().__init__()
        with torch.no_grad():
            self.layer.weight *= 0.1


def helper(network):
    return network


class ByHelper(Plain):
    def __init__(self):
        super().__init__()
        helper(self)


class ByMethod(Plain):
    def __init__(self):
        super().__init__()
        self.start()

    def start(self):
        for parameter in self.parameters():
            parameter.data.zero_()


class Heir(ByInit):
    """What a class draws, its heirs draw too."""


@pytest.mark.parametrize("kind", [ByInit, ByApply, InPlace, ByHelper, ByMethod, Heir])
def test_a_block_that_may_draw_in_building_is_refused(kind):
    with pytest.raises(ValueError, match=r"no reset_parameters.*fidlib.NETWORKS"):
        fresh(ending(kind()))


def test_networks_of_torchvision_are_refused_not_drawn_otherwise():
    for name in ("resnet18", "densenet121"):
        with pytest.raises(ValueError, match="cannot start at random"):
            fresh(getattr(torchvision.models, name)(num_classes=10), 64)


def test_computed_weights_are_refused():
    network = ending(Plain())
    nn.utils.parametrizations.spectral_norm(network[0].layer)
    with pytest.raises(ValueError, match="cannot start at random"):
        fresh(network)


def test_a_network_that_fidlib_builds_is_built_anew(monkeypatch):
    import fidlib as fl

    monkeypatch.setitem(fl.NETWORKS, "mine", lambda k, d: ending(ByInit()))
    told = {"num_classes": 10, "feature_dim": 144, "mean": 0.0, "std": 1.0}
    model = models.build("mine", **told, image_size=8)
    found = models.fresh(model, stream(0)).body[0].layer.weight
    assert found.std() > 0.35  # sqrt(2 / 9), as kaiming_normal_ draws
