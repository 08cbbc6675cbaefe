"""Symbolic trace of one module's own forward: its children are leaves, its mode stays a mode.

The forward is traced once in training and once in evaluation. Where the two differ by a flag
alone (``F.dropout(training=...)``) the flag becomes ``self.training``; where they differ in
structure both are kept. Only what the caller passes as a tensor becomes an input; constants and
defaults keep their values, so that ``if mask is not None`` takes the branch that the model takes.
"""

from __future__ import annotations

import inspect
import math
import operator
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.fx
from torch import nn

from planner import operations
from planner.errors import TraceError
from planner.tracing.calls import Call, Capture, Context
from planner.tracing.faults import fault
from planner.tracing.naming import NAME, local_variables
from planner.tracing.norms import DECOMPOSED
from planner.tracing.values import to_value

Watching = Callable[[], AbstractContextManager[None]]

_STRIPPED = {"torch._assert", "builtins.print"}


class _UntraceableError(Exception):
    """A target that no public name stands for."""


class _Proxy(torch.fx.Proxy):
    """A proxy that records changes in place, which fx's own turns into new values."""

    # Comparing records an operation, so that Python no longer finds a hash by itself.
    __hash__ = torch.fx.Proxy.__hash__

    def __getattr__(self, k: str) -> Any:
        if k == "data":  # the same values, from which no gradients go back
            return self.tracer.create_proxy("call_method", "detach", (self,), {})
        return super().__getattr__(k)

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

    def __init__(self, call: Call, watching: Watching) -> None:
        super().__init__(param_shapes_constant=True)
        self.proxy_buffer_attributes = True
        self.call = call
        self.code: Any = None
        self.watching = watching
        self.context = Context.now()

    def proxy(self, node: torch.fx.Node) -> torch.fx.Proxy:
        return _Proxy(node, self)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        if any(isinstance(weight, torch.fx.Proxy) for weight in m.parameters()):
            raise _UntraceableError("it calls a module with weights that it computes")
        if m not in (self.submodule_paths or {}):
            # A module made on the fly, such as a slice of a Sequential: its children are ours.
            return m.forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def create_proxy(
        self, kind: str, target: Any, args: Any, kwargs: Any, *more: Any, **named: Any
    ) -> Any:
        if Context.now() != self.context:
            raise _UntraceableError("it switches gradients or autocast, which a trace does not see")
        if kind == "call_function" and not _known(target):
            if target in DECOMPOSED:
                return DECOMPOSED[target](*args, **kwargs)
            if not inspect.isfunction(target):
                raise _UntraceableError(f"{target!r} has no public name")
            return target(*args, **kwargs)
        for local, value in local_variables(self.code):
            if isinstance(value, torch.fx.Proxy):
                value.node.meta.setdefault(NAME, local)
        return super().create_proxy(kind, target, args, kwargs, *more, **named)

    def create_args_for_root(
        self, root_fn: Any, is_module: bool, concrete_args: Any = None
    ) -> tuple[Any, list[Any]]:
        proxies = {
            name: self.create_proxy("placeholder", name, (), {}) for name in self.call.inputs
        }
        arguments: dict[str, Any] = {**dict(self.call.constants), **proxies}
        self.code = getattr(root_fn, "__code__", None)

        def forward(root: nn.Module) -> Any:
            with self.watching():
                return root.forward(**arguments)

        return forward, [self.root]


def _known(target: Any) -> bool:
    name = getattr(target, "__name__", "")
    return (
        operations.public_name(target) is not None
        or f"{getattr(target, '__module__', '')}.{name}" in _STRIPPED
        or target is torch._assert
    )


def capture(module: nn.Module, call: Call, path: str, watching: Watching = nullcontext) -> Capture:
    """Trace ``module``'s own forward in both modes; it runs inside ``watching``.

    Raises:
        TraceError: with the module's path and the file and line of the statement that stops it.
    """
    # fx patches the functions of math while it traces: the table must hold the originals.
    operations.public_name(math.sqrt)
    graphs: list[torch.fx.Graph] = []
    constants: dict[str, torch.Tensor] = {}
    mode = module.training
    try:
        for training in (True, False):
            module.train(training)
            before, buffers = set(module.__dict__), dict(module._buffers)
            random = torch.get_rng_state()
            try:
                graph = _ModuleTracer(call, watching).trace(module)
                if not torch.equal(random, torch.get_rng_state()):
                    raise _UntraceableError("it draws random numbers, which a trace does not see")
                _refuse_objects(graph)
            except Exception as error:  # anything may come out of a user's forward
                raise fault(module, path, error) from error
            finally:
                assigned, module._buffers = module._buffers, buffers
            caches = {name for name, value in buffers.items() if value is None}
            caches &= module._non_persistent_buffers_set
            _record_assignments(
                graph, {name: one for name, one in assigned.items() if name not in caches}
            )
            _collect_constants(module, graph, sorted(set(module.__dict__) - before), constants)
            graphs.append(graph)
    finally:
        module.train(mode)
    for name, value in constants.items():
        setattr(module, name, value)
    return Capture(call, graphs[0], graphs[1], constants)


def _refuse_objects(graph: torch.fx.Graph) -> None:
    """Stop where a graph passes, makes or returns what a program cannot hold.

    Raises:
        TypeError: an argument is no literal, a function has no public name, or a method or an
            attribute is none that a program may use.
    """
    for node in graph.nodes:
        to_value((node.args, dict(node.kwargs)))
        if node.op == "call_method" and not operations.is_method(str(node.target)):
            raise TypeError(f"{node.target!r} is not a method that a program may use")
        if node.target is getattr and node.args[1] not in operations.ATTRIBUTES:
            raise TypeError(f"{node.args[1]!r} is not an attribute that a program may read")
        if node.op == "call_function" and not _known(node.target):
            raise TypeError(f"{node.target!r} has no public name")


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
        if isinstance(value, torch.Tensor) and value.is_meta:
            raise TraceError("a tensor was made of parameters while the forward was traced")
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
