"""Calls of modules and of the model that symbolic tracing cannot follow; see recorded_models.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from recorded_models import case, rows


@dataclass
class Outputs:
    """A dataclass as libraries return it: what is None is left out."""

    last: torch.Tensor
    hidden: Any = None
    pooled: Any = None


class Pair(NamedTuple):
    """A named tuple, as torchvision returns it."""

    mean: torch.Tensor
    spread: torch.Tensor


# --------------------------------------------------------------------------- arguments


class Star(nn.Module):
    """Takes any number of arguments, by position and by name."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, *xs, **named):
        return self.fc(xs[0]) + xs[1] * named["scale"]


@case(rows, recorded=["Star"])
class CallsStar(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = Star()

    def forward(self, x):
        return self.inner(x, x + 1, scale=x.mean())


def named(batch, _size):
    x, y, z = torch.randn(3, batch, 4)
    return {"batch": {"x": x, "y": y, "more": [z]}, "mask": torch.rand(batch, 4) > 0.5}


@case(named, recorded=["Nested", "Inner"])
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


@case(rows, recorded=["Unread"])
class Forwards(nn.Module):
    """Passes on an input that nobody reads, and literals."""

    def __init__(self):
        super().__init__()
        self.inner = Unread()

    def forward(self, x, flags=("a", None)):
        return self.inner(x, torch.ones_like(x), *flags, scale=2.0)


class Unread(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x, mask, kind, bias=None, **options):
        if kind == "a" and mask.shape == x.shape and bias is None:
            x = x * options["scale"]
        return self.fc(x)


# --------------------------------------------------------------------------- outputs


@case(rows, recorded=["Named", "Fold"])
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


@case(rows)
class Fields(nn.Module):
    """Returns a dataclass with a field that is None."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        hidden = [x]
        for _ in range(x.dim()):
            hidden.append(self.fc(hidden[-1]))
        return Outputs(hidden.pop(), hidden)


@case(rows)
class Maybe(nn.Module):
    """Returns None and a number beside tensors."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        return (self.fc(x), None, 3, len(x)) if len(x) else None


# --------------------------------------------------------------------------- modules


@case(lambda batch, size: (torch.randint(0, 8, (batch, size)),), sizes=(5, 3), recorded=["Foreign"])
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


@case(rows)
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


@case(rows)
class Idle(nn.Module):
    """A module that is never called."""

    def __init__(self):
        super().__init__()
        self.fc, self.pooler = nn.Linear(4, 4), Masked()

    def forward(self, x, pool=False):
        x = self.fc(x) if x.dim() == 2 else x
        return self.pooler(x) if pool else x


@case(rows)
class OddNames(nn.Module):
    """Names that Python cannot write after a dot, and parameters in lists and dicts."""

    def __init__(self):
        super().__init__()
        for name in ("conv-1", "class", "0", "7up"):
            self.add_module(name, nn.Linear(4, 4))
        self.register_parameter("in", nn.Parameter(torch.rand(4, 4)))
        self.register_buffer("a-b", torch.rand(4))
        self.scales = nn.ParameterList(nn.Parameter(torch.rand(4, 4)) for _ in range(3))
        self.shifts = nn.ParameterDict({"x": torch.rand(4, 4), "y-z": torch.rand(4, 4)})

    def forward(self, x):
        for name in ("conv-1", "class", "0", "7up"):
            x = getattr(self, name)(x) if x.dim() == 2 else x
        for scale in self.scales:
            x = x @ scale
        for name in self.shifts:
            x = x @ self.shifts[name]
        return x @ getattr(self, "in") + getattr(self, "a-b")


@case(rows, name="checkpointed", reentrant=False)
@case(rows, name="checkpointed_by_function", reentrant=True)
class Checkpointed(nn.Module):
    """Computes a part again for its gradients."""

    def __init__(self, reentrant):
        super().__init__()
        self.first, self.second, self.reentrant = nn.Linear(4, 4), Masked(), reentrant

    def forward(self, x):
        x = self.first(x)
        if self.training and len(x):
            return checkpoint(self.second, x, use_reentrant=self.reentrant)
        return self.second(x)


class _Appends(nn.Module):
    """Adds to the list that it is given, and reads what it added."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x, found):
        found.append(self.first(x))
        found.append(self.second(found[-1]))
        return torch.cat(found, -1)


@case(rows, recorded=["_Appends"])
class ListsGrow(nn.Module):
    """A list that a child adds to; nobody else reads it then."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([_Appends(), _Appends()])
        self.down = nn.Linear(12, 4)

    def forward(self, x):
        for block in self.blocks:
            x = self.down(block(x, [x]))
        return x


@case(rows, recorded=["ListsAreRead"])
class ListsAreRead(nn.Module):
    """A list that a child adds to, and its caller reads."""

    def __init__(self):
        super().__init__()
        self.block = _Appends()

    def forward(self, x):
        found = [x]
        y = self.block(x, found)
        return y, torch.stack(found).sum(0)
