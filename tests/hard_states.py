"""Small models with modes, buffers and parameters that are hard to capture; they join the table."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from hard_models import Masked, case

# --------------------------------------------------------------------------- modes


@torch.fx.wrap
def drop_rows(x, rate, training):
    """Stochastic depth, as libraries write it: nothing is drawn in evaluation."""
    if not training or rate == 0.0:
        return x
    noise = torch.empty([x.shape[0]] + [1] * (x.ndim - 1), dtype=x.dtype, device=x.device)
    return x * noise.bernoulli_(1.0 - rate).div_(1.0 - rate)


class DropRows(nn.Module):
    def __init__(self, rate):
        super().__init__()
        self.rate = rate

    def forward(self, x):
        return drop_rows(x, self.rate, self.training)


@case((3, 4))
class StochasticDepth(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
        self.drops = nn.ModuleList(DropRows(0.2 * i) for i in range(3))

    def forward(self, x):
        for layer, drop in zip(self.layers, self.drops, strict=True):
            x = x + drop(F.relu(layer(x)))
        return x


@case((3, 4))
class FunctionalDropout(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        x = F.dropout(self.fc(x), 0.5, training=self.training)
        return F.dropout(x, 0.25, self.training)


@case((3, 4))
class AuxiliaryInTraining(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.auxiliary = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        main = self.fc(x)
        if self.training:
            return main, self.auxiliary(x)
        return main


@case((4, 3, 6, 6))
class FrozenMode(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x):
        return F.relu(self.norm(self.conv(x)), inplace=True).mean((2, 3))


# --------------------------------------------------------------------------- tensors of their own


@case((2, 4), name="bare_parameters")
class Bare(nn.Module):
    def __init__(self):
        super().__init__()
        self.gain, self.scalar = nn.Parameter(torch.rand(4)), nn.Parameter(torch.tensor(0.5))
        self.frozen = nn.Parameter(torch.randn(4, 4), requires_grad=False)
        self.projection = nn.Parameter(torch.randn(4, 4) * 0.2)

    def forward(self, x):
        return F.linear(x * self.gain, self.projection) @ self.frozen + self.scalar


@case((2, 4))
class ReadFromChild(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.deep = nn.Linear(4, 4), nn.ModuleList([Masked()])
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x):
        x = F.linear(x, self.fc.weight.t() * 2, self.deep[0].fc.bias)
        return x @ self.attention.out_proj.weight


@case((2, 6), name="buffers")
class Buffers(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("table", torch.randn(6).round(decimals=2))
        self.register_buffer("mask", torch.full((6, 6), -math.inf).triu(1), persistent=False)
        self.register_buffer("index", torch.arange(6).flip(0), persistent=False)
        self.register_buffer("calls", torch.tensor(0))
        self.register_buffer("kept", None)
        self.plain = torch.linspace(0, 1, 6)
        self.fc = nn.Linear(6, 6)

    def forward(self, x):
        x = (self.fc(x) + self.table)[:, self.index] * self.plain
        return (x.unsqueeze(1) + self.mask).softmax(-1) + self.calls


@case((2, 4))
class MadeInForward(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        weights = torch.tensor([1.0, 2.0, 3.0, 4.0])
        places = torch.arange(x.shape[1], device=x.device)
        return self.fc(x) * weights + places.to(x.dtype) + torch.ones(4, dtype=x.dtype)


@case((2, 4))
class NamedParameters(nn.Module):
    def __init__(self):
        super().__init__()
        self.named = nn.ParameterDict({"shift": nn.Parameter(torch.rand(4))})
        self.holder = Constant()

    def forward(self, x):
        return self.holder(x) + self.named["shift"] - self.holder.table


class Constant(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = torch.tensor([0.5, 1.5, 2.5, 4.0])

    def forward(self, x):
        return x / 2
