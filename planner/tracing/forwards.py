"""Forwards that a module has as an attribute: chosen when it was built, or put there afterwards."""

from __future__ import annotations

import copy
import inspect
import types
from typing import Any

from torch import nn


def rebind(model: nn.Module, twin: nn.Module, memo: dict[int, Any]) -> None:
    """Let the functions that are forwards in ``twin`` read it and not ``model``.

    Methods and partial functions are copied with what they are bound to; what a function encloses
    is not.

    Args:
        model: what was copied.
        twin: what ``copy.deepcopy`` made of it.
        memo: of that copy: what stands for what, by ``id``.
    """
    originals = {id(module.__dict__.get("forward")) for module in model.modules()}
    for module in twin.modules():
        forward = module.__dict__.get("forward")
        if not isinstance(forward, types.FunctionType) or id(forward) not in originals:
            continue
        if forward.__closure__:
            cells = (
                types.CellType(copy.deepcopy(_held(cell), memo)) for cell in forward.__closure__
            )
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
