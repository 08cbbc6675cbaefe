"""Symbolic trace of one module's own forward: its children are leaves, its mode stays a mode.

The forward is traced once in training and once in evaluation. Where the two differ by a flag
alone (``F.dropout(training=...)``) the flag becomes ``self.training``; where they differ in
structure both are kept. Only what the caller passes as a tensor becomes an input; constants and
defaults keep their values, so that ``if mask is not None`` takes the branch that the model takes.
"""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.fx
from torch import nn

from planner import operations
from planner.errors import TraceError
from planner.ir import Graph, Operation, Training, Value, references
from planner.tracing.values import to_value

_STRIPPED = {"torch._assert", "builtins.print"}


@dataclass(frozen=True, slots=True)
class Call:
    """How a module is called: which arguments are values of the forward, which are constants."""

    inputs: tuple[str, ...]
    constants: tuple[tuple[str, object], ...] = ()


@dataclass(slots=True)
class Capture:
    """A module's forward: fx graphs for shapes, program graphs for everything else."""

    call: Call
    train: torch.fx.Graph
    eval: torch.fx.Graph
    constants: dict[str, torch.Tensor] = field(default_factory=dict)


class _UntraceableError(Exception):
    """A target that no public name stands for."""


class _ModuleTracer(torch.fx.Tracer):
    """Children are leaves; functions of the model's own library are traced through."""

    def __init__(self, call: Call) -> None:
        super().__init__(param_shapes_constant=True)
        self.proxy_buffer_attributes = True
        self.call = call

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        if m not in (self.submodule_paths or {}):
            # A module made on the fly, such as a slice of a Sequential: its children are ours.
            return type(m).forward(m, *args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def create_proxy(
        self, kind: str, target: Any, args: Any, kwargs: Any, *more: Any, **named: Any
    ) -> Any:
        if kind == "call_function" and not _known(target):
            if not inspect.isfunction(target):
                raise _UntraceableError(f"{target!r} has no public name")
            return target(*args, **kwargs)
        return super().create_proxy(kind, target, args, kwargs, *more, **named)

    def create_args_for_root(
        self, root_fn: Any, is_module: bool, concrete_args: Any = None
    ) -> tuple[Any, list[Any]]:
        proxies = {
            name: self.create_proxy("placeholder", name, (), {}) for name in self.call.inputs
        }
        arguments: dict[str, Any] = {**dict(self.call.constants), **proxies}

        def forward(root: nn.Module) -> Any:
            return root_fn(root, **arguments)

        return forward, [self.root]


def _known(target: Any) -> bool:
    name = getattr(target, "__name__", "")
    return (
        operations.public_name(target) is not None
        or f"{getattr(target, '__module__', '')}.{name}" in _STRIPPED
        or target is torch._assert
    )


def bind(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Call:
    """How ``module.forward`` is called: arguments that hold tensors (or fx nodes) are inputs.

    Raises:
        TypeError: the arguments do not fit the signature, or it takes ``*args``.
    """
    signature = inspect.signature(type(module).forward)
    bound = signature.bind(module, *args, **kwargs)
    inputs: list[str] = []
    constants: list[tuple[str, object]] = []
    for position, (name, value) in enumerate(bound.arguments.items()):
        if position == 0:
            continue
        kind = signature.parameters[name].kind
        if kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
            if value:
                raise TypeError(f"forward takes {signature.parameters[name]}")
        elif _holds_tensor(value):
            inputs.append(name)
        else:
            constants.append((name, value))
    return Call(tuple(inputs), tuple(constants))


def _holds_tensor(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return any(_holds_tensor(item) for item in value)
    if isinstance(value, dict):
        return any(_holds_tensor(item) for item in value.values())
    return isinstance(value, (torch.Tensor, torch.fx.Node, torch.fx.Proxy))


def capture(module: nn.Module, call: Call, path: str) -> Capture:
    """Trace ``module``'s own forward in both modes.

    Raises:
        TraceError: with the module's path and the file and line of the statement that stops it.
    """
    graphs: list[torch.fx.Graph] = []
    constants: dict[str, torch.Tensor] = {}
    mode = module.training
    before = set(module.__dict__)
    try:
        for training in (True, False):
            module.train(training)
            try:
                graph = _ModuleTracer(call).trace(module)
            except Exception as error:  # anything may come out of a user's forward
                raise _error(module, path, error) from error
            graphs.append(graph)
    finally:
        module.train(mode)
    for name in set(module.__dict__) - before:
        if isinstance(module.__dict__[name], torch.Tensor):
            constants[name] = module.__dict__[name]
    return Capture(call, graphs[0], graphs[1], constants)


def _error(module: nn.Module, path: str, error: Exception) -> TraceError:
    location = None
    for frame in traceback.extract_tb(error.__traceback__):
        inside = "/torch/" in frame.filename or "/planner/tracing/" in frame.filename
        if not inside and not frame.filename.startswith("<"):
            location = f"{frame.filename}:{frame.lineno}"
    if location is None:
        code = type(module).forward.__code__
        location = f"{code.co_filename}:{code.co_firstlineno}"
    name = f"module {path!r}" if path else "the model's root module"
    text = str(error).strip().splitlines()
    return TraceError(
        f"{name} ({type(module).__name__}) cannot be traced symbolically: "
        f"{text[0] if text else type(error).__name__}\n"
        f"  at {location}\n"
        "  Make the forward independent of tensor values, or move that step out of the module.",
        module=path,
        location=location,
    )


# --------------------------------------------------------------------------- fx graph → program


def to_graphs(captured: Capture, tensors: set[torch.fx.Node]) -> tuple[Graph, Graph | None]:
    """The program's graphs in training and in evaluation; the second is None where they agree.

    ``tensors`` are the nodes whose value is a tensor.

    Raises:
        TypeError: an argument is not a literal.
    """
    train = _graph(captured.train, captured.call.inputs, tensors)
    evaluation = _graph(captured.eval, captured.call.inputs, tensors)
    merged = _merge(train, evaluation)
    if merged is not None:
        return _without_dead(merged), None
    return _without_dead(train), _without_dead(evaluation)


def _graph(graph: torch.fx.Graph, inputs: tuple[str, ...], tensors: set[torch.fx.Node]) -> Graph:
    operations_: list[Operation] = []
    output: Value = None
    names = iter(inputs)
    for node in graph.nodes:
        if node.op == "placeholder":
            # fx renames arguments that shadow builtins, such as "input"; the model's name stays.
            node.name = next(names)
            continue
        if node.op == "output":
            output = to_value(node.args[0])
            continue
        args = tuple(to_value(item) for item in node.args)
        kwargs = tuple((key, to_value(item)) for key, item in node.kwargs.items())
        if node.op == "call_function":
            if node.target is torch._assert or node.target is print:
                continue
            target = operations.public_name(node.target)
            if target is None:
                raise TypeError(f"{node.target!r} has no public name")
            op = "function"
        else:
            op = {"call_module": "module", "call_method": "method", "get_attr": "attribute"}[
                node.op
            ]
            target = str(node.target)
        operations_.append(
            Operation(node.name, op, target, args, kwargs, node in tensors)  # type: ignore[arg-type]
        )
    return Graph(tuple(operations_), output)


def _merge(train: Graph, evaluation: Graph) -> Graph | None:
    """One graph for both modes if they differ in mode flags alone."""
    if len(train.operations) != len(evaluation.operations) or train.output != evaluation.output:
        return None
    merged: list[Operation] = []
    for one, other in zip(train.operations, evaluation.operations, strict=True):
        if replace(one, args=(), kwargs=()) != replace(other, args=(), kwargs=()):
            return None
        if len(one.args) != len(other.args) or [k for k, _ in one.kwargs] != [
            k for k, _ in other.kwargs
        ]:
            return None
        args, kwargs = list(one.args), [value for _, value in one.kwargs]
        for values, others in ((args, other.args), (kwargs, [v for _, v in other.kwargs])):
            for index, (mine, theirs) in enumerate(zip(values, others, strict=True)):
                if mine is True and theirs is False:
                    values[index] = Training(True)
                elif mine is False and theirs is True:
                    values[index] = Training(False)
                elif mine != theirs:
                    return None
        names = [key for key, _ in one.kwargs]
        merged.append(replace(one, args=tuple(args), kwargs=tuple(zip(names, kwargs, strict=True))))
    return Graph(tuple(merged), train.output)


def _without_dead(graph: Graph) -> Graph:
    """Drop operations whose result nobody reads and that change nothing."""
    needed = set(references(graph.output))
    kept: list[Operation] = []
    for operation in reversed(graph.operations):
        effect = operation.op == "module" or operations.is_in_place(
            operation.op, operation.target, operation.kwargs
        )
        if effect or operation.result in needed:
            kept.append(operation)
            needed.update(references(operation.args))
            needed.update(references(tuple(value for _, value in operation.kwargs)))
    return Graph(tuple(reversed(kept)), graph.output)
