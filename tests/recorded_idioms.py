"""Common idioms that symbolic tracing cannot follow; see recorded_models.py."""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from recorded_models import case, rows, sequences

# --------------------------------------------------------------------------- packed sequences


def of_lengths(batch, size):
    return torch.randn(batch, size, 4), torch.tensor([2, size, 3])[:batch]


@case(of_lengths, sizes=(5, 4), name="packed_lstm", kind=nn.LSTM)
@case(of_lengths, sizes=(5, 4), name="packed_gru", kind=nn.GRU, bidirectional=True)
class Packed(nn.Module):
    """Sequences of several lengths, changed while they are packed."""

    def __init__(self, kind, **options):
        super().__init__()
        self.rnn, self.fc = kind(4, 4, batch_first=True, **options), nn.Linear(4, 4)

    def forward(self, x, lengths):
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        data, *rest = packed
        out, hidden = self.rnn(PackedSequence(self.fc(data), *rest))
        out, lengths = pad_packed_sequence(out, batch_first=True, total_length=x.shape[1])
        return out, lengths, hidden


@case(sequences, sizes=(5, 4), recorded=["Handed"])
class Handed(nn.Module):
    """A pack is handed to another block, and lengths are computed."""

    def __init__(self):
        super().__init__()
        self.part = TakesPack()

    def forward(self, x):
        lengths = (x.sum(-1) > 0).sum(-1).clamp(min=1)
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(self.part(packed))[0].amax(0)


class TakesPack(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.RNN(4, 4, batch_first=True)

    def forward(self, packed):
        return self.rnn(packed)[0]


case(sequences, name="LSTM_alone", recorded=["Model"])(lambda: nn.LSTM(4, 4, 2, bidirectional=True))


# --------------------------------------------------------------------------- own backwards


class Sign(torch.autograd.Function):
    """Straight through where the input is small; a number is no tensor."""

    @staticmethod
    def forward(ctx, x, bound):
        ctx.save_for_backward(x)
        ctx.bound = bound
        return torch.sign(x)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient * (x.abs() <= ctx.bound), None


class Swish(torch.autograd.Function):
    """The derivative, computed from less."""

    @staticmethod
    def forward(x):
        return x * torch.sigmoid(x)

    @staticmethod
    def setup_context(ctx, inputs, _output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        half = torch.sigmoid(x)
        return gradient * (half * (1 + x * (1 - half)))


class Reversal(torch.autograd.Function):
    """Gradients the other way round."""

    @staticmethod
    def forward(_, x):
        return x.view_as(x)

    @staticmethod
    def backward(_, gradient):
        return -0.5 * gradient


@case(rows)
class OwnBackwards(nn.Module):
    """Functions whose backward is their derivative, or a factor."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = (nn.Linear(4, 4) for _ in range(3))

    def forward(self, x):
        x = Swish.apply(self.first(x))
        x = Sign.apply(self.second(x), 0.8)
        return self.third(Reversal.apply(x)) + Reversal.apply(x)


# --------------------------------------------------------------------------- forwards, buffers


@case(rows, recorded=[], name="chosen_forward", kind="wide")
@case(rows, recorded=[], name="other_forward", kind="narrow")
class Chosen(nn.Module):
    """Has one of two forwards, and a layer whose forward was replaced."""

    def __init__(self, kind):
        super().__init__()
        self.fc, self.gate = nn.Linear(4, 4), nn.Linear(4, 4)
        self.forward = self.wide if kind == "wide" else self.narrow
        gate = self.gate
        gate.forward = lambda x: torch.sigmoid(x @ gate.weight)

    def wide(self, x):
        return self.fc(x) * self.gate(x)

    def narrow(self, x):
        return self.fc(x[:, :4]).tanh() + self.gate(x)


@functools.lru_cache
def positions(length):
    return torch.arange(length) / length


@case(sequences, sizes=(3, 5))
class Cached(nn.Module):
    """Calls a function that remembers what it gave for a length, also in another run."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        x = self.fc(x) if x.dim() == 3 else x
        return x + positions(x.shape[1]).to(x)[:, None]


class Pair(NamedTuple):
    first: torch.Tensor
    second: torch.Tensor


@case(lambda batch, _: (Pair(*torch.randn(2, batch, 4)),))
class TakesPair(nn.Module):
    """Takes a named tuple."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, pair):
        return self.fc(pair.first) + pair.second


@torch.jit.script
def scripted(x, scale: float = 2.0):
    return torch.relu(x * scale)


@case(rows, recorded=[])
class Scripted(nn.Module):
    """Calls a function that TorchScript compiled."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        return scripted(self.fc(x), 3.0)


@case(sequences)
class Remembers(nn.Module):
    """Keeps positions of the last length; counts; an average that gradients do not pass.

    At length 1 it never computes the positions, so it is captured at the example's length alone.
    """

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.register_buffer("places", torch.zeros(1, 1), persistent=False)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("average", torch.zeros(4))

    def forward(self, x):
        if self.places.shape[0] != x.shape[1]:
            self.places = torch.ones(x.shape[1], 1, device=x.device, dtype=x.dtype).cumsum(0)
        x = self.fc(x)
        if self.training:
            self.steps += 1
            with torch.no_grad():
                self.average = self.average * 0.5 + x.mean((0, 1)) * 0.5
        return x * self.places - self.average.data
