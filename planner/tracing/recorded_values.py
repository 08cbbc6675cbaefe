"""Values of a forward that is recorded, as arguments, outputs and buffers of its graph."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from itertools import chain
from typing import Any

import torch
import torch.fx
from torch import nn
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.nn.utils.rnn import PackedSequence

from planner.tracing.calls import (
    is_computed,
    items_of,
)
from planner.tracing.extents import (
    Extent,
    Ratio,
    plain,
)
from planner.tracing.faults import UnseenError
from planner.tracing.frames import Frame, InlineError
from planner.tracing.keys import attributes
from planner.tracing.values import is_literal


class Values:
    """The forwards that are being recorded, innermost last, and what their graphs read.

    Args:
        model: the whole of it.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.frames: list[Frame] = []
        self.finished: list[Frame] = []
        self.owned: dict[int, tuple[dict[int, str], dict[int, str]]] = {}

    def names(self, module: nn.Module) -> tuple[dict[int, str], dict[int, str]]:
        """Modules and tensors below ``module``, by id: their paths."""
        found = self.owned.get(id(module))
        if found is None:
            modules: dict[int, str] = {}
            tensors: dict[int, str] = {}
            for path, part in module.named_modules(remove_duplicate=False):
                modules.setdefault(id(part), path)
                own = attributes(part).items()
                held = (*part._parameters.items(), *part._buffers.items(), *own)
                for name, value in held:
                    if isinstance(value, torch.Tensor):
                        tensors.setdefault(id(value), f"{path}.{name}" if path else name)
            found = self.owned[id(module)] = (modules, tensors)
        return found

    def to_arguments(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of a call, which are several values, also if they are all parts of one."""
        given = tuple(self.to_argument(item) for item in args)
        return given, {key: self.to_argument(item) for key, item in kwargs.items()}

    def to_argument(self, value: Any) -> Any:
        """``value`` as an argument of a node in the present frame."""
        frame = self.frames[-1]
        node = frame.node_of(value)
        if node is not None:
            return node
        if isinstance(value, torch.Tensor):
            return self.tensor(value)
        if isinstance(value, (Extent, Ratio)):
            return frame.size(value)
        if isinstance(value, torch.device):
            return self.device(value)
        if isinstance(value, slice):
            return slice(
                *(self.to_argument(part) for part in (value.start, value.stop, value.step))
            )
        if isinstance(value, PackedSequence):
            parts = tuple(self.to_argument(item) for item in value)
            frame.kept.append(value)
            frame.nodes[id(value)] = frame.graph.call_function(PackedSequence, parts)
            return frame.nodes[id(value)]
        if isinstance(value, (torch.Size, tuple, list)):
            items = [self.to_argument(item) for item in value]
            whole = _whole(items)
            if whole is not None and whole.meta["parts"][0] is tuple:
                return whole
            return items if isinstance(value, list) else tuple(items)
        if isinstance(value, Mapping) or is_computed(value):
            return {key: self.to_argument(item) for key, item in items_of(value).items()}
        return value

    def to_output(self, value: Any) -> Any:
        """What a forward returns, as the output of its graph."""
        held = items_of(value)
        if held and not isinstance(value, (torch.Tensor, PackedSequence)):
            items = {key: self.to_output(item) for key, item in held.items()}
            if isinstance(value, (tuple, list)):
                kind = list if isinstance(value, list) else tuple
                whole = _whole(list(items.values()))
                if whole is None:
                    return kind(items.values())
                if whole.meta["parts"][0] is kind:
                    return whole
                return self.frames[-1].graph.call_function(kind, (whole,))
            return items
        if len(self.frames) > 1 and not is_computed(value) and not is_literal(value):
            # An object, such as a cache, that the caller may look into; graphs cannot.
            return None
        return self.to_argument(value)

    def device(self, value: torch.device) -> Any:
        """The device of the data, which is where the model will be, not where it is recorded."""
        frame = self.frames[-1]
        if frame.device is None:
            tensor = next((one for one in frame.kept if isinstance(one, torch.Tensor)), None)
            if tensor is None:
                module = frame.module
                tensor = next(chain(module.parameters(), module.buffers()), None)
            if tensor is None and len(self.frames) > 1:
                raise InlineError(frame.path, "it has no tensor to read the device off")
            if tensor is None:
                return value
            frame.device = frame.graph.call_function(getattr, (self.tensor(tensor), "device"))
        return frame.device

    def tensor(self, value: torch.Tensor) -> torch.fx.Node:
        """The node of a tensor that the forward reads first here."""
        frame = self.frames[-1]
        if id(value) in frame.nodes:
            return frame.nodes[id(value)]
        path = self.names(frame.module)[1].get(id(value))
        if path is None and id(value) in self.names(self.model)[1]:
            raise InlineError(frame.path, "it reads a tensor of a module that is not below it")
        if path is None and any(id(value) in outer.nodes for outer in self.frames[:-1]):
            raise InlineError(frame.path, "it reads a tensor that it was not given")
        if path is None:
            for other in self.finished:
                if id(value) in other.nodes and other.path not in ("", frame.path):
                    raise InlineError(other.path, "what it computes is read elsewhere")
        if path is None:
            path = self.constant(value)
        node = frame.graph.get_attr(path)
        frame.learn(value, node)
        return node

    def constant(self, value: torch.Tensor) -> str:
        """The name of a tensor that no module owns, such as a global of the model's file."""
        frame = self.frames[-1]
        if is_functorch_wrapped_tensor(value):
            raise UnseenError("it maps or derives a function, as torch.vmap and torch.func do")
        if value.is_meta:
            raise UnseenError("a tensor is made where no function of torch shows")
        if type(value) is not torch.Tensor:
            raise UnseenError("a tensor that was computed elsewhere is read")
        name = f"constant{len(frame.constants)}"
        while hasattr(frame.module, name):
            name += "_"
        frame.constants[name] = value
        return name

    def write_back(self, module: nn.Module, buffers: Mapping[str, torch.Tensor | None]) -> None:
        """Write what a forward assigned to its ``buffers`` into them.

        What has another shape cannot be: such a buffer remembers what it was last computed for, and
        where the recorded run computes it, so does the emitted forward, each time.

        Raises:
            UnseenError: it is kept in the state as well.
        """
        for name, value in module._buffers.items():
            before = buffers.get(name)
            if name in module._non_persistent_buffers_set and before is None:
                continue  # a cache that starts empty
            if value is not None and name in buffers and value is not before:
                if before is not None and plain(value.shape) != plain(before.shape):
                    if name not in module._non_persistent_buffers_set:
                        raise UnseenError(f"its buffer {name!r} gets another shape")
                    continue
                graph = self.frames[-1].graph
                graph.call_method("copy_", (graph.get_attr(name), self.to_argument(value)))
        module._buffers.update(buffers)


def _whole(items: list[Any]) -> torch.fx.Node | None:
    """The value of which ``items`` are all the parts, however many those are for other sizes."""
    first = items[0] if items else None
    if not isinstance(first, torch.fx.Node) or first.target is not operator.getitem:
        return None
    whole = first.args[0]
    if not isinstance(whole, torch.fx.Node) or whole.meta.get("parts", (None, 0))[1] != len(items):
        return None
    parts = [getattr(item, "args", None) for item in items]
    return whole if parts == [(whole, index) for index in range(len(items))] else None
