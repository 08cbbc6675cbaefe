"""Functions as a recorded run sees them, as fx nodes: operators where Python has one."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence

from planner import operations
from planner.tracing.calls import items_of
from planner.tracing.packing import SHAPES, map_packed
from planner.tracing.skeletons import copy_with

# Functions that are public under another name than the one that is called in the end.
_PUBLIC = {"_grouped_mm": "torch.nn.functional.grouped_mm"}

# As ``tensor.type()`` names them.
_TYPES = [
    f"{name}Tensor" for name in "Float Double Half BFloat16 Long Int Short Char Byte Bool".split()
]

Node = tuple[str, Any, tuple[Any, ...], dict[str, Any]]

_BINARY: dict[str, Callable[..., Any]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": operator.truediv,
    "truediv": operator.truediv,
    "floordiv": operator.floordiv,
    "matmul": operator.matmul,
    "pow": operator.pow,
    "mod": operator.mod,
    "remainder": operator.mod,
    "and": operator.and_,
    "or": operator.or_,
    "xor": operator.xor,
    "bitwise_and": operator.and_,
    "bitwise_or": operator.or_,
    "lshift": operator.lshift,
    "rshift": operator.rshift,
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
    "getitem": operator.getitem,
}
_UNARY: dict[str, Callable[..., Any]] = {
    "neg": operator.neg,
    "invert": operator.invert,
    "bitwise_not": operator.invert,
    "abs": abs,
}
_REVERSED = {
    f"r{name}": _BINARY[name]
    for name in "add sub mul div truediv floordiv matmul pow mod and or xor lshift rshift".split()
}
_IN_PLACE: dict[str, Callable[..., Any]] = {
    "add_": operator.iadd,
    "sub_": operator.isub,
    "mul_": operator.imul,
    "div_": operator.itruediv,
    "pow_": operator.ipow,
    "iadd": operator.iadd,
    "isub": operator.isub,
    "imul": operator.imul,
    "itruediv": operator.itruediv,
    "idiv": operator.itruediv,
    "ifloordiv": operator.ifloordiv,
    "iand": operator.iand,
    "ior": operator.ior,
    "ixor": operator.ixor,
    "ipow": operator.ipow,
    "imod": operator.imod,
}


_MOVES = ("cpu", "to")


class NotPublicError(TypeError):
    """A function that an emitted file cannot call."""


def tensors_in(value: Any) -> list[torch.Tensor]:
    """Tensors in ``value``, however deep."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, (str, int, float, bool, type(None), torch.dtype, torch.device)):
        return []
    return [tensor for item in items_of(value).values() for tensor in tensors_in(item)]


def shaped(func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """``func`` on tensors without data.

    Some functions know the shape of their result for half precision alone, yet run in any.
    """
    given = tensors_in((args, kwargs))
    if func in SHAPES and any(one.is_meta for one in given):
        return SHAPES[func](*args, **kwargs)
    try:
        return func(*args, **kwargs)
    except RuntimeError as error:
        if "copy out of meta" in str(error) and getattr(func, "__name__", "") in _MOVES:
            # To another device, where there is no data either.
            dtypes = [one for one in (*args, *kwargs.values()) if type(one) is torch.dtype]
            return given[0].to((*dtypes, given[0].dtype)[0])
        if "BFloat16" not in str(error):
            raise

    def change(given: torch.dtype, wanted: torch.dtype) -> Callable[[torch.Tensor], torch.Tensor]:
        return lambda one: one.to(wanted) if one.dtype is given else one

    args, kwargs = map_tensors((args, kwargs), change(torch.float32, torch.bfloat16))
    return map_tensors(func(*args, **kwargs), change(torch.bfloat16, torch.float32))


def typed(tensor: torch.Tensor, wanted: Any = None, *_: Any, **__: Any) -> Any:
    """``tensor.type(wanted)``, on the device that it is on: the name of its type, or a copy."""
    if wanted is None:
        return next(
            f"torch.{name}" for name in _TYPES if getattr(torch, name).dtype is tensor.dtype
        )
    if isinstance(wanted, str):
        wanted = getattr(torch, wanted.rpartition(".")[2])
    return tensor.to(wanted if isinstance(wanted, torch.dtype) else wanted.dtype)


def run_leaf(module: nn.Module, args: Any, kwargs: Any) -> Any:
    """A layer of torch on tensors without data; where it reads values, those are zeros."""
    try:
        return module(*args, **kwargs)
    except RuntimeError as error:
        if "meta tensor" not in str(error).lower():
            raise

    def real(tensor: torch.Tensor) -> torch.Tensor:
        if not tensor.is_meta:
            return tensor
        return torch.zeros(tensor.shape, dtype=tensor.dtype, device="cpu")

    twin = copy_with(module, real)
    args, kwargs = map_tensors((args, kwargs), real)
    with torch.device("cpu"), torch.no_grad():
        return map_tensors(twin(*args, **kwargs), lambda one: one.to("meta"))


def map_tensors(value: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """``value`` with every tensor in nested tuples, lists and dicts changed."""
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, PackedSequence):
        return map_packed(value, lambda item: map_tensors(item, change))
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(map_tensors(item, change) for item in value))
    if type(value) in (tuple, list):
        return type(value)(map_tensors(item, change) for item in value)
    if isinstance(value, dict):
        return {key: map_tensors(item, change) for key, item in value.items()}
    return value


def is_in_place(func: Callable[..., Any]) -> bool:
    """Whether ``func`` changes its first argument."""
    name = getattr(func, "__name__", "")
    if name.startswith("__"):
        inner = name.strip("_")
        return inner == "setitem" or inner in _IN_PLACE
    return name.endswith("_")


def function_of(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Node:
    """(kind of fx node, target, args, kwargs) of a call.

    Raises:
        NotPublicError: the function has no public name.
    """
    name = getattr(func, "__name__", "")
    if name == "__get__":
        attribute = func.__self__.__name__  # type: ignore[attr-defined]
        if attribute == "data":
            return "call_method", "detach", args[:1], {}
        return "call_function", getattr, (args[0], attribute), {}
    if name == "new" and _is_method(func) and all(isinstance(one, int) for one in args[1:]):
        return "call_method", "new_empty", args, kwargs
    if name == "__setitem__":
        return "call_function", operator.setitem, args, {}
    special = _operator(name, args, kwargs)
    if special is not None:
        return special
    if name in _PUBLIC:
        return "call_function", operations.function(_PUBLIC[name]), args, kwargs
    if _is_method(func) and operations.is_method(name):
        return "call_method", name, args, kwargs
    if operations.public_name(func) is not None:
        return "call_function", func, args, kwargs
    if operations.is_method(name):
        return "call_method", name, args, kwargs
    place = getattr(func, "__module__", None) or "torch"
    raise NotPublicError(f"{place}.{name} is not public in torch")


def _is_method(func: Callable[..., Any]) -> bool:
    """Whether ``func`` is an attribute of tensors, and not a function of a module."""
    if getattr(func, "__objclass__", None) is not None:
        return True
    return getattr(torch.Tensor, getattr(func, "__name__", ""), None) is func


def _operator(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Node | None:
    inner = name[2:-2] if name.startswith("__") and name.endswith("__") else name
    if kwargs:
        return None
    if len(args) == 1 and inner in _UNARY:
        return "call_function", _UNARY[inner], args, {}
    if len(args) != 2:
        return None
    if name != inner and inner in _REVERSED:
        return "call_function", _REVERSED[inner], args[::-1], {}
    if inner in _IN_PLACE:
        return "call_function", _IN_PLACE[inner], args, {}
    if inner in _BINARY:
        return "call_function", _BINARY[inner], args, {}
    return None
