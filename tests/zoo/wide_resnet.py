"""Wide residual networks for 32 x 32 images (Zagoruyko & Komodakis, 2016, arXiv 1605.07146).

WRN-d-k has three groups of (d - 4) / 6 pre-activation blocks of two 3 x 3 convolutions; their
widths are 16k, 32k and 64k channels. WRN-28-10 with ten classes has 36,479,194 parameters.
"""

import torch
from torch import nn
from torch.nn import functional as F


class BasicBlock(nn.Module):
    """BN-ReLU-conv twice; where the shape changes, the shortcut is a 1 x 1 convolution."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        if stride == 1 and in_channels == out_channels:
            self.shortcut = None
        else:
            self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        activated = F.relu(self.bn1(x))
        residual = x if self.shortcut is None else self.shortcut(activated)
        out = self.conv1(activated)
        out = self.conv2(F.relu(self.bn2(out)))
        return out + residual


def group(blocks: int, in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    """``blocks`` blocks, of which the first changes width and resolution."""
    first = BasicBlock(in_channels, out_channels, stride)
    return nn.Sequential(
        first, *(BasicBlock(out_channels, out_channels, 1) for _ in range(blocks - 1))
    )


class WideResNet(nn.Module):
    """Images (B, 3, 32, 32) to logits (B, num_classes)."""

    def __init__(self, depth: int, widen_factor: int, num_classes: int) -> None:
        super().__init__()
        blocks, rest = divmod(depth - 4, 6)
        if rest or blocks < 1:
            raise ValueError(f"depth must be 6n + 4 with n >= 1, not {depth}")
        widths = [16 * widen_factor, 32 * widen_factor, 64 * widen_factor]
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.group1 = group(blocks, 16, widths[0], stride=1)
        self.group2 = group(blocks, widths[0], widths[1], stride=2)
        self.group3 = group(blocks, widths[1], widths[2], stride=2)
        self.bn = nn.BatchNorm2d(widths[2])
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(widths[2], num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv1(x)
        x = self.group1(x)
        x = self.group2(x)
        x = self.group3(x)
        x = self.pool(F.relu(self.bn(x)))
        return self.fc(torch.flatten(x, 1))


def wide_resnet(depth: int = 16, widen_factor: int = 2, num_classes: int = 10) -> WideResNet:
    return WideResNet(depth, widen_factor, num_classes)


def example_inputs() -> tuple[torch.Tensor, ...]:
    return (torch.zeros(2, 3, 32, 32),)
