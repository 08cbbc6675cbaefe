"""Models that symbolic tracing cannot capture, or captures wrongly.

``CASES`` is the table: name → :class:`Case`. Those that are about calls, between modules and of the
model itself, are in recorded_calls.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

CASES: dict[str, Case] = {}


@dataclass(frozen=True, slots=True)
class Case:
    """A factory of the model, and of its inputs for a batch and another size.

    Inputs are by position or by name. ``sizes`` are those that the model takes, the first one that
    of the example. ``recorded`` are the classes that a recorded run captures; a symbolic trace
    captures the others.
    """

    make: Callable[[], nn.Module]
    inputs: Callable[[int, int], tuple[Any, ...] | Mapping[str, Any]]
    sizes: tuple[int, ...]
    recorded: frozenset[str]


def case(inputs, *, sizes=(3,), recorded=None, name=None, **arguments):
    """Add a class or function to the table, called with ``arguments``."""

    def add(made):
        classes = frozenset([made.__name__] if recorded is None else recorded)
        CASES[name or made.__name__] = Case(lambda: made(**arguments), inputs, sizes, classes)
        return made

    return add


def rows(batch, _size):
    return (torch.randn(batch, 4),)


def sequences(batch, size):
    return (torch.randn(batch, size, 4),)


def images(batch, size):
    return (torch.randn(batch, 4, size, size + 1),)


SHIFT = torch.linspace(-1.0, 1.0, 4)


# --------------------------------------------------------------------------- sizes


@case(sequences, sizes=(3, 5))
class BranchOnShape(nn.Module):
    """Goes one of two ways by a size, and computes with sizes."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        if x.shape[-1] != 4:
            raise ValueError("width")
        batch, length, width = x.shape
        heads = self.fc(x).view(batch, length, 2, width // 2).transpose(1, 2)
        return heads.reshape(batch, length * width) * (length**-0.5)


@case(images, sizes=(4, 6))
class Windows(nn.Module):
    """Cuts an image in windows, and brings it back to its size."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)

    def forward(self, x):
        batch, channels, height, width = x.size()
        if height % 2:
            raise ValueError("odd")
        x = F.pad(self.conv(x), (0, width % 2))
        x = x.unflatten(2, (height // 2, 2)).unflatten(4, (-1, 2)).mean((3, 5))
        assert x.shape == (batch, channels, height // 2, -(-width // 2))
        x = F.interpolate(x, size=(height, width)) / (height * width)
        return x.flatten(2) * x.numel() / len(x), x.new_zeros(x.shape[2:])


@case(sequences)
class LoopOverRows(nn.Module):
    """Iterates over a tensor, and over layers that it picks by number."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))

    def forward(self, x):
        first, second = x.unbind(1)[:2]
        for index in range(3):
            first = self.layers[index](first) + second
        return sum(row for row in first.t())


@case(rows)
class Wide(nn.Module):
    """A number made from sizes by a function that Python has for numbers alone."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        scale = 1 / math.sqrt(x.shape[-1]) if x.shape[-1] > 2 else 1.0
        pair = torch.split(self.fc(x), int(x.shape[-1] / 2), dim=-1)
        return pair[0] * scale + pair[1].roll(1, -1)


# --------------------------------------------------------------------------- values


@case(rows)
class Checks(nn.Module):
    """Asks whether its argument is a tensor: a proxy is none, so a symbolic trace goes wrong."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        x = self.fc(x)
        return x * 2 if isinstance(x, torch.Tensor) else x


@case(rows)
class InPlace(nn.Module):
    """Changes tensors in place, through views and under an index."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        y = self.fc(x).clone()
        y += x
        y[:, 0] = 0
        y.mul_(2).clamp_(min=-1)
        if y.dim() == 2:
            y[:, 1:3] *= torch.arange(2, device=y.device) + 1
        return y.masked_fill_(y > 1.5, 1.5)


@case(rows, recorded=())
class Constant(nn.Module):
    """Reads a global tensor, and makes others from sizes and data types."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        if x.dtype is torch.int64:
            x = x.float()
        position = torch.arange(x.shape[0], dtype=x.dtype, device=x.device)
        return self.fc(x) + SHIFT + position[:, None] + torch.tensor([1.0, 2.0, 3.0, 4.0])


@case(rows)
class Globals(nn.Module):
    """Reads a global tensor twice, and one that it makes."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        if len(x) == 0:
            return x
        return (self.fc(x) + SHIFT) * torch.tensor([1.0, 2.0, 3.0, 4.0], device=x.device) - SHIFT


@case(rows)
class Stops(nn.Module):
    """Keeps gradients from a branch, and drops more in training."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        if len(x) == 0:
            return x
        y = self.fc(x)
        with torch.no_grad():
            target = y.square().mean()
        return F.dropout(y, 0.5 if self.training else 0.1, training=True) / target


@case(sequences, sizes=(3, 5))
class Norm(nn.Module):
    """Computes in float32 and goes back to the data type that it was given."""

    def __init__(self):
        super().__init__()
        self.weight, self.fc = nn.Parameter(torch.rand(4) + 0.5), nn.Linear(4, 4)

    def forward(self, x):
        if x.shape[-1] != len(self.weight):
            raise ValueError("width")
        given = x.dtype
        x = x.to(torch.float32)
        x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)
        x = self.fc(self.weight * x.to(given))
        ramp = torch.arange(x.shape[1], dtype=x.dtype, device=x.device)[:, None]
        return x + ramp + torch.zeros(4, dtype=given)


# --------------------------------------------------------------------------- modes


@case(rows)
class Auxiliary(nn.Module):
    """Returns more in training than in evaluation, and drops whole rows there."""

    def __init__(self):
        super().__init__()
        self.fc, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        if x.dim() != 2:
            raise ValueError("rows")
        y = self.fc(x)
        if not self.training:
            return {"out": y}
        keep = torch.empty(x.shape[0], 1, device=x.device).bernoulli_(0.7)
        return {"out": y * keep, "aux": self.head(y)}


@case(rows)
class Averages(nn.Module):
    """Counts in one buffer and replaces another."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("average", torch.zeros(4))

    def forward(self, x):
        x = self.fc(x)
        if self.training and x.shape[0] > 1:
            self.steps += 1
            self.average = self.average * 0.9 + x.detach().mean(0) * 0.1
        return x - self.average


# --------------------------------------------------------------------------- loops


@case(rows)
class OneLayer(nn.Module):
    """The same layer over and over."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        for _ in range(x.shape[1] + 1):
            x = torch.tanh(self.layer(x)) + x
        return x


@case(rows)
class Parts(nn.Module):
    """Loops over parts of a list, the middle one in a module made on the fly."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(8))
        self.stages = nn.Sequential(*(nn.Linear(4, 4) for _ in range(4)))

    def forward(self, x):
        skip = self.layers[0](x)
        for layer in self.layers[1:5]:
            x = layer(x) * skip if x.shape[-1] == 4 else x
        for layer in self.layers[5:]:
            x = layer(x)
        return self.stages[1:3](x)
