"""Folding BatchNorm changes no number and no gradient, and is left where it would."""

import copy

import pytest
import torch
import torchvision
from torch import nn

import fidlib as fl
from fidlib.folding import fold

IMAGES = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def lived_in(network):
    """A classifier whose BatchNorm has statistics and parameters of its own."""
    torch.manual_seed(0)
    model = fl.models.wrap(network, num_classes=10)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            if module.affine:
                module.weight.data.uniform_(0.5, 2)
                module.bias.data.normal_()
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return model.eval()


NETWORKS = {
    "resnet18": lambda: fl.MODELS["resnet18"](10, 8),
    "with bias": lambda: nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8, affine=False),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 10),
    ),
    "mobilenet": lambda: torchvision.models.mobilenet_v3_small(num_classes=10),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_folded_body_has_the_same_features_and_gradients(name):
    body = lived_in(NETWORKS[name]()).body.double()
    images = IMAGES.double()
    folded = fold(body, images)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    torch.testing.assert_close(folded(images), body(images))
    layers = [m for m in body.modules() if isinstance(m, nn.Conv2d)]
    parameters = [p for layer in layers for p in layer.parameters()]
    expected = torch.autograd.grad(body(images).square().mean(), parameters)
    found = torch.autograd.grad(folded(images).square().mean(), parameters)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_training_the_folded_trains_the_body():
    body = lived_in(NETWORKS["resnet18"]()).body
    before = copy.deepcopy(body.state_dict())
    folded = fold(body, IMAGES)
    folded(IMAGES).sum().backward()
    torch.optim.SGD(body.parameters(), 1e-3).step()
    torch.testing.assert_close(folded(IMAGES), body(IMAGES), rtol=1e-3, atol=1e-3)
    assert not torch.equal(before["conv1.weight"], body.conv1.weight)
    assert list(body.state_dict()) == list(before)


class Twice(nn.Module):
    """The convolution's output goes to BatchNorm, and around it."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 10)

    def forward(self, x):
        x = self.conv(x)
        return self.head((x + self.norm(x)).mean((2, 3)))


def test_a_convolution_that_others_read_is_left_alone():
    body = lived_in(Twice()).body
    assert fold(body, IMAGES) is body


class Shared(nn.Module):
    """One convolution and one BatchNorm, called twice."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.head = nn.Linear(3, 10)

    def forward(self, x):
        return self.head(self.norm(self.conv(self.norm(self.conv(x)))).mean((2, 3)))


class Forked(nn.Module):
    """One convolution, two BatchNorms that read it."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.one, self.two = nn.BatchNorm2d(8), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 10)

    def forward(self, x):
        x = self.conv(x)
        return self.head((self.one(x) * self.two(x)).mean((2, 3)))


class Reads(nn.Module):
    """Asks its convolution for the weight's type, as CLIP's ResNet does."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 10)

    def forward(self, x):
        x = self.norm(self.conv(x.type(self.conv.weight.dtype)))
        return self.head(x.mean((2, 3)))


def test_layers_that_are_read_or_called_twice_are_left_alone():
    for network in (Shared(), Forked(), Reads()):
        body = lived_in(network).body
        assert fold(body, IMAGES) is body


def test_batchnorm_without_statistics_is_left_alone():
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8, track_running_stats=False),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 10),
    )
    body = fl.models.wrap(network).eval().body
    assert fold(body, IMAGES) is body


def test_without_fixed_batchnorm_there_is_nothing_to_fold():
    body = lived_in(NETWORKS["resnet18"]()).body.train()
    assert fold(body, IMAGES) is body
    plain = lived_in(torchvision.models.convnext_tiny(num_classes=10)).body
    assert fold(plain, IMAGES) is plain
