"""Constant tensors become a recognised expression, or data."""

import math

import pytest
import torch

from planner.emission.constants import constant
from planner.errors import TraceError
from planner.tracing import constants
from planner.tracing.constants import to_buffer


def unpack(data, dtype, shape):
    import base64
    import zlib

    raw = bytearray(zlib.decompress(base64.b64decode(data)))
    return torch.frombuffer(raw, dtype=dtype).reshape(shape)


def rebuilt(buffer):
    names = {"torch": torch, "unpack": unpack, "math": math, "F": torch.nn.functional}
    lines, value = constant(buffer, "Net")
    exec("\n".join(lines), names)
    return eval(value, names)


RECOGNISED = {
    "torch.zeros((3, 4), dtype=torch.float32)": torch.zeros(3, 4),
    "torch.ones((2,), dtype=torch.bool)": torch.ones(2, dtype=torch.bool),
    "torch.zeros((), dtype=torch.int64)": torch.tensor(0),
    "torch.full((5,), 0.25, dtype=torch.float64)": torch.full((5,), 0.25, dtype=torch.float64),
    "torch.arange(7, dtype=torch.int64)": torch.arange(7),
    "torch.arange(12, dtype=torch.int64).reshape((1, 3, 4))": torch.arange(12).view(1, 3, 4),
    "torch.arange(3, 9, dtype=torch.int32)": torch.arange(3, 9, dtype=torch.int32),
    "torch.arange(5, -3, -2, dtype=torch.int64)": torch.arange(5, -3, -2),
    'torch.full((3, 3), float("-inf"), dtype=torch.float32).triu(1)': torch.full(
        (3, 3), -math.inf
    ).triu(1),
    "torch.full((4, 4), True, dtype=torch.bool).tril(0)": torch.ones(4, 4, dtype=torch.bool).tril(),
}


@pytest.mark.parametrize("text", list(RECOGNISED))
def test_expressions_are_recognised(text):
    tensor = RECOGNISED[text]
    buffer = to_buffer("b", tensor, persistent=True, module="m")
    assert buffer.data is None
    assert constant(buffer, "Net") == ((), text)
    assert torch.equal(rebuilt(buffer), tensor)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor([0.1, -2.5, math.inf, 1e-30]),
        torch.randperm(40),
        torch.randn(3, 5, dtype=torch.bfloat16),
        torch.randn(2, 2, dtype=torch.complex64),
        torch.tensor(0.3),
        torch.tensor([True, False, True]),
        torch.arange(6).view(2, 3).t(),
        torch.randn(4, 4)[:, 1],
    ],
    ids=lambda tensor: str(tensor.dtype),
)
def test_other_tensors_are_data(tensor):
    buffer = to_buffer("b", tensor, persistent=False, module="m")
    assert buffer.data and not buffer.expression
    assert not buffer.persistent
    assert torch.equal(rebuilt(buffer), tensor)


@pytest.mark.parametrize(
    "tensor", [torch.tensor([-0.0, -0.0]), torch.empty(0), torch.tensor([math.nan, math.nan])]
)
def test_peculiar_values_survive(tensor):
    made = rebuilt(to_buffer("b", tensor, persistent=True, module="m"))
    assert made.shape == tensor.shape
    assert torch.equal(made.view(torch.int32), tensor.view(torch.int32))


def test_tables_too_large_for_a_plan_are_refused(monkeypatch):
    monkeypatch.setattr(constants, "LIMIT", 1 << 16)
    with pytest.raises(TraceError, match="holds 400,000 bytes") as caught:
        to_buffer("table", torch.randn(100_000), persistent=True, module="a.b")
    assert caught.value.module == "a.b"
    to_buffer("table", torch.arange(10 << 16), persistent=True, module="")


def test_tensors_without_data_are_refused():
    with pytest.raises(TraceError, match="no data"):
        to_buffer("b", torch.zeros(3, device="meta"), persistent=True, module="")
