"""Densely connected networks for 32 x 32 images (Huang et al., 2017, arXiv 1608.06993).

DenseNet-BC of depth L and growth k has three dense blocks of (L - 4) / 6 layers; each layer reads
all channels before it through a bottleneck of 4k and adds k channels, and half of the channels pass
from one block to the next. Ten classes: 769,162 parameters at L = 100, k = 12; 25,624,430 at
L = 190, k = 40.
"""

import torch
from torch import nn
from torch.nn import functional as F


class DenseLayer(nn.Module):
    """BN-ReLU-conv twice, 1 x 1 and 3 x 3; the result joins the channels that came in."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, 4 * growth, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(4 * growth)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        new = self.conv1(F.relu(self.bn1(x)))
        new = self.conv2(F.relu(self.bn2(new)))
        return torch.cat([x, new], 1)


class Transition(nn.Module):
    """Half of the channels at half of the resolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels)
        self.conv = nn.Conv2d(channels, channels // 2, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(self.conv(F.relu(self.bn(x))), 2)


class DenseNetBC(nn.Module):
    """Images (B, 3, 32, 32) to logits (B, num_classes)."""

    def __init__(self, depth: int, growth: int, num_classes: int) -> None:
        super().__init__()
        layers, rest = divmod(depth - 4, 6)
        if rest or layers < 1:
            raise ValueError(f"depth must be 6n + 4 with n >= 1, not {depth}")
        channels = 2 * growth
        self.conv = nn.Conv2d(3, channels, 3, padding=1, bias=False)
        self.features = nn.Sequential()
        for block in range(3):
            if block > 0:
                self.features.append(Transition(channels))
                channels //= 2
            self.features.append(
                nn.Sequential(*(DenseLayer(channels + n * growth, growth) for n in range(layers)))
            )
            channels += layers * growth
        self.bn = nn.BatchNorm2d(channels)
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn(self.features(self.conv(x))))
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


def densenet_bc(depth: int = 40, growth: int = 12, num_classes: int = 10) -> DenseNetBC:
    return DenseNetBC(depth, growth, num_classes)


def example_inputs() -> tuple[torch.Tensor, ...]:
    return (torch.zeros(2, 3, 32, 32),)
