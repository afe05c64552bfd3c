"""Little networks and image sets, for tests that need no training."""

import torch
from matplotlib.figure import Figure

import fidlib as fl


def linear(seed, size=3, scale=1.0, classes=3):
    """A network whose features are linear in the pixels: 2 x 2 of them."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        body = torch.nn.Linear(4, size)
        body.weight.data *= scale
        layers = (torch.nn.Flatten(), body, torch.nn.Linear(size, classes, bias=False))
        return fl.models.wrap(torch.nn.Sequential(*layers), image_size=2).eval()


def shown(labels, seed=5):
    """Images of 2 x 2 pixels with these labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.as_tensor(labels)
    return fl.data.Split(torch.rand(len(labels), 1, 2, 2, generator=generator), labels)


def layers(classes):
    """What `convolutional` is made of."""
    return torch.nn.Sequential(
        *(torch.nn.Conv2d(1, 8, 3, padding=1), torch.nn.BatchNorm2d(8)),
        *(torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 3, stride=2), torch.nn.ReLU()),
        *(torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten()),
        *(torch.nn.Linear(32, 12), torch.nn.Linear(12, classes, bias=False)),
    )


def convolutional(seed, classes=10):
    """A little convolutional network for images of 8 x 8 pixels."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = layers(classes)
        torch.nn.init.uniform_(network[1].running_mean, -0.3, 0.3)
        torch.nn.init.uniform_(network[1].running_var, 0.5, 2.0)
        return fl.models.wrap(network, mean=(0.3,), std=(0.4,), image_size=8).eval()


def small_figure():
    """A figure of one line."""
    figure = Figure()
    figure.subplots().plot([1, 2])
    return figure
