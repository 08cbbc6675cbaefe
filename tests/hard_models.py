"""Small models, each hard to capture in one way of its own.

``CASES`` is the table: name → (factory of the model, shapes of its inputs). The first axis of every
input is the batch; a shape with a dtype is written ``(shape, dtype)``.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import nn

CASES: dict[str, tuple[object, tuple[object, ...]]] = {}


def case(*shapes, name=None, **arguments):
    """Add a class or function to the table, called with ``arguments``."""

    def add(made):
        CASES[name or made.__name__] = (lambda: made(**arguments), shapes)
        return made

    return add


# --------------------------------------------------------------------------- arguments


class Masked(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x, mask=None, scale: float = 2.0, flip=False, times=1):
        x = self.fc(x) * scale
        if mask is not None:
            x = x.masked_fill(mask, 0.0)
        for _ in range(times):
            x = x + 1
        return -x if flip else x


@case((2, 4), name="with_mask", masked=True)
@case((2, 4), name="without_mask", masked=False)
class Caller(nn.Module):
    def __init__(self, masked):
        super().__init__()
        self.first, self.second, self.masked = Masked(), Masked(), masked

    def forward(self, x):
        mask = x > 0.5 if self.masked else None
        return self.second(self.first(x, mask), mask=mask, flip=True, times=2)


@case((2, 4), (2, 4), name="two_inputs")
class MaskOrNot(nn.Module):
    def __init__(self):
        super().__init__()
        self.with_mask, self.without = Masked(), Masked()

    def forward(self, x, y):
        return self.without(self.with_mask(x, y > 0, scale=3.0))


class Dense(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.fc = nn.Linear(width, 3)

    def forward(self, features):
        features = [features] if isinstance(features, torch.Tensor) else features
        return F.relu(self.fc(torch.cat(features, 1)))


@case((2, 4))
class DenseBlock(nn.ModuleDict):
    def __init__(self):
        super().__init__()
        for index in range(3):
            self.add_module(f"dense{index}", Dense(4 + 3 * index))

    def forward(self, init_features):
        features = [init_features]
        for layer in self.values():
            features.append(layer(features))
        return torch.cat(features, 1)


@case((2, 4), (2, 4))
class KeywordInput(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = Masked()

    def forward(self, input, list):  # noqa: A002
        return self.inner(x=input, mask=list > 0)


# --------------------------------------------------------------------------- hierarchy


@case((2, 4))
class CalledTwice(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.head = nn.Linear(4, 4), Masked()

    def forward(self, x):
        return self.head(self.head(self.fc(torch.tanh(self.fc(x)))))


@case((2, 4))
class TwoNames(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.layers = Masked(), nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
        self.second, self.third = self.first, self.layers[1]

    def forward(self, x):
        return self.third(self.second(self.layers[0](self.first(x))))


@case((2, 4))
class SharedDeep(nn.Module):
    """One module inside two blocks."""

    def __init__(self):
        super().__init__()
        shared = nn.Linear(4, 4)
        self.left, self.right = Holder(shared), Holder(shared)

    def forward(self, x):
        return self.right(self.left(x))


class Holder(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return F.gelu(self.layer(x))


@case(((2, 5), torch.int64))
class TiedWeights(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(7, 4), nn.Linear(4, 7, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids):
        return self.head(self.embed(ids))


@case((2, 4))
class NestedLists(nn.Module):
    def __init__(self):
        super().__init__()
        self.stages = nn.ModuleList(
            nn.ModuleList(nn.Linear(4, 4) for _ in range(2)) for _ in range(3)
        )
        self.by_name = nn.ModuleDict({"up": nn.Linear(4, 4), "0": nn.Linear(4, 4)})

    def forward(self, x):
        for stage in self.stages:
            for layer in stage:
                x = torch.relu(layer(x))
        return self.by_name["0"](self.by_name["up"](x))


@case((2, 4))
class OwnSequential(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))

    def forward(self, x):
        return x + super().forward(x)


@case((2, 4))
class SliceOfSequential(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.Sigmoid())

    def forward(self, x):
        return self.layers[1:](x) + self.layers[0](x)


@case((2, 4))
class SequentialSubclass(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(*(Stage(4) for _ in range(2)), nn.Identity(), Stage(3))

    def forward(self, x):
        return self.body(x).flatten(1)


class Stage(nn.Sequential):
    def __init__(self, width):
        super().__init__()
        self.fc = nn.Linear(4, width)
        self.norm = nn.LayerNorm(width)


@case((2, 4))
def sequential_root():
    return nn.Sequential(nn.Linear(4, 8), nn.Sequential(nn.GELU(), nn.Dropout(0.1)), Masked8())


class Masked8(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8, 2)

    def forward(self, input, mask=None):  # noqa: A002
        return self.fc(input if mask is None else input * mask)


@case((2, 4))
def leaf_root():
    return nn.Linear(4, 3)


@case((2, 4))
def ordered_root():
    return nn.Sequential(OrderedDict([("first", nn.Linear(4, 4)), ("act", nn.ReLU())]))


@case((2, 4))
def odd_names():
    names = ["1", "0", "only", "7"]
    return nn.Sequential(OrderedDict((name, nn.Linear(4, 4)) for name in names))


@case((2, 4))
class OddItems(nn.Module):
    """Numbers that are names and not positions."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(OrderedDict([("1", nn.Linear(4, 4)), ("0", nn.Tanh())]))
        self.lists = nn.ModuleDict({"1": nn.ModuleList([nn.Linear(4, 4)]), "x": nn.ReLU()})
        self.subclass = Numbers()

    def forward(self, x):
        x = self.inner[0](x) * self.inner[1](x)
        x = self.lists["1"][0](x) @ self.lists["1"][0].weight + self.subclass["2"].bias
        return self.subclass(self.lists.x(x))


class Numbers(nn.ModuleDict):
    def __init__(self):
        super().__init__({"2": nn.Linear(4, 4), "1": nn.Linear(4, 4)})

    def forward(self, x):
        return self["1"](x) - self["2"](x)


@case((2, 4))
class RepeatedItems(nn.Module):
    """Lists that hold one module several times."""

    def __init__(self):
        super().__init__()
        one, two, norm = nn.Linear(4, 4), Holder(nn.Linear(4, 4)), nn.LayerNorm(4)
        self.norm = norm
        self.layers = nn.ModuleList([one] * 3)
        self.mixed = nn.Sequential(norm, two, one, two, nn.Linear(4, 4), norm)
        self.nested = nn.ModuleList([nn.Sequential(two, two), nn.ModuleList([norm, one])])
        self.own = Repeated(nn.Linear(4, 4))

    def forward(self, x):
        for layer in self.layers:
            x = layer(x).tanh()
        x = self.nested[1][1](self.nested[1][0](self.nested[0](self.mixed(x))))
        return self.own(self.norm(x))


class Repeated(nn.Sequential):
    def __init__(self, layer):
        super().__init__(layer, nn.GELU(), layer)


@case((2, 4))
def one_name():
    return nn.Sequential(OrderedDict([("only", nn.Sequential(nn.Linear(4, 2)))]))
