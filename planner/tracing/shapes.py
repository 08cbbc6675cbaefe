"""One run of shape propagation through the captured graphs, on the meta device.

The run interprets every captured forward in place of the module's own, so it also proves that the
graphs fit together; no tensor has data.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
import torch.fx
from torch import nn
from torch.fx.passes.shape_prop import ShapeProp

from planner.tracing.symbolic import Capture


class HierarchicalShapeProp(ShapeProp):
    """ShapeProp that enters children by their captured graphs.

    ``tensors`` collects every node whose value is a tensor, over all graphs.
    """

    def __init__(
        self,
        module: nn.Module,
        graph: torch.fx.Graph,
        captures: dict[int, Capture],
        tensors: set[torch.fx.Node],
    ) -> None:
        torch.fx.Interpreter.__init__(self, module, graph=graph)
        self.fake_module = None
        self.fake_mode = None
        self.real_module = module
        self.captures = captures
        self.tensors = tensors

    def run_node(self, n: torch.fx.Node) -> Any:
        """Run one node and note whether it gives a tensor."""
        result = super().run_node(n)
        if isinstance(result, torch.Tensor):
            self.tensors.add(n)
        return result

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Read a tensor; constants that the forward made have data and lose it here."""
        value = super().get_attr(target, args, kwargs)
        return value.to("meta") if isinstance(value, torch.Tensor) else value

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Run a child by its captured graph, or by its own forward if it is a layer of torch."""
        return self._enter(self.fetch_attr(target), args, kwargs)

    def _enter(self, module: nn.Module, args: Any, kwargs: Any) -> Any:
        capture = self.captures.get(id(module))
        if capture is not None:
            return propagate(module, capture, args, kwargs, self.captures, self.tensors)
        if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
            (value,) = args
            for child in module:
                value = self._enter(child, (value,), {})
            return value
        return module(*args, **kwargs)


def propagate(
    module: nn.Module,
    capture: Capture,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    captures: dict[int, Capture],
    tensors: set[torch.fx.Node],
) -> Any:
    """Run ``module``'s captured graph of its present mode on meta tensors; returns its output."""
    bound = inspect.signature(type(module).forward).bind(module, *args, **kwargs)
    bound.apply_defaults()
    graph = capture.train if module.training else capture.eval
    values = [bound.arguments[name] for name in capture.call.inputs]
    # What the forward makes on the default device is made without data as well.
    with torch.device("meta"):
        return HierarchicalShapeProp(module, graph, captures, tensors).run(*values)
