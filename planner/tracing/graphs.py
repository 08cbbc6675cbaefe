"""Captured fx graphs as the program's: public names, literals and modes, no dead code."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.fx

from planner import operations
from planner.ir import Graph, Operation, Switch, Training, Value, references
from planner.tracing.calls import Call, Capture, input_name
from planner.tracing.naming import NAME
from planner.tracing.values import to_value

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


def used_inputs(call: Call, train: Graph, evaluation: Graph | None) -> tuple[str, ...]:
    """The inputs of ``call`` that a forward reads in either mode."""
    read: set[str] = set()
    for graph in (train, evaluation):
        if graph is not None:
            read.update(references(graph.output))
            for operation in graph.operations:
                read.update(references(_values(operation)))
    return tuple(name for name in call.inputs if input_name(name) in read)


def _values(operation: Operation) -> tuple[Value, ...]:
    return (*operation.args, *(value for _, value in operation.kwargs))


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
            Operation(
                result=node.name,
                op=op,  # type: ignore[arg-type]
                target=target,
                args=args,
                kwargs=kwargs,
                tensor=node in tensors,
                name=node.meta.get(NAME, ""),
            )
        )
    return Graph(tuple(operations_), output)


def _merge(train: Graph, evaluation: Graph) -> Graph | None:
    """One graph for both modes if they differ in literals alone."""
    if len(train.operations) != len(evaluation.operations):
        return None
    try:
        merged = tuple(map(_merged, train.operations, evaluation.operations))
        return Graph(merged, _either(train.output, evaluation.output))
    except ValueError:
        return None


def _merged(one: Operation, other: Operation) -> Operation:
    """The operation that is ``one`` in training and ``other`` in evaluation.

    Raises:
        ValueError: they differ in more than literals.
    """
    keys = [key for key, _ in one.kwargs]
    if replace(one, args=(), kwargs=()) != replace(other, args=(), kwargs=(), name=one.name):
        raise ValueError(one.result)
    if keys != [key for key, _ in other.kwargs]:
        raise ValueError(one.result)
    args, values = (
        tuple(map(_either, mine, theirs))
        for mine, theirs in (
            (_same_length(one.args, other.args)),
            ([v for _, v in one.kwargs], [v for _, v in other.kwargs]),
        )
    )
    return replace(one, args=args, kwargs=tuple(zip(keys, values, strict=True)))


def _same_length(one: tuple[Value, ...], other: tuple[Value, ...]) -> tuple[Any, Any]:
    if len(one) != len(other):
        raise ValueError(one)
    return one, other


def _either(mine: Value, theirs: Value) -> Value:
    """The value that is ``mine`` in training and ``theirs`` in evaluation."""
    if type(mine) is type(theirs) and mine == theirs:
        return mine
    if isinstance(mine, bool) and isinstance(theirs, bool):
        return Training(mine)
    if references((mine, theirs)):
        raise ValueError(mine)
    return Switch(mine, theirs)


def _without_dead(graph: Graph) -> Graph:
    """Drop operations whose result nobody reads and that change nothing."""
    needed = set(references(graph.output))
    kept: list[Operation] = []
    for operation in reversed(graph.operations):
        effect = operation.op == "module" or operations.is_in_place(
            operation.op, operation.target, operation.kwargs
        )
        effect = effect or operation.target == operations.CHECK
        if effect or operation.result in needed:
            kept.append(operation)
            needed.update(references(_values(operation)))
    return Graph(tuple(reversed(kept)), graph.output)


def without_default_keywords(graph: Graph) -> Graph:
    """``graph`` without keywords at their default: dispatching functions pass on all they take.

    Applied once blocks are folded, which must see a stride of 1 and a stride of 2 as one structure
    with another number.
    """
    return replace(graph, operations=tuple(_shortened(item) for item in graph.operations))


def _shortened(operation: Operation) -> Operation:
    if operation.op != "function" or not operation.kwargs:
        return operation
    known = _defaults(operation.target)
    return replace(
        operation,
        kwargs=tuple(
            (name, value)
            for name, value in operation.kwargs
            if name not in known or type(value) is not type(known[name]) or value != known[name]
        ),
    )


@functools.cache
def _defaults(target: str) -> dict[str, object]:
    """Defaults of a public function's keywords, as far as its signature or its schema tells."""
    function = operations.function(target)
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # built in, without a signature
        return _schema_defaults(target.rpartition(".")[2])
    return {one.name: one.default for one in parameters if one.default is not one.empty}


def _schema_defaults(name: str) -> dict[str, object]:
    """Defaults on which all overloads of torch's own operation agree."""
    packet = getattr(torch.ops.aten, name, None)
    found: dict[str, object] = {}
    unlike: set[str] = set()
    for overload in packet.overloads() if packet is not None else ():
        for argument in getattr(packet, overload)._schema.arguments:
            default = argument.default_value if argument.has_default_value() else inspect._empty
            if argument.name in found and found[argument.name] != default:
                unlike.add(argument.name)
            found[argument.name] = default
    return {
        key: value
        for key, value in found.items()
        if key not in unlike and value is not inspect._empty
    }
