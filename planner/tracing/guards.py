"""Guards: what stops a recorded graph at sizes that went into it where no decision shows.

A forward may take a size out of sight: as text, or by a library of its own. Its graph is right at
the example's sizes and wrong at others, which verification finds out. Such a graph is given a check
of an axis that tells the sizes apart: one of the module's arguments, however nested; or, where
those have had the same sizes when all was well, one of the model's inputs.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.fx

from planner.tracing.calls import Capture, items_of

Key = tuple[Any, ...]
"""Where a tensor stands among arguments: the argument's name, then indices and keys."""

Shapes = Mapping[Key, tuple[int, ...]]


def shapes_in(arguments: Mapping[str, Any]) -> dict[Key, tuple[int, ...]]:
    """The shapes of all tensors in named arguments."""
    return dict(_shapes(arguments, ()))


def _shapes(value: Any, key: Key) -> Iterator[tuple[Key, tuple[int, ...]]]:
    if isinstance(value, torch.Tensor):
        yield key, tuple(value.shape)
        return
    for index, item in items_of(value).items():
        yield from _shapes(item, (*key, index))


@dataclass(slots=True)
class _Axis:
    """Sizes of one axis at the example's sizes, by batch; and at others."""

    own: dict[int, set[int]] = field(default_factory=dict)
    other: set[int] = field(default_factory=set)


@dataclass(slots=True)
class Served:
    """Sizes of arguments with which graphs did what they should, by what they are captured in."""

    axes: dict[tuple[int, int], dict[tuple[Key, int], _Axis]] = field(default_factory=dict)

    def note(self, capture: Capture, shapes: Shapes, batch: int, *, resized: bool) -> None:
        """``capture`` served ``shapes``; ``resized`` says that the inputs' were not the example's.

        Modules that are alike have the same graphs, and so the same sizes.
        """
        known = self.axes.setdefault(_identity(capture), {})
        for key, shape in shapes.items():
            for axis, size in enumerate(shape):
                sizes = known.setdefault((key, axis), _Axis())
                (sizes.other if resized else sizes.own.setdefault(batch, set())).add(size)

    def lasting(self, capture: Capture, key: Key, axis: int) -> frozenset[int]:
        """Sizes that an axis has at any batch; none if there are others that are served."""
        known = self.axes.get(_identity(capture), {}).get((key, axis), _Axis())
        batches = set(map(frozenset, known.own.values()))
        if len(batches) != 1:
            return frozenset()
        (sizes,) = batches
        return sizes if known.other <= sizes else frozenset()


def _identity(capture: Capture) -> tuple[int, int]:
    return id(capture.train), id(capture.eval)


def guard(capture: Capture, shapes: Shapes, served: Served) -> bool:
    """Make the graphs of ``capture`` refuse arguments of ``shapes``, which they do not serve.

    Returns:
        Whether an axis tells these from the shapes that they do serve.
    """
    found = False
    for key, shape in shapes.items():
        for axis, size in enumerate(shape):
            sizes = served.lasting(capture, key, axis)
            if sizes and size not in sizes:
                found |= _pin(capture, key, axis, sorted(sizes))
    return found


def guard_inputs(capture: Capture, own: Shapes, other: Shapes) -> bool:
    """Make the graphs of ``capture`` want ``own`` shapes where ``other`` ones differ.

    Returns:
        Whether any do.
    """
    found = False
    for key in own.keys() & other.keys():
        for axis, (mine, its) in enumerate(zip(own[key], other[key], strict=True)):
            if mine != its:
                found |= _pin(capture, key, axis, [mine])
    return found


def _pin(capture: Capture, key: Key, axis: int, sizes: list[int]) -> bool:
    """Check one axis of an input; False if the graphs do not have that input."""
    name, *path = key
    if name not in capture.call.inputs:
        return False
    for graph in {id(one): one for one in (capture.train, capture.eval)}.values():
        inputs = list(graph.find_nodes(op="placeholder"))
        node, place = inputs[capture.call.inputs.index(name)], inputs[-1]
        for part in path:
            read = (user for user in node.users if user.args == (node, part))
            known = next((user for user in read if user.target is operator.getitem), None)
            node = place = known or _after(place, operator.getitem, node, part)
        shape = _after(place, getattr, node, "shape")
        size = _after(shape, operator.getitem, shape, axis)
        if len(sizes) == 1:
            condition = _after(size, operator.eq, size, sizes[0])
        else:
            condition = _after(size, operator.contains, tuple(sizes), size)
        _after(condition, torch._check, condition)
    return True


def _after(place: torch.fx.Node, target: Callable[..., Any], *args: Any) -> torch.fx.Node:
    """A node behind ``place`` that gives ``target(*args)``."""
    with place.graph.inserting_after(place):
        return place.graph.call_function(target, args)
