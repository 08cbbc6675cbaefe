"""Models that hold one kind of parameter each, wide enough that a tenth of them can be planned.

``CASES`` is the table: name → :class:`Case`. Those of torch's layers are in layer_kinds.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

CASES: dict[str, Case] = {}


@dataclass(frozen=True, slots=True)
class Case:
    """A factory of the model, and of its inputs for a batch.

    A ``renormed`` model's forward writes into its weights, which a generated weight is not.
    """

    make: Callable[[], nn.Module]
    inputs: Callable[[int], tuple[torch.Tensor, ...]]
    renormed: bool = False


def case(inputs, *, name=None, renormed=False, **arguments):
    """Add a class or function to the table, called with ``arguments``."""

    def add(made):
        CASES[name or made.__name__] = Case(lambda: made(**arguments), inputs, renormed)
        return made

    return add


def images(*shape):
    return lambda batch: (torch.randn(batch, *shape),)


def ids(length, vocabulary):
    return lambda batch: (torch.randint(0, vocabulary, (batch, length)),)


# --------------------------------------------------------------------------- bare parameters


@case(images(32), name="experts_einsum", call="einsum")
@case(images(32), name="experts_bmm", call="bmm")
@case(images(32), name="experts_indexed", call="index")
class Experts(nn.Module):
    """A mixture of experts in stacks of [experts, out, in]."""

    def __init__(self, call):
        super().__init__()
        self.gate = nn.Linear(32, 4, bias=False)
        self.up = nn.Parameter(torch.randn(4, 48, 32) / 6)
        self.down = nn.Parameter(torch.randn(4, 32, 48) / 7)
        self.call = call

    def forward(self, x):
        share = self.gate(x).softmax(-1)
        if self.call == "einsum":
            hidden = torch.relu(torch.einsum("bi,eoi->beo", x, self.up))
            return torch.einsum("beo,eio,be->bi", hidden, self.down, share)
        if self.call == "bmm":
            hidden = torch.relu(torch.bmm(x.expand(4, -1, -1), self.up.transpose(1, 2)))
            made = torch.bmm(hidden, self.down.transpose(1, 2))
            return (made * share.t()[:, :, None]).sum(0)
        total = torch.zeros_like(x)
        for expert in range(4):
            hidden = torch.relu(F.linear(x, self.up[expert]))
            total = total + F.linear(hidden, self.down[expert]) * share[:, expert, None]
        return total


@case(images(6, 32))
class Bare(nn.Module):
    """Parameters of one and of two axes, a scalar, and one that forward never reads."""

    def __init__(self):
        super().__init__()
        self.position = nn.Parameter(torch.randn(1, 6, 32) * 0.02)
        self.gain, self.scale = nn.Parameter(torch.ones(32)), nn.Parameter(torch.tensor(0.5))
        self.mixing = nn.Parameter(torch.randn(32, 32) / 5)
        self.unused = nn.Parameter(torch.zeros(7))
        self.register_parameter("absent", None)
        self.lazy = None

    def forward(self, x):
        if self.absent is not None or self.lazy is not None:
            return x
        return ((x + self.position) @ self.mixing * self.gain) * self.scale


@case(images(32))
class NamedParameters(nn.Module):
    def __init__(self):
        super().__init__()
        self.weights = nn.ParameterDict(
            {name: nn.Parameter(torch.randn(32, 32) / 5) for name in ("up", "down")}
        )

    def forward(self, x):
        return torch.relu(x @ self.weights["up"]) @ self.weights.down


@case(images(32))
class Frozen(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(32, 32), nn.Linear(32, 32)
        self.first.requires_grad_(False)
        self.fixed = nn.Parameter(torch.randn(32), requires_grad=False)

    def forward(self, x):
        return self.second(torch.relu(self.first(x) + self.fixed))


# --------------------------------------------------------------------------- numbers of other kinds


@case(lambda batch: (torch.randn(batch, 32, dtype=torch.float64),), dtype=torch.float64)
@case(lambda batch: (torch.randn(batch, 32).bfloat16(),), name="bfloat16", dtype=torch.bfloat16)
class Precise(nn.Module):
    def __init__(self, dtype):
        super().__init__()
        self.fc = nn.Linear(32, 32, dtype=dtype)
        self.gain = nn.Parameter(torch.ones(32, dtype=dtype))

    def forward(self, x):
        return self.fc(torch.tanh(self.fc(x))) * self.gain


@case(images(32))
class Complex(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(32, 32)
        self.phase = nn.Parameter(torch.randn(17, dtype=torch.complex64))

    def forward(self, x):
        return torch.fft.irfft(torch.fft.rfft(self.fc(x)) * self.phase, n=32)


@case(images(32))
class SeveralPrecisions(nn.Module):
    """Weights of two dtypes, which may share a bank."""

    def __init__(self):
        super().__init__()
        self.coarse, self.fine = nn.Linear(32, 32, dtype=torch.bfloat16), nn.Linear(32, 32)

    def forward(self, x):
        return self.fine(self.coarse(x.bfloat16()).float())


# --------------------------------------------------------------------------- parametrized


@case(images(32), name="weight_norm", kind="weight_norm")
@case(images(32), name="weight_norm_columns", kind="weight_norm", dim=1)
class Parametrized(nn.Module):
    def __init__(self, kind, **options):
        super().__init__()
        wrap = getattr(nn.utils.parametrizations, kind)
        self.first, self.second = (wrap(nn.Linear(32, 32), **options) for _ in range(2))

    def forward(self, x):
        return self.second(torch.relu(self.first(x)))


@case(images(32, 20), name="hooked_weight_norm", kind="weight_norm", dim=1)
@case(images(32, 20), name="hooked_scalar_norm", kind="weight_norm", dim=None)
class HookedNorm(nn.Module):
    def __init__(self, kind, **options):
        super().__init__()
        wrap = getattr(nn.utils, kind)
        self.first, self.second = (wrap(nn.Conv1d(32, 32, 3), **options) for _ in range(2))

    def forward(self, x):
        return self.second(torch.relu(self.first(x)))


# --------------------------------------------------------------------------- buffers and randomness


@case(images(6, 32))
class Buffers(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(32, 32)
        self.register_buffer("scale", torch.linspace(0.5, 1.5, 32))
        self.register_buffer("mask", torch.full((6, 6), float("-inf")).triu(1), persistent=False)
        self.register_buffer("later", None)
        self.table = torch.arange(32.0).reshape(1, 32) / 32

    def forward(self, x):
        if self.later is not None:
            x = x + self.later
        ramp = torch.arange(x.shape[1], device=x.device)[:, None] * 0.1
        score = (x @ x.transpose(1, 2) + self.mask).softmax(-1)
        return self.fc(score @ x * self.scale + self.table + ramp) + torch.zeros(1, 32)


@case(images(32))
class Random(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.drop = nn.Linear(32, 32), nn.AlphaDropout(0.2)

    def forward(self, x):
        x = F.dropout(self.fc(x), 0.3, self.training)
        if self.training:
            keep = torch.bernoulli(torch.full((x.shape[0], 1), 0.8, device=x.device))
            x = x * keep + torch.rand_like(x) * 0.1
        return self.drop(x) + torch.randn(x.shape) * 0.01


@case(images(32), name="counter_in_place", in_place=True)
@case(images(32), name="counter_assigned", in_place=False)
class Counter(nn.Module):
    """Counts and averages in buffers."""

    def __init__(self, in_place):
        super().__init__()
        self.fc, self.in_place = nn.Linear(32, 32), in_place
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("average", torch.zeros(32))

    def forward(self, x):
        x = self.fc(x)
        if self.training and self.in_place:
            self.steps += 1
        elif self.training:
            self.steps = self.steps + 1
            self.average = self.average * 0.9 + x.detach().mean(0) * 0.1
        return x - self.average
