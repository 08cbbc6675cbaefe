"""Forwards that a module has as an attribute: chosen when it was built, or put there afterwards."""

from __future__ import annotations

import copy
import inspect
import types
from typing import Any

from torch import nn


def rebind(twin: nn.Module, memo: dict[int, Any]) -> None:
    """Let the functions that are forwards of ``twin``, a deep copy, read the copy.

    Methods and partial functions are copied with what they are bound to; what a function encloses
    is not.

    Args:
        twin: what ``copy.deepcopy`` made.
        memo: of that copy: what stands for what, by ``id``.
    """
    for module in twin.modules():
        forward = module.__dict__.get("forward")
        if isinstance(forward, types.FunctionType) and forward.__closure__:
            cells = (types.CellType(copy.deepcopy(_held(cell), memo)) for cell in forward.__closure__)
            made = types.FunctionType(
                forward.__code__,
                forward.__globals__,
                forward.__name__,
                forward.__defaults__,
                tuple(cells),
            )
            made.__kwdefaults__ = forward.__kwdefaults__
            made.__dict__.update(copy.deepcopy(forward.__dict__, memo))
            module.__dict__["forward"] = made


def _held(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned so far
        return None


def location_of(module: nn.Module) -> str:
    """File and line of ``module``'s forward; of its class where it is no function of Python."""
    forward: Any = inspect.unwrap(module.forward)
    forward = getattr(forward, "__func__", forward)
    code = getattr(inspect.unwrap(forward), "__code__", type(module).forward.__code__)
    return f"{code.co_filename}:{code.co_firstlineno}"
