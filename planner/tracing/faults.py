"""What stops a capture, as one message: the module, the line of its source, and what to change."""

from __future__ import annotations

import dis
import traceback
from pathlib import Path
from typing import Any

import torch
import torch.fx.proxy
from torch import nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
)

from planner.errors import TraceError
from planner.tracing.forwards import location_of
from planner.tracing.functions import NotPublicError, tensors_in

_OURS = (Path(torch.__file__).parent, Path(__file__).parent)
_VALUES = (DataDependentOutputException, DynamicOutputShapeException)


class UnseenError(RuntimeError):
    """A forward does what no graph shows; no TypeError, which operators take as a no."""


# What no other inputs would change.
_LASTING = (*_VALUES, NotPublicError, UnseenError)


def fault(module: nn.Module, path: str, error: Exception, inputs: Any = ()) -> TraceError:
    """The error that says where in ``module``'s forward ``error`` was raised.

    ``inputs`` are the model's example inputs, which may be what is wrong.
    """
    location = None
    for frame in traceback.extract_tb(error.__traceback__):
        inside = any(folder in Path(frame.filename).parents for folder in _OURS)
        if not inside and not frame.filename.startswith("<"):
            location = f"{frame.filename}:{frame.lineno}"
    if location is None:
        location = location_of(module)
    name = f"module {path!r}" if path else "the model's root module"
    return TraceError(
        f"{name} ({type(module).__name__}) cannot be captured: {_text(error)}\n"
        f"  at {location}\n"
        f"  {_remedy(error, inputs)}",
        module=path,
        location=location,
        plannable=isinstance(error, _LASTING),
    )


def is_refusal(error: TraceError) -> bool:
    """Whether the model itself refuses: it raises or asserts, and no operation of torch fails."""
    cause: BaseException | None = error
    while cause is not None and cause.__cause__ is not None:
        cause = cause.__cause__
    frame = None if cause is None else cause.__traceback__
    if frame is None:
        return False
    while frame.tb_next is not None:
        frame = frame.tb_next
    code = frame.tb_frame.f_code
    raises = code.co_code[frame.tb_lasti] == dis.opmap["RAISE_VARARGS"]
    inside = any(folder in Path(code.co_filename).parents for folder in _OURS)
    return raises and (not inside or isinstance(cause, AssertionError))


def shapes_of(inputs: Any) -> str:
    """The shapes of example inputs, as ``--input`` writes them."""
    return ", ".join("x".join(map(str, tensor.shape)) for tensor in tensors_in(inputs))


def _text(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    if isinstance(error, _VALUES):
        return f"its course depends on the values of a tensor ({lines[0] if lines else 'unknown'})"
    return lines[0] if lines else type(error).__name__


def _remedy(error: Exception, inputs: Any) -> str:
    if isinstance(error, UnseenError):
        return "Move that out of the forward, or write it with torch's own functions."
    if tensors_in(inputs) and not isinstance(error, (*_LASTING, torch.fx.proxy.TraceError)):
        return f"Inputs of shapes {shapes_of(inputs)} were given: check --input / example_inputs."
    if isinstance(error, NotPublicError):
        return "Use public functions of torch there, or move that step out of the model."
    return "Make the forward independent of tensor values, or move that step out of the module."
