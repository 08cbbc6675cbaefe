"""What stops a capture, as one message: the module, the line of its source, and what to change."""

from __future__ import annotations

import traceback
from pathlib import Path

import torch
from torch import nn

from planner.errors import TraceError

_OURS = (Path(torch.__file__).parent, Path(__file__).parent)


def fault(module: nn.Module, path: str, error: Exception) -> TraceError:
    """The error that says where in ``module``'s forward ``error`` was raised."""
    location = None
    for frame in traceback.extract_tb(error.__traceback__):
        inside = any(folder in Path(frame.filename).parents for folder in _OURS)
        if not inside and not frame.filename.startswith("<"):
            location = f"{frame.filename}:{frame.lineno}"
    if location is None:
        code = type(module).forward.__code__
        location = f"{code.co_filename}:{code.co_firstlineno}"
    name = f"module {path!r}" if path else "the model's root module"
    text = str(error).strip().splitlines()
    return TraceError(
        f"{name} ({type(module).__name__}) cannot be captured: "
        f"{text[0] if text else type(error).__name__}\n"
        f"  at {location}\n"
        "  Make the forward independent of tensor values, or move that step out of the module.",
        module=path,
        location=location,
    )
