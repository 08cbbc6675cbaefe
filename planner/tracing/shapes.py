"""Captured graphs run as one: each forward's graph in place of the module's own.

On the meta device this propagates shapes, and proves that the graphs fit together; with values it
computes what the captured program computes.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

import torch
import torch.fx
from torch import nn

from planner.tracing.calls import Capture, arguments_of, as_graphs
from planner.tracing.functions import map_tensors, run_leaf, shaped
from planner.tracing.keys import likeness
from planner.tracing.repeats import Repeats
from planner.tracing.skeletons import runs_in_order

Captures = Mapping[int, Capture]


def marks(captures: Captures) -> dict[int, Hashable]:
    """What tells modules apart by what was captured of them, by the module's ``id``."""
    return {key: (id(one.train), id(one.eval)) for key, one in captures.items()}


class Hierarchy(torch.fx.Interpreter):
    """Runs a captured graph, and those of the children where it calls them."""

    def __init__(self, module: nn.Module, graph: torch.fx.Graph, captures: Captures) -> None:
        super().__init__(module, graph=graph)
        self.extra_traceback = False
        self.captures = captures

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Run a child by its captured graph, or by its own forward if it is a layer of torch."""
        return run_captured(self.fetch_attr(target), args, kwargs, self.captures, self.child)

    def run_node(self, n: torch.fx.Node) -> Any:
        """Run one node, unless it is a check, which computes nothing."""
        return None if n.target is torch._check else super().run_node(n)

    def child(self, module: nn.Module, graph: torch.fx.Graph, captures: Captures) -> Hierarchy:
        """What runs the graph of a child."""
        return Hierarchy(module, graph, captures)


class HierarchicalShapeProp(Hierarchy):
    """Runs captured graphs on the meta device.

    ``tensors`` collects every node whose value is a tensor, over all graphs.
    """

    def __init__(
        self,
        module: nn.Module,
        graph: torch.fx.Graph,
        captures: Captures,
        tensors: set[torch.fx.Node],
        repeats: Repeats[Any],
    ) -> None:
        super().__init__(module, graph, captures)
        self.tensors = tensors
        self.repeats = repeats

    def child(self, module: nn.Module, graph: torch.fx.Graph, captures: Captures) -> Hierarchy:
        """What runs the graph of a child."""
        return HierarchicalShapeProp(module, graph, captures, self.tensors, self.repeats)

    def run(self, *args: Any, **options: Any) -> Any:
        """Run the graph, unless it was run for a module that is like this one."""
        call = likeness(args)
        known = self.repeats.find(self.module, call)
        if known is None:
            with self.repeats.running(self.module, call) as keep:
                output = super().run(*args, **options)
                if likeness(output) is None:
                    return output
                known = (output,)
                keep(known)
                return output
        return map_tensors(known[0], torch.clone)

    def run_node(self, n: torch.fx.Node) -> Any:
        """Run one node and note whether it gives a tensor."""
        result = super().run_node(n)
        if isinstance(result, torch.Tensor):
            self.tensors.add(n)
        return result

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Run a function for its result's shape."""
        return shaped(target, args, kwargs)

    def call_method(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Call a method for its result's shape."""
        if isinstance(args[0], torch.Tensor):
            return shaped(getattr(torch.Tensor, target), args, kwargs)
        return super().call_method(target, args, kwargs)

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Read a tensor; constants that the forward made have data and lose it here."""
        value = super().get_attr(target, args, kwargs)
        return value.to("meta") if isinstance(value, torch.Tensor) else value


def run_captured(
    module: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    captures: Captures,
    interpreter: Callable[[nn.Module, torch.fx.Graph, Captures], Hierarchy] = Hierarchy,
) -> Any:
    """Run ``module`` by the captured graphs of its present mode."""
    capture = captures.get(id(module))
    if capture is not None:
        given = arguments_of(module, args, kwargs)
        graph = capture.train if module.training else capture.eval
        values = [as_graphs(given[name]) for name in capture.call.inputs]
        return interpreter(module, graph, captures).run(*values)
    if runs_in_order(module):
        (value,) = args
        for child in module.children():
            value = run_captured(child, (value,), {}, captures, interpreter)
        return value
    return run_leaf(module, args, kwargs)


def propagate(
    module: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    captures: Captures,
    tensors: set[torch.fx.Node],
) -> Any:
    """Run ``module`` on meta tensors, by the captured graphs of its present mode."""
    repeats: Repeats[Any] = Repeats(module, marks(captures))

    def interpreter(module: nn.Module, graph: torch.fx.Graph, captures: Captures) -> Hierarchy:
        return HierarchicalShapeProp(module, graph, captures, tensors, repeats)

    # What a forward makes on the default device is made without data as well.
    with torch.device("meta"), repeats.watching():
        return run_captured(module, args, kwargs, captures, interpreter)
