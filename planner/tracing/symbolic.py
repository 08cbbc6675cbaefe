"""Symbolic trace of one module's own forward: its children are leaves, its mode stays a mode.

The forward is traced once in training and once in evaluation. Where the two differ by a flag
alone (``F.dropout(training=...)``) the flag becomes ``self.training``; where they differ in
structure both are kept. Only what the caller passes as a tensor becomes an input; constants and
defaults keep their values, so that ``if mask is not None`` takes the branch that the model takes.
"""

from __future__ import annotations

import inspect
import operator
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.fx
from torch import nn

from planner import operations
from planner.errors import TraceError
from planner.ir import Graph, Operation, Training, Value, references
from planner.tracing.norms import DECOMPOSED
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


class _Proxy(torch.fx.Proxy):
    """A proxy that records changes in place, which fx's own turns into new values."""

    # Comparing records an operation, so that Python no longer finds a hash by itself.
    __hash__ = torch.fx.Proxy.__hash__

    def __setitem__(self, key: Any, value: Any) -> None:
        self.tracer.create_proxy("call_function", operator.setitem, (self, key, value), {})


def _in_place(function: Callable[..., Any]) -> Callable[[_Proxy, Any], Any]:
    def record(self: _Proxy, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", function, (self, other), {})

    return record


for (
    _name
) in "iadd iand ifloordiv ilshift imatmul imod imul ior ipow irshift isub itruediv ixor".split():
    setattr(_Proxy, f"__{_name}__", _in_place(getattr(operator, _name)))


class _ModuleTracer(torch.fx.Tracer):
    """Children are leaves; functions of the model's own library are traced through."""

    def __init__(self, call: Call) -> None:
        super().__init__(param_shapes_constant=True)
        self.proxy_buffer_attributes = True
        self.call = call

    def proxy(self, node: torch.fx.Node) -> torch.fx.Proxy:
        return _Proxy(node, self)

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
            if target in DECOMPOSED:
                return DECOMPOSED[target](*args, **kwargs)
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

    Defaults count as constants, so that every argument of the signature is one or the other.

    Raises:
        TypeError: the arguments do not fit the signature, or it takes ``*args``.
    """
    signature = inspect.signature(type(module).forward)
    bound = signature.bind(module, *args, **kwargs)
    bound.apply_defaults()
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


_SHADOWS = frozenset(("F", "Tensor", "math", "nn", "operator", "torch", *operations.BUILTINS))


def input_name(name: str) -> str:
    """``name`` as an argument of an emitted forward, where it may not hide what the body uses."""
    return f"{name}_" if name in _SHADOWS else name


def passed_arguments(
    module: nn.Module, call: Call, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Of the arguments of one call of ``module`` those that ``call`` has as inputs."""
    signature = inspect.signature(type(module).forward)
    bound = signature.bind(module, *args, **kwargs)
    bound.apply_defaults()
    names = list(signature.parameters)[1 : 1 + len(args)]
    given = tuple(bound.arguments[name] for name in names if name in call.inputs)
    rest = (name for name in call.inputs if name not in names)
    return given, {input_name(name): bound.arguments[name] for name in rest}


def capture(module: nn.Module, call: Call, path: str) -> Capture:
    """Trace ``module``'s own forward in both modes.

    Raises:
        TraceError: with the module's path and the file and line of the statement that stops it.
    """
    # fx patches the functions of math while it traces: the table must hold the originals.
    operations.is_function("math.sqrt")
    graphs: list[torch.fx.Graph] = []
    constants: dict[str, torch.Tensor] = {}
    mode = module.training
    try:
        for training in (True, False):
            module.train(training)
            before, buffers = set(module.__dict__), dict(module._buffers)
            try:
                graph = _ModuleTracer(call).trace(module)
            except Exception as error:  # anything may come out of a user's forward
                raise _error(module, path, error) from error
            finally:
                assigned, module._buffers = module._buffers, buffers
            _record_assignments(graph, assigned)
            _collect_constants(module, graph, sorted(set(module.__dict__) - before), constants)
            graphs.append(graph)
    finally:
        module.train(mode)
    for name, value in constants.items():
        setattr(module, name, value)
    return Capture(call, graphs[0], graphs[1], constants)


def _record_assignments(graph: torch.fx.Graph, buffers: Mapping[str, Any]) -> None:
    """Write what a forward assigned to its buffers into them, where it has not changed them."""
    graph.inserting_before(next(node for node in graph.nodes if node.op == "output"))
    for name, value in buffers.items():
        if not isinstance(value, torch.fx.Proxy):
            continue
        if _changed(value.node) != name:
            graph.call_method("copy_", (graph.get_attr(name), value.node))


def _changed(node: Any) -> str | None:
    """The attribute that ``node`` is, after changes in place."""
    while isinstance(node, torch.fx.Node):
        if node.op == "get_attr":
            return str(node.target)
        target = node.target
        name = target if isinstance(target, str) else operations.public_name(target) or ""
        if not operations.is_in_place(node.op.removeprefix("call_"), name, ()):
            return None
        node = node.args[0]
    return None


def _collect_constants(
    module: nn.Module, graph: torch.fx.Graph, made: list[str], constants: dict[str, torch.Tensor]
) -> None:
    """Move the tensors that a trace left on ``module`` into ``constants``, equal ones once."""
    names: dict[str, str] = {}
    for name in made:
        value = module.__dict__.pop(name)
        if isinstance(value, torch.Tensor):
            same = (known for known, other in constants.items() if _equal(value, other))
            names[name] = next(same, f"constant{len(constants)}")
            while names[name] not in constants and hasattr(module, names[name]):
                names[name] += "_"
            constants[names[name]] = value
    for node in graph.nodes:
        if node.op == "get_attr":
            node.target = names.get(str(node.target), node.target)


def _equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.dtype == other.dtype and one.device == other.device and torch.equal(one, other)


_OURS = (Path(torch.__file__).parent, Path(__file__).parent)


def _error(module: nn.Module, path: str, error: Exception) -> TraceError:
    location = None
    for frame in traceback.extract_tb(error.__traceback__):
        inside = any(folder in Path(frame.filename).parents for folder in _OURS)
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


CallArguments = Callable[[str, tuple[Any, ...], Mapping[str, Any]], Any]


def to_graphs(
    captured: Capture, tensors: set[torch.fx.Node], call_arguments: CallArguments
) -> tuple[Graph, Graph | None]:
    """The program's graphs in training and in evaluation; the second is None where they agree.

    ``tensors`` are the nodes whose value is a tensor; ``call_arguments`` gives the (args, kwargs)
    with which the captured child at a path is called, without those that it has as constants.

    Raises:
        TypeError: an argument is not a literal.
    """
    train = _graph(captured.train, captured.call.inputs, tensors, call_arguments)
    evaluation = _graph(captured.eval, captured.call.inputs, tensors, call_arguments)
    merged = _merge(train, evaluation)
    if merged is not None:
        return _without_dead(merged), None
    return _without_dead(train), _without_dead(evaluation)


def _graph(
    graph: torch.fx.Graph,
    inputs: tuple[str, ...],
    tensors: set[torch.fx.Node],
    call_arguments: CallArguments,
) -> Graph:
    operations_: list[Operation] = []
    output: Value = None
    names = iter(inputs)
    for node in graph.nodes:
        if node.op == "placeholder":
            # fx renames arguments that shadow builtins, such as "input"; the model's name stays.
            node.name = input_name(next(names))
            continue
        if node.op == "output":
            output = to_value(node.args[0])
            continue
        given, named = node.args, node.kwargs
        if node.op == "call_module":
            given, named = call_arguments(str(node.target), given, named)
        args = tuple(to_value(item) for item in given)
        kwargs = tuple((key, to_value(item)) for key, item in named.items())
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
