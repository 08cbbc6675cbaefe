"""Recorded graphs beside one another: those of several calls, and those in another precision."""

from __future__ import annotations

from typing import Any

import torch
import torch.fx

from planner import operations


def text_of(graph: torch.fx.Graph) -> str:
    """``graph`` in words that are equal for graphs that do the same."""
    return "\n".join(map(_line, graph.nodes))


def _line(node: torch.fx.Node) -> str:
    return f"{_head(node)} {node.args} {node.kwargs}"


def _head(node: torch.fx.Node) -> str:
    target = operations.public_name(node.target) if callable(node.target) else node.target
    return f"{node.op} {node.name} {target}"


def follow_dtypes(one: torch.fx.Graph, wide: torch.fx.Graph) -> None:
    """Where a dtype is that of the data, read it off the data.

    ``wide`` is the same call with float64 for float32 in the model and its inputs: a dtype that
    changed with them is theirs, so ``x.to(y.dtype)`` stays what it is in any precision.
    """
    nodes, others = list(one.nodes), list(wide.nodes)
    if list(map(_head, nodes)) != list(map(_head, others)):
        return
    data: torch.fx.Node | None = None
    for mine, other in zip(nodes, others, strict=True):
        if data is not None and mine.op in ("call_function", "call_method"):
            _follow(mine, other, data)
        if data is None and mine.meta.get("dtype") is not other.meta.get("dtype"):
            data = mine


def _follow(mine: torch.fx.Node, other: torch.fx.Node, data: torch.fx.Node) -> None:
    def is_data(value: Any, theirs: Any) -> bool:
        return isinstance(value, torch.dtype) and value is not theirs

    pairs = [*zip(mine.args, other.args, strict=False)]
    pairs += [(value, other.kwargs.get(key)) for key, value in mine.kwargs.items()]
    if not any(is_data(value, theirs) for value, theirs in pairs):
        return
    with mine.graph.inserting_before(mine):
        dtype = mine.graph.call_function(getattr, (data, "dtype"))
    mine.args = tuple(
        dtype if is_data(value, theirs) else value
        for value, theirs in zip(mine.args, other.args, strict=True)
    )
    mine.kwargs = {
        key: dtype if is_data(value, other.kwargs.get(key)) else value
        for key, value in mine.kwargs.items()
    }
