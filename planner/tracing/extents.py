"""Sizes that remember how they were computed.

While a run is recorded, ``x.shape`` holds integers that carry their origin, and arithmetic on them
gives such integers again. So ``x.view(x.shape[0], -1, x.shape[2] // 8)`` is recorded as it is
written and serves other sizes, while torch itself sees plain integers. What such a number decides
(a branch, the length of a loop) is the example's: whoever is :func:`watching` hears of it.
"""

from __future__ import annotations

import math
import operator
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

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


Place: TypeAlias = "tuple[str, int, int]"
"""Where in a program something is decided: file, line and instruction."""


@dataclass(frozen=True, slots=True, eq=False)
class Decision:
    """``function(*args)`` was ``outcome``, and Python went its way accordingly.

    ``forks`` says that Python could have gone the other way with the same sizes: it compared them.
    Elsewhere it used a size up, as the length of a loop or of a list.
    """

    function: Callable[..., bool]
    args: tuple[Any, ...]
    outcome: bool
    place: Place
    forks: bool = True


_watchers: list[Callable[[Decision], bool]] = []


@contextmanager
def watching(decided: Callable[[Decision], bool]) -> Iterator[None]:
    """Inside, ``decided`` hears of each decision on a size, and returns its outcome."""
    _watchers.append(decided)
    try:
        yield
    finally:
        _watchers.pop()


def _decide(function: Callable[..., bool], *args: Any) -> bool:
    outcome = bool(function(*map(plain, args)))
    if not _watchers or (len(args) == 2 and _is_same(*args)):
        return outcome
    return _watchers[-1](Decision(function, args, outcome, _place()))


def used_up(value: Any) -> Any:
    """``value`` as a plain number, for what has no way to remember it."""
    number = plain(value)
    if _watchers and number is not value:
        _watchers[-1](Decision(operator.eq, (value, number), True, _place(), forks=False))
    return number


def _place() -> Place:
    """The innermost frame that is not of this package."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__package__") == __package__:
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno, frame.f_lasti


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
            if isinstance(other, (list, tuple, str)) and function is operator.mul:
                return function(used_up(one), other)
            return NotImplemented
        same = _unchanged(function, one, other)
        if same is not None:
            return same
        return traced(function(plain(one), plain(other)), function, one, other)

    return forward


def _unchanged(function: Callable[..., Any], one: Any, other: Any) -> Any:
    """The result where it is one of the operands or zero, whatever the sizes are; else None."""
    if not isinstance(one, int) or not isinstance(other, int):
        return None
    if type(other) is int:
        if other == 0 and function in (operator.add, operator.sub):
            return one
        if other == 1 and function in (operator.mul, operator.floordiv):
            return one
    if type(one) is int and (one, function) in ((0, operator.add), (1, operator.mul)):
        return other
    if function is operator.sub and _is_same(one, other):
        return 0
    return None


def _is_same(one: Any, other: Any) -> bool:
    """Whether two values are computed alike, so that they are equal at all sizes."""
    if one is other:
        return True
    if not isinstance(one, (Extent, Ratio)) or not isinstance(other, (Extent, Ratio)):
        return type(one) is type(other) is int and one == other
    mine, theirs = one.origin, other.origin
    return (
        mine.function is theirs.function
        and len(mine.args) == len(theirs.args)
        and all(map(_is_same, mine.args, theirs.args))
    )


def _reversed(function: Callable[..., Any]) -> Callable[[Any, Any], Any]:
    forward = _binary(function)

    def backward(one: Any, other: Any) -> Any:
        if isinstance(other, (int, float)):
            return forward(other, one)
        if isinstance(other, (list, tuple, str)) and function is operator.mul:
            return function(other, used_up(one))
        return NotImplemented

    return backward


def _unary(function: Callable[..., Any]) -> Callable[[Any], Any]:
    return lambda one: traced(function(plain(one)), function, one)


def _comparison(function: Callable[..., Any]) -> Callable[[Any, Any], Any]:
    def compare(one: Any, other: Any) -> Any:
        if not isinstance(other, (int, float)):
            return NotImplemented
        return _decide(function, one, other)

    return compare


def _truth(one: Any) -> bool:
    return _decide(operator.ne, one, 0)


def _rounded(one: Any, digits: Any = None) -> Any:
    given = (one,) if digits is None else (one, digits)
    return traced(round(*map(plain, given)), round, *given)


ARITHMETIC: dict[Callable[..., Any], str] = {
    getattr(operator, name): name for name in "add sub mul floordiv truediv mod pow".split()
}

for _kind in (Extent, Ratio):
    for _operation, _name in ARITHMETIC.items():
        setattr(_kind, f"__{_name}__", _binary(_operation))
        setattr(_kind, f"__r{_name}__", _reversed(_operation))
    for _name, _function in (
        ("neg", operator.neg),
        ("abs", abs),
        ("ceil", math.ceil),
        ("floor", math.floor),
        ("trunc", math.trunc),
    ):
        setattr(_kind, f"__{_name}__", _unary(_function))
    for _name in "lt le eq ne gt ge".split():
        setattr(_kind, f"__{_name}__", _comparison(getattr(operator, _name)))
    for _name, _method in {
        "bool": _truth,
        "round": _rounded,
        # Comparing takes the hash away.
        "hash": int.__hash__ if _kind is Extent else float.__hash__,
        "divmod": lambda one, other: (one // other, one % other),
        "rdivmod": lambda one, other: (other // one, other % one),
    }.items():
        setattr(_kind, f"__{_name}__", _method)


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

    def condition(self, decision: Decision) -> torch.fx.Node | None:
        """The node that computes whether ``decision`` has its outcome; None if this forward cannot.

        What is the same at all sizes, as far as the forward can tell, has none. Sizes are computed
        for the condition alone, so that the forward stays as it is if nobody needs to check it.
        """
        made, self._made = self._made, {}
        try:
            return self._condition(decision)
        finally:
            self._made = made

    def _condition(self, decision: Decision) -> torch.fx.Node | None:
        args = tuple(map(self._find, decision.args))
        if any(item is None for item in args):
            return None
        if not any(isinstance(item, torch.fx.Node) for item in args):
            return None
        function = decision.function if decision.outcome else OPPOSITE[decision.function]
        return self._graph.call_function(function, args)

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


OPPOSITE: dict[Callable[..., bool], Callable[..., bool]] = {
    operator.lt: operator.ge,
    operator.ge: operator.lt,
    operator.gt: operator.le,
    operator.le: operator.gt,
    operator.eq: operator.ne,
    operator.ne: operator.eq,
}
