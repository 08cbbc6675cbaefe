"""One run of shape propagation through the captured graphs, on the meta device.

The run interprets every captured forward in place of the module's own, so it also proves that the
graphs fit together; no tensor has data.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.fx
from torch import nn

from planner.tracing.calls import Capture, arguments_of
from planner.tracing.functions import shaped
from planner.tracing.skeletons import runs_in_order


class HierarchicalShapeProp(torch.fx.Interpreter):
    """Runs a captured graph, and those of the children where it calls them.

    ``tensors`` collects every node whose value is a tensor, over all graphs.
    """

    def __init__(
        self,
        module: nn.Module,
        graph: torch.fx.Graph,
        captures: dict[int, Capture],
        tensors: set[torch.fx.Node],
    ) -> None:
        super().__init__(module, graph=graph)
        self.extra_traceback = False
        self.captures = captures
        self.tensors = tensors

    def run_node(self, n: torch.fx.Node) -> Any:
        """Run one node and note whether it gives a tensor."""
        result = super().run_node(n)
        if isinstance(result, torch.Tensor):
            self.tensors.add(n)
        return result

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Run a function for its result's shape."""
        return shaped(target, args, kwargs)

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Read a tensor; constants that the forward made have data and lose it here."""
        value = super().get_attr(target, args, kwargs)
        return value.to("meta") if isinstance(value, torch.Tensor) else value

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Run a child by its captured graph, or by its own forward if it is a layer of torch."""
        return propagate(self.fetch_attr(target), args, kwargs, self.captures, self.tensors)


def propagate(
    module: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    captures: dict[int, Capture],
    tensors: set[torch.fx.Node],
) -> Any:
    """Run ``module`` on meta tensors, by the captured graphs of its present mode."""
    capture = captures.get(id(module))
    if capture is not None:
        given = arguments_of(module, args, kwargs)
        graph = capture.train if module.training else capture.eval
        values = [given[name] for name in capture.call.inputs]
        # What the forward makes on the default device is made without data as well.
        with torch.device("meta"):
            return HierarchicalShapeProp(module, graph, captures, tensors).run(*values)
    if runs_in_order(module):
        (value,) = args
        for child in module.children():
            value = propagate(child, (value,), {}, captures, tensors)
        return value
    return module(*args, **kwargs)
