"""Models with tensors that they compute at construction, in the ways of tutorials and papers."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

SLOPES = torch.tensor([2.0**-index for index in range(8)])


class Tables(nn.Module):
    """A linear layer, and what the subclass's ``tables`` returns as buffers."""

    persistent = True

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(16, 16)
        for name, table in self.tables().items():
            self.register_buffer(name, table, persistent=self.persistent)

    def forward(self, x):
        total = self.linear(x)
        for table in self.buffers():
            total = total + table.real.float().mean()
        return total


class Positions(Tables):
    """The table of "Attention is all you need", as the PyTorch tutorial writes it."""

    def tables(self):
        pe = torch.zeros(5000, 512)
        position = torch.arange(0, 5000, dtype=torch.float).unsqueeze(1)
        div_term = torch.exp(torch.arange(0, 512, 2).float() * (-math.log(10000.0) / 512))
        pe[:, 0::2] = torch.sin(position * div_term)
        pe[:, 1::2] = torch.cos(position * div_term)
        return {"pe": pe.unsqueeze(0).transpose(0, 1)}


class Halves(Tables):
    """Sines, then cosines, with a row of zeros for padding."""

    persistent = False

    def tables(self):
        scale = math.log(10000) / (64 - 1)
        scale = torch.exp(torch.arange(64, dtype=torch.int64).float() * -scale)
        scale = torch.arange(600, dtype=torch.int64).float().unsqueeze(1) * scale.unsqueeze(0)
        table = torch.cat([torch.sin(scale), torch.cos(scale)], dim=1).view(600, -1)
        table[1, :] = 0
        return {"weights": table.to(torch.get_default_dtype())}


class Windows(Tables):
    """Indices of relative positions, as in Swin."""

    def tables(self):
        coords = torch.stack(torch.meshgrid([torch.arange(12), torch.arange(12)], indexing="ij"))
        coords_flatten = torch.flatten(coords, 1)
        relative = coords_flatten[:, :, None] - coords_flatten[:, None, :]
        relative = relative.permute(1, 2, 0).contiguous()
        relative[:, :, 0] += 12 - 1
        relative[:, :, 1] += 12 - 1
        relative[:, :, 0] *= 2 * 12 - 1
        return {"index": relative.sum(-1)}


class Rotations(Tables):
    """Complex rotations, as in the reference code of Llama."""

    def tables(self):
        freqs = 1.0 / (10000.0 ** (torch.arange(0, 64, 2)[: (64 // 2)].float() / 64))
        t = torch.arange(2048, device=freqs.device, dtype=torch.float32)
        freqs = torch.outer(t, freqs)
        return {"freqs_cis": torch.polar(torch.ones_like(freqs), freqs)}


class Transforms(Tables):
    """Windows, a discrete cosine transform and a triangular filter bank."""

    def tables(self):
        n, k = torch.arange(400.0), torch.arange(400.0).unsqueeze(1)
        dct = torch.cos(math.pi / 400 * (n + 0.5) * k)
        dct[0] *= 1.0 / math.sqrt(2.0)
        dct *= math.sqrt(2.0 / 400)
        freqs = torch.linspace(0, 8000, 201)
        mel = torch.linspace(0.0, 2595 * math.log10(1 + 8000 / 700), 82)
        points = 700.0 * (10.0 ** (mel / 2595.0) - 1.0)
        slopes = points.unsqueeze(0) - freqs.unsqueeze(1)
        diff = points[1:] - points[:-1]
        down, up = (-1.0 * slopes[:, :-2]) / diff[:-1], slopes[:, 2:] / diff[1:]
        bank = torch.max(torch.zeros(1), torch.min(down, up))
        return {"window": torch.hann_window(4000), "dct": dct, "bank": bank}


class Kinds(Tables):
    """Dtypes, masks, biases, a copy, ``out=`` and several results."""

    def tables(self):
        causal = torch.ones(300, 300, dtype=torch.bool).tril().view(1, 1, 300, 300)
        square = torch.arange(20000, dtype=torch.float32).square()
        bias = -torch.arange(300).abs()[None, :, None] * torch.tensor([2.0**-i for i in range(4)])
        filled = torch.empty(300, 70)
        torch.sin(torch.outer(torch.arange(300.0), torch.arange(70.0)), out=filled)
        low, high = torch.arange(30000.0).sqrt().chunk(2)
        return {
            "causal": causal.clone(),
            "narrow": square.sqrt().to(torch.bfloat16),
            "whole": square.long() % 997,
            "alibi": bias,
            "filled": filled,
            "upper": high * low[:5000].repeat(3),
            "padded": F.pad(square.view(100, 200).sin(), (1, 1)),
            "scalar": torch.tensor(0.3),
        }


class Random(Tables):
    """Numbers that nothing gives again: random features, a table of NumPy's."""

    def tables(self):
        table = np.sin(np.arange(40_000).reshape(200, 200) ** 0.5).astype(np.float32)
        return {
            "features": torch.randn(256, 300),
            "codes": torch.randn(200, 100, dtype=torch.complex64),
            "narrow": torch.randn(40_000).to(torch.bfloat16),
            "order": torch.randperm(30_000),
            "table": torch.from_numpy(table),
            "flags": torch.rand(600_000) < 0.5,
        }


class Attributes(nn.Module):
    """Tensors that are no buffers: attributes, of the class or the module, items, globals."""

    scale = torch.arange(1.0, 17.0).sqrt()

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(16, 16)
        self.table = torch.outer(torch.arange(900.0), torch.arange(16.0)).cos()
        self.parts = [torch.arange(16.0).sin(), torch.randn(16)]
        self.named = {"shift": torch.linspace(0, 1, 16).exp()}

    def forward(self, x):
        x = self.linear(x) * self.scale + self.table[: x.shape[0]]
        x = x + self.parts[0] * self.parts[1] + self.named["shift"]
        return x + SLOPES.sum()


class Copies(nn.Module):
    """Buffers that depend on parameters: a copy for a moving average, a codebook."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(16, 16)
        self.register_buffer("average", self.linear.weight.detach().clone())
        self.register_buffer("codes", torch.linspace(-1, 1, 16))
        self.register_buffer("steps", torch.tensor(0))

    def forward(self, x):
        return self.linear(x) + F.linear(x, self.average) + self.codes


class Frozen(nn.Module):
    """Parameters that are not trained: tables of an embedding, a window, and random features."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(16, 16)
        self.positions = nn.Embedding(300, 16).requires_grad_(False)
        angles = torch.outer(torch.arange(300.0), torch.exp(-torch.arange(8.0)))
        with torch.no_grad():
            self.positions.weight.copy_(torch.cat([angles.sin(), angles.cos()], dim=1))
        self.window = nn.Parameter(torch.hann_window(16), requires_grad=False)
        table = np.cos(np.arange(16)).astype(np.float32)
        self.table = nn.Parameter(torch.from_numpy(table), requires_grad=False)
        self.random = nn.Parameter(torch.randn(16), requires_grad=False)

    def forward(self, x):
        return self.linear(x + self.positions.weight[: x.shape[0]]) * (self.window + self.table)


MODELS = (
    Positions, Halves, Windows, Rotations, Transforms, Kinds, Random, Attributes, Copies,
)  # fmt: skip


def example_inputs():
    return torch.zeros(2, 16)
