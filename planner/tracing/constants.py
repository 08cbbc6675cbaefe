"""Tensors that a model computes at construction: a recognised expression, or data."""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Iterator
from dataclasses import replace
from typing import TypeAlias

import torch

from planner.errors import TraceError
from planner.ir import Buffer, Graph, Operation, Ref
from planner.origins import Origins
from planner.tracing.derivations import derive, evaluate
from planner.tracing.graphs import without_default_keywords
from planner.tracing.values import to_value

Expression: TypeAlias = tuple[Operation, ...]

LIMIT = 1 << 26
"""Characters of compressed data that a plan carries for one tensor."""


def to_buffer(
    name: str,
    tensor: torch.Tensor,
    *,
    persistent: bool,
    module: str,
    origins: Origins | None = None,
) -> Buffer:
    """The buffer that holds ``tensor``.

    An expression is one of the simplest, or what the model called to make it (``origins``), and
    gives the tensor to the last bit.

    Raises:
        TraceError: no expression is recognised and the data exceed ``LIMIT`` bytes, or the
            tensor has no data.
    """
    if tensor.is_meta:
        raise TraceError(
            f"buffer {name!r} of module {module!r} has no data: build the model on a real device "
            "(parameters may stay on meta)",
            module=module,
        )
    real, tensor = tensor, tensor.detach().cpu()
    shape, dtype = tuple(tensor.shape), str(tensor.dtype).removeprefix("torch.")
    expression = _expression(real, origins)
    if expression:
        return Buffer(name, shape, dtype, persistent, expression=expression)
    raw = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    data = base64.b64encode(zlib.compress(raw, 9)).decode()
    if len(data) > LIMIT:
        raise TraceError(
            f"buffer {name!r} of module {module!r} holds {len(raw):,} bytes that no known "
            f"expression gives and that do not fit into {LIMIT:,} bytes compressed: "
            "compute it with functions of torch when the model is built, or make it smaller",
            module=module,
        )
    return Buffer(name, shape, dtype, persistent, data=data)


def _expression(tensor: torch.Tensor, origins: Origins | None) -> Expression:
    """Operations that give ``tensor``; none where none are known."""
    plain = tensor.detach().cpu()
    for expression in _candidates(plain):
        if _identical(evaluate(expression), plain):
            return expression
    derived = () if origins is None else derive(tensor, origins)
    if derived:
        try:
            if _identical(evaluate(derived), plain):
                return without_default_keywords(Graph(derived, None)).operations
        except Exception:  # noqa: BLE001  what a model did once need not work twice
            return ()
    return ()


def _identical(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Equal values, and zeros of one sign."""
    if one.dtype is not other.dtype or not torch.equal(one, other):
        return False
    return not one.is_floating_point() or torch.equal(one.signbit(), other.signbit())


def _call(
    target: str, *args: object, result: str = "value", dtype: torch.dtype | None = None
) -> Operation:
    kwargs = () if dtype is None else (("dtype", to_value(dtype)),)
    return Operation(result, "function", target, tuple(to_value(item) for item in args), kwargs)


def _candidates(tensor: torch.Tensor) -> Iterator[Expression]:
    """Expressions that might give ``tensor``, the simplest first."""
    shape, dtype = tuple(tensor.shape), tensor.dtype
    first = tensor.reshape(-1)[0].item() if tensor.numel() else 0
    if first in (0, 1):
        yield (_call("torch.ones" if first else "torch.zeros", shape, dtype=dtype),)
    if dtype.is_complex or tensor.numel() < 2:
        return
    yield (_call("torch.full", shape, first, dtype=dtype),)
    if dtype is not torch.bool:
        yield from _counting(tensor)
    if tensor.dim() == 2 and tensor.shape[0] > 1:
        # Masks: one value on one side of a diagonal and zero elsewhere.
        for method, corner in (("triu", tensor[0, -1]), ("tril", tensor[-1, 0])):
            full = _call("torch.full", shape, corner.item(), dtype=dtype, result="full")
            for diagonal in (0, 1, -1):
                yield (full, Operation("value", "method", method, (Ref("full"), diagonal)))


def _counting(tensor: torch.Tensor) -> Iterator[Expression]:
    """Numbers at equal steps, in the tensor's shape."""
    flat = tensor.reshape(-1)
    first, count = flat[0].item(), len(flat)
    step = flat[1].item() - first
    if not step or not math.isfinite(step) or not math.isfinite(first):
        return
    bounds: tuple[float, ...] = (first, first + step * count, step)
    if step == 1:
        bounds = (first, first + count) if first else (count,)
    counting = _call("torch.arange", *bounds, dtype=tensor.dtype)
    if tensor.dim() == 1:
        yield (counting,)
    else:
        view = Operation("value", "method", "reshape", (Ref("flat"), tuple(tensor.shape)))
        yield (replace(counting, result="flat"), view)
