"""Python's own functions on sizes, made to keep where a size is from while a run is recorded.

``int``, ``range``, ``math.sqrt`` and the like return numbers of Python's own. In the modules that a
model's code is in, and only there, functions of the same names take their place. Those that are
types still serve as types (``isinstance(x, int)``).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from planner import operations
from planner.tracing.extents import Extent, Ratio, plain, traced, used_up

_MISSING = object()


@contextmanager
def remembering(model: nn.Module) -> Iterator[None]:
    """Inside, numbers that the code of ``model`` computes from sizes remember them."""
    before: list[tuple[dict[str, Any], str, Any]] = []

    def put(space: dict[str, Any], name: str, value: Any) -> None:
        before.append((space, name, space.get(name, _MISSING)))
        space[name] = value

    # The table of public names must hold Python's own.
    operations.public_name(math.sqrt)
    known = {id(function): ours for function, ours in _OF_MATH.values()}
    try:
        for space in _spaces(model):
            for name, value in list(space.items()):
                if id(value) in known:
                    put(space, name, known[id(value)])
            for name, value in _BUILT_IN.items():
                if name not in space:
                    put(space, name, value)
        for name, (_, ours) in _OF_MATH.items():
            put(math.__dict__, name, ours)
        yield
    finally:
        for space, name, value in reversed(before):
            if value is _MISSING:
                space.pop(name, None)
            else:
                space[name] = value


def _spaces(model: nn.Module) -> list[dict[str, Any]]:
    """The globals of the files that ``model``'s classes are from, and of all in their packages."""
    own = {
        id(space): space
        for module in model.modules()
        for cls in type(module).__mro__
        if (space := getattr(cls.__dict__.get("forward"), "__globals__", None)) is not None
        and not _is_foreign(cls.__module__)
    }
    packages = {str(space.get("__name__", "")).partition(".")[0] for space in own.values()}
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in packages and not _is_foreign(name):
            space = getattr(module, "__dict__", None)
            if isinstance(space, dict):
                own.setdefault(id(space), space)
    return list(own.values())


def _is_foreign(name: str) -> bool:
    """Whether a module of that name is torch's, Python's or the planner's."""
    first = name.partition(".")[0]
    return first in ("torch", "planner") or first in sys.stdlib_module_names


def _is_size(value: Any) -> bool:
    return isinstance(value, (Extent, Ratio))


def _kept(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` of numbers, whose result remembers them."""

    def compute(*args: Any, **kwargs: Any) -> Any:
        if kwargs or not any(map(_is_size, args)):
            return function(*args, **kwargs)
        return traced(function(*map(plain, args)), function, *args)

    return compute


def _extreme(function: Callable[..., Any]) -> Callable[..., Any]:
    """``max`` or ``min``, of several numbers or of those in one container."""

    def compute(*args: Any, **kwargs: Any) -> Any:
        items = args
        if len(args) == 1 and not kwargs:
            items = tuple(args[0])
            args = (items,)
        simple = all(isinstance(item, (int, float)) for item in items)
        if kwargs or not simple or not any(map(_is_size, items)):
            return function(*args, **kwargs)
        if len(items) == 1:
            return items[0]
        return traced(function(*map(plain, items)), function, *items)

    return compute


class _Kind(type):
    """A type of Python's that is called otherwise and is itself in all else."""

    plain: type
    compute: Callable[..., Any]

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        return cls.compute(*args, **kwargs)

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, cls.plain)

    def __subclasscheck__(cls, subclass: type) -> bool:
        return issubclass(subclass, cls.plain)

    def __getattr__(cls, name: str) -> Any:
        return getattr(cls.plain, name)

    def __eq__(cls, other: object) -> bool:
        return other is cls or other is cls.plain

    def __hash__(cls) -> int:
        return hash(cls.plain)


def _kind(plain_type: type, compute: Callable[..., Any]) -> _Kind:
    return _Kind(plain_type.__name__, (), {"plain": plain_type, "compute": staticmethod(compute)})


def _counted(*args: Any) -> range:
    return range(*map(used_up, args))


_OF_MATH: dict[str, tuple[Any, Any]] = {
    name: (function, _kept(function))
    for name, function in vars(math).items()
    if callable(function) and name not in ("ceil", "floor", "trunc", "prod", "fsum", "dist")
}

_BUILT_IN: dict[str, Any] = {
    "int": _kind(int, _kept(int)),
    "float": _kind(float, _kept(float)),
    "range": _kind(range, _counted),
    "max": _extreme(max),
    "min": _extreme(min),
}
