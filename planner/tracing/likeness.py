"""Recorded graphs beside one another: those of several calls, and those in another precision."""

from __future__ import annotations

from typing import Any

import torch
import torch.fx

from planner import operations


def text_of(graph: torch.fx.Graph) -> str:
    """``graph`` in words that are equal for graphs that do the same, whatever they check."""
    live = _live(graph)
    numbers: dict[torch.fx.Node, _Number] = {}
    lines: list[str] = []
    for node in graph.nodes:
        if node in live:
            args, kwargs = torch.fx.map_arg((node.args, node.kwargs), numbers.__getitem__)
            numbers[node] = _Number(f"%{len(numbers)}")
            name = node.name if node.op == "placeholder" else numbers[node]
            lines.append(f"{node.op} {name} {_target(node)} {args} {kwargs}")
    return "\n".join(lines)


class _Number(str):
    """A node's place in a graph, which is written without quotes."""

    __slots__ = ()
    __repr__ = str.__str__


def _live(graph: torch.fx.Graph) -> set[torch.fx.Node]:
    """The nodes that change something or are read by one that does."""
    live: set[torch.fx.Node] = set()
    for node in reversed(graph.nodes):
        name = str(_target(node))
        kind = node.op.removeprefix("call_")
        kwargs = tuple(node.kwargs.items())
        if (
            node in live
            or node.op in ("placeholder", "output", "call_module")
            or operations.is_in_place(kind, name, kwargs)
        ):
            live.add(node)
            live.update(node.all_input_nodes)
    return live


def _head(node: torch.fx.Node) -> str:
    return f"{node.op} {node.name} {_target(node)}"


def _target(node: torch.fx.Node) -> object:
    return operations.public_name(node.target) if callable(node.target) else node.target


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
