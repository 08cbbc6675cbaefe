"""Models that symbolic tracing cannot capture, or captures wrongly, and their example inputs."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn


class Pair(NamedTuple):
    """A named tuple, as torchvision returns it."""

    mean: torch.Tensor
    spread: torch.Tensor


SHIFT = torch.linspace(-1.0, 1.0, 4)


@dataclass
class Outputs:
    """A dataclass as libraries return it: what is None is left out."""

    last: torch.Tensor
    hidden: Any = None
    pooled: Any = None


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


class Star(nn.Module):
    """Takes any number of arguments, by position and by name."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, *xs, **named):
        return self.fc(xs[0]) + xs[1] * named["scale"]


class CallsStar(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = Star()

    def forward(self, x):
        return self.inner(x, x + 1, scale=x.mean())


class Checks(nn.Module):
    """Asks whether its argument is a tensor: a proxy is none, so a symbolic trace goes wrong."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        x = self.fc(x)
        return x * 2 if isinstance(x, torch.Tensor) else x


class Nested(nn.Module):
    """Takes and returns dicts and tuples, a dataclass between blocks."""

    def __init__(self):
        super().__init__()
        self.inner = Inner()
        self.head = nn.Linear(4, 2)

    def forward(self, batch, mask=None, scale=1.0):
        out = self.inner(batch["x"], pair=(batch["y"], batch["more"][0]))
        last = out.last if mask is None else out.last * mask
        return {"logits": self.head(last) * scale, "pair": (out.hidden[0], batch["y"])}


class Inner(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x, pair):
        y, z = pair
        return Outputs(last=self.fc(x) + y, hidden=(z * 2, y))


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


class Foreign(nn.Module):
    """A block reads a parameter that is not below it: it is written into its caller."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(8, 4)
        self.mix = Reads(self)

    def forward(self, ids):
        return self.mix(self.embed(ids))


class Reads(nn.Module):
    def __init__(self, owner):
        super().__init__()
        self.owner = [owner]
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        if x.shape[-1] == 4:
            x = self.fc(x)
        return x @ self.owner[0].embed.weight.t()


class Twice(nn.Module):
    """Calls one module in two ways."""

    def __init__(self):
        super().__init__()
        self.inner = Masked()

    def forward(self, x):
        return self.inner(self.inner(x), x > 0)


class Masked(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x, mask=None):
        x = self.fc(x)
        return x if mask is None else x.masked_fill(mask, 0.0)


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


class Named(nn.Module):
    """Returns a named tuple, and passes sizes between blocks."""

    def __init__(self):
        super().__init__()
        self.fold = Fold()

    def forward(self, x):
        out, (rows, width) = self.fold(x, x.shape[1] * 2)
        return Pair(out.view(rows, width // 2, 2).sum(-1), out.std(0))


class Fold(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x, width):
        x = self.fc(x)
        return torch.cat([x, x], 1).view(x.size(0), int(width)), (x.size(0), width)


# Inputs by position or by name; a batch of n is asked for.
CASES = {
    "BranchOnShape": (BranchOnShape, lambda n: (torch.randn(n, 3, 4),)),
    "LoopOverRows": (LoopOverRows, lambda n: (torch.randn(n, 3, 4),)),
    "CallsStar": (CallsStar, lambda n: (torch.randn(n, 4),)),
    "Checks": (Checks, lambda n: (torch.randn(n, 4),)),
    "Nested": (
        Nested,
        lambda n: {
            "batch": {
                "x": torch.randn(n, 4),
                "y": torch.randn(n, 4),
                "more": [torch.randn(n, 4)],
            },
            "mask": torch.rand(n, 4) > 0.5,
        },
    ),
    "InPlace": (InPlace, lambda n: (torch.randn(n, 4),)),
    "Foreign": (Foreign, lambda n: (torch.randint(0, 8, (n, 5)),)),
    "Twice": (Twice, lambda n: (torch.randn(n, 4),)),
    "Constant": (Constant, lambda n: (torch.randn(n, 4),)),
    "Stops": (Stops, lambda n: (torch.randn(n, 4),)),
    "Named": (Named, lambda n: (torch.randn(n, 4),)),
}
