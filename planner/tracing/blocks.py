"""Modules and their captured forwards as blocks: what folding needs, with no torch object left."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.fx
from torch import nn

from planner.errors import TraceError
from planner.ir import Buffer, Input, Leaf, Parameter, Shared
from planner.origins import Origins
from planner.tracing.calls import Capture, input_name, passed_arguments
from planner.tracing.constants import to_buffer
from planner.tracing.folding import Block, BlockContainer, BlockNode
from planner.tracing.graphs import to_graphs, used_inputs
from planner.tracing.skeletons import is_plain, runs_in_order

_CONTAINERS: tuple[
    tuple[type[nn.Module], Literal["Sequential", "ModuleList", "ModuleDict"]], ...
] = (
    (nn.Sequential, "Sequential"),
    (nn.ModuleList, "ModuleList"),
    (nn.ModuleDict, "ModuleDict"),
)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


class Builder:
    """Modules → blocks: what folding needs, with no torch object left."""

    def __init__(
        self,
        model: nn.Module,
        skeleton: nn.Module,
        captures: dict[int, Capture],
        tensors: set[torch.fx.Node],
        leaves: dict[int, Leaf],
        origins: Origins | None = None,
    ) -> None:
        self.model = model
        self.origins = origins
        self.captures = captures
        self.tensors = tensors
        self.leaves = leaves
        self.placed: dict[int, str] = {}
        # The inputs that a module's forward reads; children come before those that call them.
        self.used: dict[int, tuple[str, ...]] = {}
        # Tensors that are plain attributes may be read by a module further up.
        self.read: dict[int, set[str]] = {}
        for path, module in model.named_modules():
            captured = captures.get(id(skeleton.get_submodule(path)))
            for graph in (captured.train, captured.eval) if captured is not None else ():
                for node in graph.nodes:
                    if node.op == "get_attr":
                        owner, _, name = str(node.target).rpartition(".")
                        found = self.read.setdefault(id(module.get_submodule(owner)), set())
                        found.add(name)

    def block(self, module: nn.Module, path: str) -> Block:
        """The block of ``module``, which stands at ``path``."""
        captured = self.captures.get(id(module))
        seen: dict[int, str] = {}
        children = tuple(
            (name, self._node(child, path, name, seen))
            for name, child in module._modules.items()
            if child is not None
        )
        base: Literal["Module", "Sequential", "ModuleList", "ModuleDict"] = "Module"
        if not all(name.isidentifier() for name, _ in children) or runs_in_order(module):
            base = next(
                (name for type_, name in _CONTAINERS if isinstance(module, type_)), "Module"
            )
        train = evaluation = None
        inputs: tuple[Input, ...] = ()
        if captured is not None:
            try:

                def call_arguments(target: str, args: Any, kwargs: Any) -> Any:
                    child = module.get_submodule(target)
                    callee = self.captures.get(id(child))
                    if callee is None:
                        return args, kwargs
                    return passed_arguments(child, self.used[id(child)], args, kwargs)

                train, evaluation = to_graphs(captured, self.tensors, call_arguments)
                self.used[id(module)] = used_inputs(captured.call, train, evaluation)
                if path == "":
                    self.used[id(module)] = captured.call.inputs
            except TypeError as error:
                raise TraceError(
                    f"module {path!r} ({type(module).__name__}) passes an argument that is not a "
                    f"literal: {error}",
                    module=path,
                ) from error
            inputs = self._inputs(captured, self.used[id(module)])
        name = type(module).__name__
        if type(module).__module__.startswith("torch.nn"):
            name = "Model" if path == "" else name
        parameters = tuple(
            Parameter(
                attribute,
                tuple(parameter.shape),
                str(parameter.dtype).removeprefix("torch."),
                parameter.requires_grad,
            )
            for attribute, parameter in module._parameters.items()
            if parameter is not None
        )
        return Block(
            name,
            base,
            children,
            parameters,
            self._buffers(module, path, captured),
            inputs,
            train,
            evaluation,
            "symbolic" if captured is None else captured.rung,
        )

    def _node(self, child: nn.Module, path: str, name: str, seen: dict[int, str]) -> BlockNode:
        """``child`` at ``name`` below ``path``; ``seen`` maps modules to paths within the block."""
        if id(child) in seen:
            return Shared(seen[id(child)])
        if id(child) in self.placed and next(child.buffers(recurse=False), None) is not None:
            # Its parameters are tied by their names; two copies of a buffer would drift apart.
            raise TraceError(
                f"module {_join(path, name)!r} ({type(child).__name__}) keeps buffers and stands "
                f"in another block as well, at {self.placed[id(child)]!r}: build one for each",
                module=_join(path, name),
            )
        self.placed[id(child)] = _join(path, name)
        seen[id(child)] = name
        full = _join(path, name)
        if is_plain(child):
            return BlockContainer(
                next(kind for type_, kind in _CONTAINERS if type(child) is type_),
                tuple(
                    (key, self._node(grandchild, path, f"{name}.{key}", seen))
                    for key, grandchild in child._modules.items()
                    if grandchild is not None
                ),
            )
        if id(child) in self.leaves:
            return self.leaves[id(child)]
        return self.block(child, full)

    def _inputs(self, captured: Capture, used: tuple[str, ...]) -> tuple[Input, ...]:
        found: list[Input] = []
        read = {input_name(name) for name in used}
        for node in captured.train.nodes:
            if node.op == "placeholder" and node.name in read:
                type_ = node.meta.get("type")
                is_list = type_ in (list, tuple) or (node.name.endswith("s") and type_ is list)
                kind: Literal["tensor", "tensors", "any"] = "any"
                if node in self.tensors:
                    kind = "tensor"
                elif is_list:
                    kind = "tensors"
                found.append(Input(node.name, kind))
        return tuple(found)

    def _buffers(
        self, module: nn.Module, path: str, captured: Capture | None
    ) -> tuple[Buffer, ...]:
        real = self.model.get_submodule(path)
        found: list[Buffer] = []
        for name, buffer in real._buffers.items():
            if buffer is not None:
                persistent = name not in real._non_persistent_buffers_set
                found.append(self._buffer(name, buffer, path, persistent=persistent))
        made = captured.constants if captured is not None else {}
        for name in sorted(self.read.get(id(real), ())):
            value = real.__dict__.get(name, made.get(name))
            if isinstance(value, torch.Tensor):
                found.append(self._buffer(name, value, path, persistent=False))
        return tuple(found)

    def _buffer(self, name: str, value: torch.Tensor, path: str, *, persistent: bool) -> Buffer:
        return to_buffer(name, value, persistent=persistent, module=path, origins=self.origins)
