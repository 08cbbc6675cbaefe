"""Habits of model code, one for each model."""

from __future__ import annotations

import functools
import operator

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd import Variable

from written import ids, written


@written((4,))
class FunctionalCall(nn.Module):
    """A network called with weights that are one step from its own."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2))
        self.step = nn.Parameter(torch.tensor(0.1))

    def forward(self, x):
        fast = {key: value * (1 - self.step) for key, value in self.net.named_parameters()}
        return torch.func.functional_call(self.net, fast, (x,))


@written((5, 4))
class InitialStates(nn.Module):
    """States made as they were before 2018."""

    def __init__(self):
        super().__init__()
        self.lstm, self.fc = nn.LSTM(4, 3, 2, batch_first=True), nn.Linear(3, 1)
        self.gru = nn.GRU(3, 3, batch_first=True)

    def init_hidden(self, batch):
        weight = next(self.parameters()).data
        return weight.new(2, batch, 3).zero_(), weight.new(2, batch, 3).zero_()

    def forward(self, x):
        out, hidden = self.lstm(x, self.init_hidden(x.size(0)))
        out, _ = self.gru(out, Variable(torch.zeros(1, x.size(0), 3)))
        out = torch.sigmoid(self.fc(out.contiguous().view(-1, 3)))
        return out.view(x.size(0), -1)[:, -1], hidden


@written(lambda batch: {"x": torch.randn(batch, 4), "y": torch.randn(batch, 4)})
class ChangesItsInput(nn.Module):
    """A dict that goes through, and takes results along."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, data):
        data["z"] = self.fc(data["x"]) + data["y"]
        data["x"] = data["x"] * 2
        return data


@written((6, 4))
class NamedResults(nn.Module):
    """Fields of results that are several tensors."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        y = self.fc(x)
        best = torch.topk(y, 2, dim=-1)
        values, order = y.sort(1, descending=True)
        spread = y.max(1).values - y.min(dim=1, keepdim=True).values.squeeze(1)
        gram = y.mT @ y + torch.eye(4)
        return (
            best.values,
            best.indices,
            spread,
            values,
            order,
            torch.linalg.slogdet(gram).logabsdet,
        )


class Rotary(nn.Module):
    """Has no tensor of the data's to read a device off, but its own."""

    def __init__(self, dim):
        super().__init__()
        self.register_buffer("inv", 1 / (10000 ** (torch.arange(0, dim, 2).float() / dim)))

    def forward(self, n, device):
        t = torch.arange(n, device=device).type_as(self.inv)
        freqs = torch.einsum("i,j->ij", t, self.inv)
        return torch.cat([freqs, freqs], -1)


class Ramp(nn.Module):
    """Has no tensor at all."""

    def forward(self, n, device):
        return torch.arange(n, device=device).float() / n


@written((5, 4))
class DeviceGiven(nn.Module):
    """Modules that get a number and a device; recorded, for its check of a shape."""

    def __init__(self):
        super().__init__()
        self.fc, self.rotary, self.ramp = nn.Linear(4, 4), Rotary(4), Ramp()

    def forward(self, x):
        _, n, width = tuple(x.shape)
        if width not in {4}:
            raise ValueError(width)
        freqs = self.rotary(n, device=x.device)
        return self.fc(x) * freqs.cos() + self.ramp(n, x.device)[None, :, None]


@written((3,))
class Distributions(nn.Module):
    """A policy: samples, their likelihood and an entropy."""

    def __init__(self):
        super().__init__()
        self.mean, self.choice = nn.Linear(3, 2), nn.Linear(3, 4)
        self.log_std = nn.Parameter(torch.zeros(2))

    def forward(self, x):
        normal = torch.distributions.Normal(self.mean(x), self.log_std.exp())
        action = torch.distributions.Independent(normal, 1).rsample()
        choice = torch.distributions.Categorical(logits=self.choice(x))
        picked = choice.sample()
        return action, normal.log_prob(action).sum(-1), choice.log_prob(picked), choice.entropy()


@functools.lru_cache(None)
def halves(shape):
    return (*shape[:-1], 2, shape[-1] // 2)


@written((6, 4), (6, 4))
class CachedShapes(nn.Module):
    """What a library keeps for a shape: two inputs of one shape ask for the same."""

    def __init__(self):
        super().__init__()
        self.first, self.second = CachedShape(), CachedShape()

    def forward(self, x, y):
        return functools.reduce(operator.add, (f(one) for f in self.children() for one in (x, y)))


class CachedShape(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        x, *_ = self.fc(x).reshape(halves(x.shape)).split(1, dim=-2)
        return x.squeeze(-2)


class Normalised(nn.Module):
    """A bare parameter of a module that stands in its block twice."""

    def __init__(self):
        super().__init__()
        self.gain, self.bias = nn.Parameter(torch.ones(4)), nn.Parameter(torch.zeros(4))

    def forward(self, x):
        return F.layer_norm(x, (4,)) * self.gain + self.bias


@written((4,))
class TwoNames(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.fc = Normalised(), nn.Linear(4, 4)
        self.net = nn.Sequential(self.fc, self.norm, nn.ReLU(), self.norm)

    def forward(self, x):
        return self.net(x)


class Block(nn.Module):
    """Shares a norm without statistics with another block."""

    def __init__(self, norm):
        super().__init__()
        self.fc, self.norm = nn.Conv1d(3, 3, 1), norm

    def forward(self, x):
        return self.norm(self.fc(x))


@written((3, 6))
def shared_norm():
    norm = nn.InstanceNorm1d(3, affine=True)
    return nn.Sequential(Block(norm), Block(norm))


@written((4,))
class ComplexNumbers(nn.Module):
    def __init__(self):
        super().__init__()
        self.phase = nn.Parameter(torch.rand(4))

    def forward(self, x):
        turned = torch.exp(1j * self.phase) * (x + (0.5 - 2j))
        return turned.real, turned.abs()


@written((4,))
class Absent(nn.Module):
    """Lists with None for a layer that a configuration leaves out."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList()
        for index in range(3):
            norm = nn.LayerNorm(4) if index else None
            self.layers.append(nn.ModuleList([norm, nn.Linear(4, 4), None]))

    def forward(self, x):
        for norm, layer, _ in self.layers:
            x = layer(x if norm is None else norm(x)).relu()
        return x


@written((4, 5))
class CountedAxes(nn.Module):
    """Axes and rates from tensors that are made of literals."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(5, 5) for _ in range(3))

    def forward(self, x):
        dims = torch.arange(1, len(x.shape)).tolist()
        x = (x - x.mean(dims, keepdim=True)) / x.var(dims, keepdim=True).add(1e-8).sqrt()
        for layer, rate in zip(self.layers, torch.linspace(0, 0.5, 3), strict=True):
            if rate > 0.1:
                x = layer(F.dropout(x, rate.item(), self.training))
        return x


class Cached(nn.Module):
    """Keeps its table once it is computed."""

    def __init__(self):
        super().__init__()
        self.register_buffer("table", None, persistent=False)
        self.slope = nn.Parameter(torch.ones(1))

    def forward(self, x):
        if self.table is None or self.table.shape[0] < x.shape[1]:
            self.register_buffer("table", torch.arange(x.shape[1]).float(), persistent=False)
        return x + (self.table[: x.shape[1]] * self.slope)[:, None]


@written((5, 4), ids(2, 5))
class OldHabits(nn.Module):
    """Names of types, an exception that is expected, a buffer that starts as None."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)])
        self.table = Cached()

    def forward(self, x, mask):
        for layer in self.layers:
            try:
                x = layer(x, lengths=None)
            except TypeError:
                x = layer(x)
        return self.table(x) * mask.type(x.type()).unsqueeze(-1)
