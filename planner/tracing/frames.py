"""A forward that is being recorded: its graph, and which node stands for which value."""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.fx
from torch import nn

from planner.tracing.calls import (
    Call,
    Context,
    is_computed,
    items_of,
)
from planner.tracing.extents import (
    Extent,
    Extents,
    Ratio,
    plain,
)
from planner.tracing.faults import UnseenError
from planner.tracing.naming import NAME, local_variables


class InlineError(Exception):
    """The module named by ``path`` cannot have a forward of its own: it belongs to its caller's."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(reason)
        self.path = path


@dataclass(slots=True)
class Recorded:
    """One call of a module: its graph and the tensors that no module owns.

    ``text`` says what the graph does, apart from what it checks.
    """

    call: Call
    graph: torch.fx.Graph
    constants: dict[str, torch.Tensor]
    text: str


class RecordingError(Exception):
    """``cause`` was raised while the forward of the module at ``path`` ran."""

    def __init__(self, path: str, cause: Exception) -> None:
        super().__init__(str(cause))
        self.path = path
        self.cause = cause


@dataclass(slots=True)
class Frame:
    """A forward that is being recorded. ``kept`` keeps ids from being used again."""

    module: nn.Module
    path: str
    call: Call
    graph: torch.fx.Graph
    extents: Extents
    nodes: dict[int, torch.fx.Node]
    context: Context
    device: torch.fx.Node | None = None
    parts: dict[int, tuple[Any, ...]] = field(default_factory=dict)
    kept: list[Any] = field(default_factory=list)
    constants: dict[str, torch.Tensor] = field(default_factory=dict)
    sizes: dict[int, str] = field(default_factory=dict)

    def note_names(self) -> None:
        """Call values what the forward calls them at this moment."""
        forward = getattr(self.module.forward, "__code__", None)
        for name, value in local_variables(forward):
            if id(value) in self.nodes:
                self.nodes[id(value)].meta.setdefault(NAME, name)
            elif isinstance(value, (Extent, Ratio)) and id(value) not in self.sizes:
                self.sizes[id(value)] = name
                self.kept.append(value)

    def size(self, value: Extent | Ratio) -> Any:
        """The node that computes a size, or its number."""
        node = self.extents.value(value)
        if isinstance(node, torch.fx.Node) and id(value) in self.sizes:
            node.meta.setdefault(NAME, self.sizes[id(value)])
        return node

    def refuse_autocast(self) -> None:
        """Stop where autocast is not what it was when the forward was called."""
        if self.context.autocast != Context.now().autocast:
            raise UnseenError("it switches autocast within its forward, which no graph shows")

    def node_of(self, value: Any) -> torch.fx.Node | None:
        """The node that stands for ``value``, unless it is a container that was changed since."""
        node = self.nodes.get(id(value))
        if node is not None and self.parts.get(id(value), ()) != _parts(value):
            return None
        return node

    def learn(self, value: Any, node: torch.fx.Node, *, detached: bool = False) -> None:
        """``node`` stands for ``value``, and its items for what ``value`` holds.

        ``detached`` says that no gradients go back through it.
        """
        if isinstance(value, torch.Tensor):
            if detached and value.is_floating_point():
                node = self.graph.call_method("detach", (node,))
            node.meta["dtype"] = value.dtype
            node.meta["shape"] = tuple(map(plain, value.shape))
        if isinstance(value, (torch.Tensor, Extent, Ratio)):
            self.nodes[id(value)] = node
            self.kept.append(value)
        elif is_computed(value):
            if type(value) in (tuple, list):
                node.meta["parts"] = type(value), len(value)
            self.nodes[id(value)] = node
            self.kept.append(value)
            self.parts[id(value)] = _parts(value)
            for key, item in items_of(value).items():
                if is_computed(item):
                    made = self.graph.call_function(operator.getitem, (node, key))
                    self.learn(item, made, detached=detached)


def _parts(value: Any) -> tuple[Any, ...]:
    """What a container holds, by identity; nothing for anything else."""
    if not isinstance(value, (list, dict)):
        return ()
    return tuple((key, id(item)) for key, item in items_of(value).items())
