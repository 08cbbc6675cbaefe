"""fx arguments as the program's literals."""

from __future__ import annotations

import cmath
import math
import numbers
from typing import Any, Literal

import torch
import torch.fx

from planner import operations
from planner.ir import Items, Mapping, Ref, Slice, Special, Value

_NAMED: tuple[tuple[type, Literal["dtype", "memory_format", "layout"]], ...] = (
    (torch.dtype, "dtype"),
    (torch.memory_format, "memory_format"),
    (torch.layout, "layout"),
)


def to_value(argument: Any) -> Value:
    """``argument`` of an fx node or a constructor as a :data:`~planner.ir.Value`.

    Raises:
        TypeError: it is not a literal (a module, a user's object, a tensor).
    """
    if isinstance(argument, torch.fx.Node):
        return Ref(argument.name)
    if isinstance(argument, tuple):
        return tuple(to_value(item) for item in argument)
    if isinstance(argument, list):
        return Items(tuple(to_value(item) for item in argument))
    if isinstance(argument, dict) and all(isinstance(key, str) for key in argument):
        return Mapping(tuple((key, to_value(item)) for key, item in argument.items()))
    if isinstance(argument, slice):
        return Slice((to_value(argument.start), to_value(argument.stop), to_value(argument.step)))
    return _atom(argument)


def is_literal(argument: Any) -> bool:
    """Whether ``argument`` can stand in a program."""
    try:
        to_value(argument)
    except TypeError:
        return False
    return True


def _atom(argument: Any) -> Value:
    if argument is None or isinstance(argument, (bool, str)):
        return argument
    if isinstance(argument, numbers.Integral):  # NumPy's as well
        return int(argument)
    if isinstance(argument, numbers.Real):
        number = float(argument)
        return number if math.isfinite(number) else Special("float", repr(number))
    if isinstance(argument, complex) and cmath.isfinite(argument):
        return Special("complex", repr(argument))
    if argument is Ellipsis:
        return Special("ellipsis", "...")
    if isinstance(argument, torch.device):
        return Special("device", str(argument))
    for type_, special in _NAMED:
        if isinstance(argument, type_):
            return Special(special, str(argument).removeprefix("torch."))
    name = operations.public_name(argument) if callable(argument) else None
    if name is None:
        raise TypeError(f"{type(argument).__name__} is not a literal")
    return Special("function", name)
