"""Sizes that remember how they were computed.

While a run is recorded, ``x.shape`` holds integers that carry their origin, and arithmetic on them
gives such integers again. So ``x.view(x.shape[0], -1, x.shape[2] // 8)`` is recorded as it is
written and serves other sizes, while comparisons, loops and torch itself see plain integers. What
Python turns into a number of its own (``int(h / 2)``, ``range``, ``math.sqrt``) is a constant.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.fx


@dataclass(frozen=True, slots=True, eq=False)
class Origin:
    """How a size was computed: ``function`` of ``args``, numbers, sizes and tensors."""

    function: Callable[..., Any]
    args: tuple[Any, ...]


class Extent(int):
    """An integer with an origin."""

    origin: Origin


class Ratio(float):
    """A fraction of sizes, or another function of them that is no integer."""

    origin: Origin


def traced(value: Any, function: Callable[..., Any], *args: Any) -> Any:
    """``value``, the result of ``function(*args)``, with that as its origin."""
    made: Any
    if type(value) is int:
        made = Extent(value)
    elif type(value) is float:
        made = Ratio(value)
    else:
        return value
    made.origin = Origin(function, args)
    return made


def plain(value: Any) -> Any:
    """``value`` with plain numbers for sizes, in nested tuples, lists, dicts and slices."""
    if isinstance(value, Extent):
        return int(value)
    if isinstance(value, Ratio):
        return float(value)
    if type(value) in (tuple, list, torch.Size):
        return type(value)([plain(item) for item in value])
    if type(value) is dict:
        return {key: plain(item) for key, item in value.items()}
    if type(value) is slice:
        return slice(plain(value.start), plain(value.stop), plain(value.step))
    return value


def shape_of(tensor: torch.Tensor, shape: torch.Size) -> torch.Size:
    """``shape``, which is that of ``tensor``, with sizes that remember it."""
    return torch.Size([traced(size, _size, tensor, dim) for dim, size in enumerate(shape)])


def _size(tensor: torch.Tensor, dim: int) -> int:
    return tensor.shape[dim]


def _binary(function: Callable[..., Any]) -> Callable[[Any, Any], Any]:
    def forward(one: Any, other: Any) -> Any:
        if not isinstance(other, (int, float)):
            return NotImplemented
        return traced(function(plain(one), plain(other)), function, one, other)

    return forward


def _reversed(function: Callable[..., Any]) -> Callable[[Any, Any], Any]:
    forward = _binary(function)

    def backward(one: Any, other: Any) -> Any:
        return forward(other, one) if isinstance(other, (int, float)) else NotImplemented

    return backward


def _unary(function: Callable[..., Any]) -> Callable[[Any], Any]:
    return lambda one: traced(function(plain(one)), function, one)


for _kind in (Extent, Ratio):
    for _name in "add sub mul floordiv truediv mod pow".split():
        setattr(_kind, f"__{_name}__", _binary(getattr(operator, _name)))
        setattr(_kind, f"__r{_name}__", _reversed(getattr(operator, _name)))
    for _name, _function in (
        ("neg", operator.neg),
        ("ceil", math.ceil),
        ("floor", math.floor),
        ("round", round),
    ):
        setattr(_kind, f"__{_name}__", _unary(_function))


class Extents:
    """Sizes as nodes of one forward's graph."""

    def __init__(
        self, graph: torch.fx.Graph, node_of: Callable[[Any], torch.fx.Node | None]
    ) -> None:
        """``node_of`` gives the node of a tensor or size that the forward knows."""
        self._graph = graph
        self._node_of = node_of
        self._made: dict[tuple[Any, ...], torch.fx.Node] = {}

    def value(self, size: Extent | Ratio) -> Any:
        """The node that computes ``size``, or its number where this forward cannot."""
        found = self._find(size)
        return plain(size) if found is None else found

    def _find(self, value: Any) -> Any:
        if not isinstance(value, (Extent, Ratio, torch.Tensor)):
            return value
        known = self._node_of(value)
        if known is not None or isinstance(value, torch.Tensor):
            return known
        function = value.origin.function
        args = tuple(self._find(item) for item in value.origin.args)
        if any(item is None for item in args):
            return None
        if not any(isinstance(item, torch.fx.Node) for item in args):
            return plain(value)
        key = (function, *args)
        if key not in self._made:
            if function is _size:
                shape = self._graph.call_function(getattr, (args[0], "shape"))
                self._made[key] = self._graph.call_function(operator.getitem, (shape, args[1]))
            else:
                self._made[key] = self._graph.call_function(function, args)
        return self._made[key]
