"""Model → :class:`~planner.ir.Program`: a hierarchy of symbolically traced modules."""

from __future__ import annotations

import copy
import inspect
import keyword
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.fx
from torch import nn

from planner.errors import TraceError
from planner.ir import Buffer, Input, Leaf, Parameter, Program, Shared, TensorSpec, Verification
from planner.tracing.constants import to_buffer
from planner.tracing.folding import Block, BlockContainer, BlockNode, fold, map_leaves
from planner.tracing.recovery import is_torch_leaf, recover, without_defaults
from planner.tracing.shapes import propagate
from planner.tracing.symbolic import (
    Call,
    Capture,
    bind,
    capture,
    passed_arguments,
    to_graphs,
)
from planner.tracing.verification import verify as verified

__all__ = ["trace"]

_CONTAINERS: tuple[
    tuple[type[nn.Module], Literal["Sequential", "ModuleList", "ModuleDict"]], ...
] = (
    (nn.Sequential, "Sequential"),
    (nn.ModuleList, "ModuleList"),
    (nn.ModuleDict, "ModuleDict"),
)


def trace(
    model: nn.Module, example_inputs: Sequence[torch.Tensor], *, verify: bool = True
) -> Program:
    """Capture ``model`` as a program.

    Every module that is not ``torch.nn``'s own is traced by its own forward with its children as
    leaves, so hierarchy, class names and attribute names are the model's. Parameters may be on the
    meta device; nothing is computed with them. ``model`` is left as it was.

    Args:
        model: the module; its parameters may lack data, its buffers may not.
        example_inputs: tensors of any device, in the order of ``forward``'s arguments; only shapes
            and dtypes matter, and the values of integers for ``verify``.
        verify: run the captured graphs beside the model, with random weights, in both modes and at
            two batch sizes.

    Raises:
        TraceError: a module cannot be traced, or its graph does not do what its forward does; names
            it, with file and line.
    """
    _refuse_hooks(model)
    _refuse_names(model)
    skeleton = _on_meta(model)
    paths = {id(module): path for path, module in skeleton.named_modules(remove_duplicate=False)}
    leaves = _recover_leaves(skeleton)
    inputs = tuple(tensor.to("meta") for tensor in example_inputs)
    captures = _capture_all(skeleton, inputs, paths, leaves)
    tensors: set[torch.fx.Node] = set()
    outputs: Any = None
    for training in (False, True):
        skeleton.train(training)
        outputs = _run_shapes(skeleton, inputs, captures, tensors)
    verification = Verification(reason="it was not asked for")
    if verify:
        by_path = {
            paths[id(one)]: captures[id(one)] for one in skeleton.modules() if id(one) in captures
        }
        verification = verified(model, by_path, example_inputs)
    builder = _Builder(model, skeleton, captures, tensors, leaves)
    block = builder.block(skeleton, "")
    definitions, root = fold(block, _positional_names)
    return Program(
        tuple(map_leaves(definition, without_defaults) for definition in definitions),
        root,
        tuple(_spec(tensor) for tensor in inputs),
        tuple(_spec(tensor) for tensor in _tensors_in(outputs)),
        verification,
    )


def _spec(tensor: torch.Tensor) -> TensorSpec:
    return TensorSpec(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))


def _tensors_in(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        return [tensor for item in value.values() for tensor in _tensors_in(item)]
    if isinstance(value, (tuple, list)):
        return [tensor for item in value for tensor in _tensors_in(item)]
    return []


def _refuse_hooks(model: nn.Module) -> None:
    for path, module in model.named_modules():
        if module._forward_hooks or module._forward_pre_hooks:
            raise TraceError(
                f"module {path!r} ({type(module).__name__}) has forward hooks, which a graph "
                "does not show: remove them, or move what they do into forward",
                module=path,
            )
        if "forward" in module.__dict__:
            raise TraceError(
                f"module {path!r} ({type(module).__name__}) has a forward of its own as an "
                "attribute, which a graph does not show: define it in the class",
                module=path,
            )


def _refuse_names(model: nn.Module) -> None:
    """Names that the emitted file could not write as attributes."""
    for path, module in model.named_modules():
        containers = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
        for name in (*module._modules, *module._parameters, *module._buffers):
            numbered = name.isascii() and name.isdecimal() and name in module._modules
            if keyword.iskeyword(name) or not (
                name.isidentifier() or (numbered and isinstance(module, containers))
            ):
                raise TraceError(
                    f"module {path!r} ({type(module).__name__}) has an attribute {name!r}: not a "
                    "Python name; give it one (of a ParameterList, register each by name)",
                    module=path,
                )


def _on_meta(model: nn.Module) -> nn.Module:
    """A copy whose tensors have no data; nothing of the original's size is copied."""
    memo: dict[int, Any] = {}
    for parameter in model.parameters():
        memo[id(parameter)] = nn.Parameter(
            parameter.detach().to("meta"), requires_grad=parameter.requires_grad
        )
    for module in model.modules():
        for value in (*module._buffers.values(), *module.__dict__.values()):
            if isinstance(value, torch.Tensor):
                memo[id(value)] = value.detach().to("meta")
    try:
        return copy.deepcopy(model, memo)
    except Exception as error:  # whatever a user's __deepcopy__ or attribute raises
        raise TraceError(
            f"the model cannot be copied ({type(error).__name__}: {error}): remove attributes that "
            "copy.deepcopy refuses, such as locks, files or generators"
        ) from error


def _recover_leaves(model: nn.Module) -> dict[int, Leaf]:
    """Constructor calls of torch's own modules; those that cannot be rebuilt are traced instead."""
    leaves: dict[int, Leaf] = {}

    def visit(module: nn.Module) -> None:
        # The root becomes a class of the emitted file, so one of torch's is traced like a user's.
        if module is not model and is_torch_leaf(module):
            try:
                leaves[id(module)] = recover(module)
            except (ValueError, TypeError):
                pass
            else:
                return
        for child in module.children():
            visit(child)

    visit(model)
    return leaves


def _is_plain(module: nn.Module) -> bool:
    return type(module) in (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def _runs_in_order(module: nn.Module) -> bool:
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


def _capture_all(
    model: nn.Module,
    inputs: tuple[torch.Tensor, ...],
    paths: dict[int, str],
    leaves: dict[int, Leaf],
) -> dict[int, Capture]:
    """Trace every module with a forward of its own, top down, as its callers call it."""
    captures: dict[int, Capture] = {}
    calls: dict[int, Call] = {}
    queue: list[nn.Module] = []

    def called(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if id(module) in leaves or isinstance(module, torch.fx.GraphModule):
            return
        if _runs_in_order(module):
            for child in module.children():
                called(child, args, kwargs)
            return
        try:
            call = bind(module, args, kwargs)
        except TypeError as error:
            path = paths.get(id(module), "")
            raise TraceError(
                f"module {path!r} ({type(module).__name__}) cannot be called as its caller does: "
                f"{error}",
                module=path,
            ) from error
        known = calls.get(id(module))
        merged = call if known is None else _union(module, known, call, paths[id(module)])
        if merged != known:
            calls[id(module)] = merged
            queue.append(module)

    called(model, inputs, {})
    while queue:
        module = queue.pop(0)
        captured = capture(module, calls[id(module)], paths[id(module)])
        captures[id(module)] = captured
        for graph in (captured.train, captured.eval):
            for node in graph.nodes:
                if node.op == "call_module":
                    called(module.get_submodule(str(node.target)), node.args, node.kwargs)
    return captures


def _union(module: nn.Module, one: Call, other: Call, path: str) -> Call:
    """A call that serves both: a number that is an input in either is an input."""
    inputs: list[str] = []
    mine, theirs = dict(one.constants), dict(other.constants)
    constants: list[tuple[str, object]] = []
    for name in inspect.signature(type(module).forward).parameters:
        values = [known[name] for known in (mine, theirs) if name in known]
        if len(values) == 2 and values[0] == values[1]:
            constants.append((name, values[0]))
        elif len(values) < 2 and all(type(value) in (int, float) for value in values):
            if name in (*one.inputs, *other.inputs):
                inputs.append(name)
        else:
            # None or a flag decides which way the forward goes, so one class cannot serve both.
            raise TraceError(
                f"module {path!r} is called with different values of {name!r}: "
                "make it an attribute of the module, or use two modules",
                module=path,
            )
    return Call(tuple(inputs), tuple(constants))


def _run_shapes(
    model: nn.Module,
    inputs: tuple[torch.Tensor, ...],
    captures: dict[int, Capture],
    tensors: set[torch.fx.Node],
) -> Any:
    try:
        if id(model) in captures:
            return propagate(model, captures[id(model)], inputs, {}, captures, tensors)
        value: Any = inputs
        for child in model.children():
            arguments = value if isinstance(value, tuple) else (value,)
            if id(child) in captures:
                value = propagate(child, captures[id(child)], arguments, {}, captures, tensors)
            else:
                value = child(*arguments)
        return value
    except Exception as error:  # an operator's own complaint about shapes
        text = str(error).strip().splitlines()
        raise TraceError(
            f"the captured model does not run on inputs of shapes "
            f"{', '.join('x'.join(map(str, tensor.shape)) for tensor in inputs)}: "
            f"{text[0] if text else type(error).__name__}. Check --input / example_inputs."
        ) from error


def _positional_names(leaf_type: str) -> tuple[str, ...]:
    """Names of a torch.nn constructor's arguments, in order."""
    return tuple(inspect.signature(getattr(nn, leaf_type)).parameters)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


class _Builder:
    """Modules → blocks: what folding needs, with no torch object left."""

    def __init__(
        self,
        model: nn.Module,
        skeleton: nn.Module,
        captures: dict[int, Capture],
        tensors: set[torch.fx.Node],
        leaves: dict[int, Leaf],
    ) -> None:
        self.model = model
        self.captures = captures
        self.tensors = tensors
        self.leaves = leaves
        self.placed: dict[int, str] = {}
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
        captured = self.captures.get(id(module))
        seen: dict[int, str] = {}
        children = tuple(
            (name, self.node(child, path, name, seen))
            for name, child in module._modules.items()
            if child is not None
        )
        base: Literal["Module", "Sequential", "ModuleList", "ModuleDict"] = "Module"
        if not all(name.isidentifier() for name, _ in children) or _runs_in_order(module):
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
                    return passed_arguments(child, callee.call, args, kwargs)

                train, evaluation = to_graphs(captured, self.tensors, call_arguments)
            except TypeError as error:
                raise TraceError(
                    f"module {path!r} ({type(module).__name__}) passes an argument that is not a "
                    f"literal: {error}",
                    module=path,
                ) from error
            inputs = self.inputs(captured)
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
            self.buffers(module, path, captured),
            inputs,
            train,
            evaluation,
        )

    def node(self, child: nn.Module, path: str, name: str, seen: dict[int, str]) -> BlockNode:
        """``child`` at ``name`` below ``path``; ``seen`` maps modules to paths within the block."""
        if id(child) in seen:
            return Shared(seen[id(child)])
        if id(child) in self.placed and child._buffers:
            # Its parameters are tied by their names; two copies of a buffer would drift apart.
            raise TraceError(
                f"module {_join(path, name)!r} ({type(child).__name__}) keeps buffers and stands "
                f"in another block as well, at {self.placed[id(child)]!r}: build one for each",
                module=_join(path, name),
            )
        self.placed[id(child)] = _join(path, name)
        seen[id(child)] = name
        full = _join(path, name)
        if _is_plain(child):
            return BlockContainer(
                next(kind for type_, kind in _CONTAINERS if type(child) is type_),
                tuple(
                    (key, self.node(grandchild, path, f"{name}.{key}", seen))
                    for key, grandchild in child._modules.items()
                    if grandchild is not None
                ),
            )
        if id(child) in self.leaves:
            return self.leaves[id(child)]
        return self.block(child, full)

    def inputs(self, captured: Capture) -> tuple[Input, ...]:
        found: list[Input] = []
        for node in captured.train.nodes:
            if node.op == "placeholder":
                type_ = node.meta.get("type")
                is_list = type_ in (list, tuple) or (node.name.endswith("s") and type_ is list)
                kind: Literal["tensor", "tensors", "any"] = "any"
                if node in self.tensors:
                    kind = "tensor"
                elif is_list:
                    kind = "tensors"
                found.append(Input(node.name, kind))
        return tuple(found)

    def buffers(self, module: nn.Module, path: str, captured: Capture | None) -> tuple[Buffer, ...]:
        real = self.model.get_submodule(path)
        found: list[Buffer] = []
        for name, buffer in real._buffers.items():
            if buffer is not None:
                persistent = name not in real._non_persistent_buffers_set
                found.append(to_buffer(name, buffer, persistent=persistent, module=path))
        made = captured.constants if captured is not None else {}
        for name in sorted(self.read.get(id(real), ())):
            value = real.__dict__.get(name, made.get(name))
            if isinstance(value, torch.Tensor):
                found.append(to_buffer(name, value, persistent=False, module=path))
        return tuple(found)
