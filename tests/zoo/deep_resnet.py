"""A residual network of any depth: a thousand blocks unless it is told otherwise."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Block(nn.Module):
    """Two 3x3 convolutions before which norm and activation stand (He et al., 2016)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(N, width, H, W) to the same."""
        y = self.conv1(self.relu(self.norm1(x)))
        return x + self.conv2(self.relu(self.norm2(y)))


class DeepResNet(nn.Module):
    """Three groups of blocks, the later two at half the size and twice the width."""

    def __init__(self, blocks: int = 1000, width: int = 16, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1, bias=False)
        each = blocks // 3
        counts = (blocks - 2 * each, each, each)
        self.group1, self.group2, self.group3 = (
            nn.Sequential(*(Block(width << index) for _ in range(count)))
            for index, count in enumerate(counts)
        )
        self.down1 = nn.Conv2d(width, 2 * width, 1, stride=2, bias=False)
        self.down2 = nn.Conv2d(2 * width, 4 * width, 1, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(4 * width)
        self.classifier = nn.Linear(4 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, classes)."""
        x = self.group1(self.stem(x))
        x = self.group2(self.down1(x))
        x = self.group3(self.down2(x))
        return self.classifier(self.norm(x).relu().mean((2, 3)))


def deep_resnet(blocks: int = 1000, width: int = 16, classes: int = 10) -> DeepResNet:
    """The network, with random weights."""
    return DeepResNet(blocks, width, classes)


def example_inputs() -> tuple[Tensor, ...]:
    """Two images of 32 x 32."""
    return (torch.zeros(2, 3, 32, 32),)
