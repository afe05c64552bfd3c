"""Architectures by name: the paper's ResNet18 and WRN28-10, and smaller ones.

Each takes normalised images and ends in a linear layer, the head.
"""

import itertools
from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F


class _Block(nn.Module):
    """Basic residual block of ResNet18, with the names of the authors' files."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module = nn.Identity()
        if inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(y)) + self.downsample(x), inplace=True)


class ResNet18(nn.Module):
    """The paper's narrow ResNet18: 16 to 128 channels, every stage at stride 1.

    Args:
        num_classes: K, the outputs of the head.
        feature_dim: D, the outputs of the layer before the head (the paper's: 2, 64).
        width: Channels of the first stage; each stage after it has twice as many.
    """

    def __init__(self, num_classes: int, feature_dim: int, width: int = 16) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        channels = [width, width, 2 * width, 4 * width, 8 * width]
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            nn.Sequential(_Block(inputs, outputs), _Block(outputs, outputs))
            for inputs, outputs in itertools.pairwise(channels)
        )
        self.fc = nn.Linear(channels[-1], feature_dim)
        self.out = nn.Linear(feature_dim, num_classes, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images `(N, 3, H, W)` to logits `(N, K)`."""
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.out(self.fc(x.mean((2, 3))))


def resnet18_8(num_classes: int, feature_dim: int) -> ResNet18:
    """The paper's ResNet18 at half its width, 8 to 64 channels, for small images."""
    return ResNet18(num_classes, feature_dim, width=8)


class _WideBlock(nn.Module):
    """Pre-activation block of a wide residual network."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.shortcut: nn.Module | None = None
        if inputs != outputs:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(x))
        residual = x if self.shortcut is None else self.shortcut(y)
        return self.conv2(F.relu(self.bn2(self.conv1(y)))) + residual


class WideResNet28x10(nn.Module):
    """WRN28-10 (Zagoruyko and Komodakis 2016), head without bias, D = 640.

    Args:
        num_classes: K, the outputs of the head.
        feature_dim: Must be 640, which the architecture fixes.
    """

    def __init__(self, num_classes: int, feature_dim: int = 640) -> None:
        super().__init__()
        if feature_dim != 640:
            raise ValueError(
                f"feature_dim is {feature_dim}; wrn28_10 has 640 features: set "
                "feature_dim=640."
            )
        self.conv = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        blocks, width = [], 16
        for group, outputs in enumerate((160, 320, 640)):
            for place in range(4):
                stride = 2 if group and not place else 1
                blocks.append(_WideBlock(width, outputs, stride))
                width = outputs
        self.blocks = nn.Sequential(*blocks)
        self.bn = nn.BatchNorm2d(width)
        self.out = nn.Linear(width, num_classes, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images `(N, 3, H, W)` to logits `(N, K)`."""
        x = F.relu(self.bn(self.blocks(self.conv(x))))
        return self.out(x.mean((2, 3)))


class SmallNet(nn.Module):
    """For quick studies: three convolutions of stride 2, 32 to 128 channels.

    Args:
        num_classes: K, the outputs of the head.
        feature_dim: D, the inputs of the head.
    """

    def __init__(self, num_classes: int, feature_dim: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in ((3, 32), (32, 64), (64, 128)):
            layers += [
                nn.Conv2d(inputs, outputs, 3, 2, padding=1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(inplace=True),
            ]
        pool = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        self.body = nn.Sequential(*layers, *pool, nn.Linear(128, feature_dim))
        self.out = nn.Linear(feature_dim, num_classes, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images `(N, 3, H, W)` to logits `(N, K)`."""
        return self.out(self.body(x))


NETWORKS: dict[str, Callable[[int, int], nn.Module]] = {
    "resnet18": ResNet18,
    "resnet18_8": resnet18_8,
    "wrn28_10": WideResNet28x10,
    "smallnet": SmallNet,
}
"""Name -> `(num_classes, feature_dim)` -> network that ends in a linear layer."""


def find(name: str) -> Callable[[int, int], nn.Module]:
    """The builder of that name in `NETWORKS`.

    Raises:
        ValueError: If there is none.
    """
    if name not in NETWORKS:
        raise ValueError(
            f"unknown network {name!r}; use one of {', '.join(NETWORKS)}, or add your "
            "own to fidlib.NETWORKS."
        )
    return NETWORKS[name]
