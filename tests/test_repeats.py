"""Blocks that are alike are captured and checked once; what tells them apart is never missed."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

from planner.errors import TraceError
from planner.tracing import trace
from planner.tracing.keys import likeness
from planner.tracing.repeats import Repeats, distinct_parameters

RAN: list[int] = []


class Block(nn.Module):
    """Adds what its ``options`` say; its ``number`` is never read, unless ``asks`` is true."""

    def __init__(self, number, *, factor=2.0, options=(1,), asks=False):
        super().__init__()
        self.number = number
        self.factor = factor
        self.options = list(options)
        self.asks = asks
        self.linear = nn.Linear(4, 4)

    def forward(self, x):
        RAN.append(id(self))
        y = self.linear(x) * self.factor
        if self.asks:
            y = y + self.number
        for option in self.options:
            y = y + option
        return y


class Silent(Block):
    """Captured wrongly by a trace where ``odd`` is true, and by a recorded run."""

    def __init__(self, number, *, odd=False):
        super().__init__(number)
        self.odd = odd

    def forward(self, x):
        y = super().forward(x)
        return y + 1 if self.odd and not x.is_meta and isinstance(x, torch.Tensor) else y


class Remembers(Block):
    """Sets an attribute on each run."""

    def forward(self, x):
        self.last = self.number
        return super().forward(x)


class Looks(Block):
    """Reads all its attributes at once."""

    def forward(self, x):
        return super().forward(x) + self.__dict__["number"]


def kept(blocks, call="call"):
    """For each block, whether what came of an earlier one served it."""
    model = nn.Sequential(*blocks)
    repeats: Repeats[int] = Repeats(model)
    served = []
    with repeats.watching():
        for block in blocks:
            served.append(repeats.find(block, call) is not None)
            if not served[-1]:
                with repeats.running(block, call) as keep:
                    block.forward(torch.zeros(2, 4))
                    keep(1)
    return served


def sources(model, **options):
    """The graphs of all definitions, as one program holds them."""
    return trace(model, [torch.randn(2, 4)], **options).definitions


@pytest.mark.parametrize(
    ("blocks", "served"),
    [
        ([Block(i) for i in range(3)], [False, True, True]),
        ([Block(i, factor=1.0 + i) for i in range(3)], [False, False, False]),
        ([Block(i, factor=1.0 + i % 2) for i in range(4)], [False, False, True, True]),
        ([Block(i, options=range(i)) for i in range(3)], [False, False, False]),
        ([Block(i, asks=True) for i in range(3)], [False, False, False]),
        ([Remembers(i) for i in range(3)], [False, False, False]),
        ([Looks(i) for i in range(3)], [False, False, False]),
    ],
    ids=["alike", "factors", "two factors", "lists", "numbers", "sets", "looks"],
)
def test_blocks_are_alike_in_what_their_forwards_read(blocks, served):
    assert kept(blocks) == served


def test_other_calls_and_other_structures_are_not_alike():
    tied, loose = Block(0), Block(1)
    tied.twin, loose.twin = tied.linear, nn.Linear(4, 4)
    assert kept([tied, loose]) == [False, False]
    assert kept([Block(0), Block(1)], call=None) == [False, False]
    x, y = torch.zeros(2, 4), torch.zeros(2, 4)
    assert likeness((x, x)) != likeness((x, y)) == likeness((y, x))
    assert likeness((x, 1)) != likeness((x, True))
    assert likeness((x, object())) is None


def test_modules_behave_as_before_once_nobody_watches():
    before = nn.Module.__getattribute__, nn.Module.__setattr__, nn.Module.__delattr__
    kept([Block(0), Block(1)])
    assert (nn.Module.__getattribute__, nn.Module.__setattr__, nn.Module.__delattr__) == before


@pytest.mark.parametrize("verify", [True, False])
def test_what_differs_between_blocks_is_in_the_program(verify):
    blocks = [Block(i, factor=2.0 + i // 2, asks=i == 3) for i in range(4)]
    program = trace(nn.Sequential(*blocks), [torch.randn(2, 4)], verify=verify)
    (plain, asking) = (one for one in program.definitions if one.name.startswith("Block"))
    assert {len(one.train.operations) for one in (plain, asking)} == {3, 4}
    arguments = {
        value
        for definition in program.definitions
        for _, child in definition.children
        for _, value in getattr(child, "arguments", ())
    }
    assert {2.0, 3.0} <= arguments


class Counts(TorchFunctionMode):
    """How often a linear layer was computed, with values, proxies or shapes alone."""

    def __init__(self):
        super().__init__()
        self.linear = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.linear += func is F.linear
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("verify", [True, False])
def test_depth_costs_no_runs(verify):
    counts = []
    for depth in (4, 12):
        RAN.clear()
        with Counts() as calls:
            sources(nn.Sequential(*(Block(i) for i in range(depth))), verify=verify)
        counts.append((len(RAN), calls.linear))
    assert counts[0] == counts[1]
    assert min(counts[0]) > 0


def test_the_odd_one_among_like_blocks_is_found():
    blocks = [Silent(i, odd=i == 4) for i in range(6)]
    with pytest.raises(TraceError, match=r"'4' .Silent. is captured wrongly"):
        sources(nn.Sequential(*blocks))


def test_parameters_of_like_blocks_count_once():
    blocks = [Block(i) for i in range(5)]
    assert distinct_parameters(nn.Sequential(*blocks, nn.Linear(4, 2))) == 20 + 10
