"""Small models whose forwards use operations that are hard to print; they join the table."""

from __future__ import annotations

import math
import operator

import torch
import torch.nn.functional as F
from torch import nn

from hard_models import case


@case(((2, 5), torch.int64))
class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.lstm = nn.Embedding(7, 4), nn.LSTM(4, 3, 2, batch_first=True)
        self.gru = nn.GRU(3, 3, batch_first=True)

    def forward(self, ids):
        x, (hidden, cell) = self.lstm(self.embed(ids))
        _, last = self.gru(x)
        return x[:, -1] + hidden[0] * cell[-1] + last.squeeze(0)


@case((2, 4))
class ManyOutputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.inner = nn.Linear(4, 4), Pair()

    def forward(self, x):
        one, other = self.inner(self.fc(x))
        named = self.inner.named(x)
        return {"one": one, "both": [one, (other, x)], "named": named["x"]}


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        return x + 1, self.fc(x)

    def named(self, x):
        return {"x": self.fc(x)}


@case((2, 8, 6))
class Sizes(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv, self.heads = nn.Linear(6, 18), 2

    def forward(self, x):
        batch, length, width = x.shape
        half, head = length // 2, width // self.heads
        q, k, v = self.qkv(x).view(batch, length, 3, self.heads, head).permute(2, 0, 3, 1, 4)
        scores = torch.einsum("bhid,bhjd->bhij", q, k) * (1 / math.sqrt(head)) ** 1
        out = (scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, length, -1)
        return out[:, : length - half] - out[:, half:, ...] * (2 - (length - 1) % 3) + -(-half // 3)


@case((2, 4))
class InPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.act = nn.Linear(4, 4), nn.ReLU(inplace=True)

    def forward(self, x):
        first = self.fc(x)
        kept = first * 2
        first += x
        first.relu_()
        y = self.fc(first)
        z = y
        y *= 0.5
        y[:, 0] = 1.5
        y[:, 1:3] += kept[:, 1:3]
        return self.act(z) + y + kept.sub_(1).abs() + F.relu(first, inplace=True)


@case((2, 4))
class InPlaceOrder(nn.Module):
    """Reads before and after a change in place must stay on their side of it."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        y = self.fc(x)
        before = y.sum().item if False else y[:, 0]
        copy = before.clone()
        total = y.sum()
        y.add_(total)
        after = y[:, 0]
        return copy + 10 * after + before, y.mul_(2), total


@case((2, 4))
class OddOperators(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        y = 1 - (x - self.fc(x))
        z = 2 ** (-y.sigmoid()) ** 2
        mask = ~(y > 0) & ((x < 0.5) | (x != z)) ^ (y >= 1)
        z = -(x**2) + (-x) ** 2 + (y / (z + 2) / 2) * (x * 3 % 2) - (x // 1 - 1)
        z = z + torch.pow(abs(y) + 1, -0.5) + (x @ (x.t() @ y)) + x.T.mT
        return torch.where(mask, z, x), operator.mul(x - 1, y - 1), +x


@case((2, 4))
class Chunks(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 8)

    def forward(self, x):
        gate, value = self.fc(x).chunk(2, dim=-1)
        parts = torch.split(value, [1, 3], dim=1)
        stacked = torch.stack([parts[0].sum(1), parts[-1].sum(1)], dim=1)
        return torch.sigmoid(gate) * value + stacked.max(1, keepdim=True)[0], stacked.size()


@case((2, 4))
class OrderOfEffects(nn.Module):
    """Results that are read after what they came from has changed."""

    def __init__(self):
        super().__init__()
        self.fc, self.act = nn.Linear(4, 4), nn.ReLU(inplace=True)

    def forward(self, x):
        y = self.fc(x)
        top = y.max(1)
        moments = torch.std_mean(y)
        width = y.shape[1] * 2
        y.mul_(-3)
        best = top[0]
        low = y.min(1)
        y = self.act(y)
        return y.sum(1) + best + low[0] * width + moments[0]


@case((2, 3, 8, 8))
class Images(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.down = nn.Conv2d(4, 4, (3, 1), (2, 1), (1, 0), groups=2)

    def forward(self, x):
        x = self.down(self.conv(x))
        x = F.interpolate(x, size=(x.shape[-2] * 2, x.shape[-1]), mode="nearest")
        x = F.pad(x, (0, 1, 1, 0)) + torch.zeros_like(F.pad(x, [0, 1, 1, 0]))
        return F.adaptive_avg_pool2d(x, 1).flatten(1), F.max_pool2d(x, 2, 2)


@case((2, 6, 8))
class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)

    def forward(self, x):
        x = x + self.attention(x, x, x, need_weights=False)[0]
        attended, weights = self.attention(x, x, x)
        return self.layer(attended) + F.scaled_dot_product_attention(x, x, x), weights


@case((2, 4))
class HiddenNames(nn.Module):
    """Attributes and inputs with the names that a printer likes to use itself."""

    def __init__(self):
        super().__init__()
        self.out, self.x, self.module, self.size = (nn.Linear(4, 4) for _ in range(4))
        self.layer = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))

    def forward(self, torch):
        layer = self.out(torch)
        x = self.x(layer)
        for module in self.layer:
            x = module(x).relu() + layer
        return x + self.size(self.module(torch))


@case((2, 4))
class Loops(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
        self.norms = nn.ModuleList(nn.LayerNorm(4) for _ in range(3))

    def forward(self, x):
        seen = []
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = norm(x + layer(x))
            seen.append(x)
        for layer in self.layers:
            x = x + layer(x) * seen[0]
        for layer in reversed(self.layers):
            x = layer(x)
        y = x
        for layer in self.layers:
            y = y.relu() + layer(y)
        return y + x + sum(seen)
