"""What values have in common that make a forward go the same way: keys that are equal for those."""

from __future__ import annotations

import functools
import types
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from planner.tracing.extents import Extent, Ratio, plain
from planner.tracing.functions import tensors_in

_PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.Size)
_DEPTH = 16


@dataclass(frozen=True, slots=True)
class Object:
    """Something that is compared by identity, or by where in a block it stands."""

    id: int


@dataclass(frozen=True, slots=True)
class Place:
    """Something that stands in a block, at the position ``index``."""

    index: int


class _Missing:
    """The value of an attribute that an instance does not have."""


class _UnlikeError(Exception):
    """Of a value nobody can tell whether another is like it."""


def key_of(value: Any, kept: list[Any], depth: int = 0) -> Hashable:
    """What two values have in common that make a forward go the same way."""
    kind = type(value)
    if kind in _PLAIN:
        return kind, repr(value) if kind in (float, complex) else value
    if depth < _DEPTH:
        if kind in (tuple, list):
            return kind, tuple(key_of(item, kept, depth + 1) for item in value)
        if isinstance(value, dict):
            pairs = value.items()
            deep = depth + 1
            return kind, tuple((key_of(k, kept, deep), key_of(v, kept, deep)) for k, v in pairs)
        if kind is functools.partial:
            parts = (value.func, value.args, value.keywords)
            return kind, tuple(key_of(part, kept, depth + 1) for part in parts)
        if kind is types.MethodType:
            return kind, tuple(key_of(part, kept) for part in (value.__func__, value.__self__))
    kept.append(value)
    if isinstance(value, torch.Tensor):
        return look(value), Object(id(value))
    return Object(id(value))


def look(tensor: torch.Tensor) -> Hashable:
    """What two tensors may have in common but for their values."""
    stride = tensor.stride() if tensor.layout is torch.strided else ()
    device = str(tensor.device)
    return type(tensor), tensor.shape, stride, tensor.dtype, tensor.requires_grad, device


class _Same:
    """A value that is compared by identity, and kept so that its identity is its own."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)


def likeness(value: Any) -> Hashable:
    """What two calls' arguments have in common if they are alike; None if nobody can tell.

    Tensors are alike but for their values.
    """
    kept: dict[int, int] = {id(one): index for index, one in enumerate(tensors_in(value))}

    def key(item: Any) -> Hashable:
        if isinstance(item, (Extent, Ratio)):
            origin = item.origin
            return (
                type(item),
                repr(plain(item)),
                _Same(origin.function),
                tuple(map(key, origin.args)),
            )
        if isinstance(item, torch.Tensor):
            return look(item), kept.get(id(item), _Same(item))
        if isinstance(item, (int, float)) or type(item) in _PLAIN:
            return type(item), repr(item)
        if type(item) in (tuple, list):
            return type(item), tuple(map(key, item))
        if type(item) is slice:
            return slice, tuple(map(key, (item.start, item.stop, item.step)))
        if type(item) is dict:
            return dict, tuple((key(name), key(part)) for name, part in item.items())
        raise _UnlikeError

    try:
        return key(value)
    except _UnlikeError:
        return None


def is_made_of_tensors(value: Any) -> bool:
    """Whether ``value`` is tensors in nested tuples, lists and dicts, and None."""
    if type(value) in (tuple, list, dict):
        return all(map(is_made_of_tensors, value.values() if type(value) is dict else value))
    # A fake tensor may have a value after all, which is its own.
    known = getattr(value, "constant", None) is not None
    return value is None or (isinstance(value, torch.Tensor) and not known)


def placed(key: Any, positions: Mapping[int, int]) -> Any:
    """``key`` with places for what stands in the block."""
    if type(key) is Object:
        return Place(positions[key.id]) if key.id in positions else key
    if type(key) is tuple:
        return tuple(placed(part, positions) for part in key)
    return key


def attributes(module: nn.Module) -> dict[str, Any]:
    """The attributes of ``module`` itself, read unseen."""
    found: dict[str, Any] = object.__getattribute__(module, "__dict__")
    return found


def attribute(module: nn.Module, name: str) -> Any:
    """What ``module`` itself holds under ``name``: what its class does goes with its type."""
    return attributes(module).get(name, _Missing)
