"""A multilayer perceptron: the smallest model with layers that repeat."""

import torch
from torch import nn


class MLP(nn.Sequential):
    """Images (B, 1, 28, 28) to logits (B, classes)."""

    def __init__(self, width: int, hidden: int, classes: int) -> None:
        layers: list[nn.Module] = [nn.Flatten(), nn.Linear(28 * 28, width), nn.ReLU()]
        for _ in range(hidden):
            layers += [nn.Linear(width, width), nn.ReLU()]
        super().__init__(*layers, nn.Linear(width, classes))


def mlp(width: int = 256, hidden: int = 3, classes: int = 10) -> MLP:
    return MLP(width, hidden, classes)


def example_inputs() -> tuple[torch.Tensor, ...]:
    return (torch.zeros(2, 1, 28, 28),)
