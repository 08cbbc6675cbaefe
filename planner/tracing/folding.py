"""Equal structure becomes one definition; what differs between its instances becomes arguments.

Two modules have equal structure if their classes' names, children, forwards and flags agree,
whatever their numbers are. Numbers that are the same in every instance stay literals; columns of
numbers that agree with each other in every instance become one constructor argument.
"""

from __future__ import annotations

import keyword
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from planner import operations
from planner.ir import (
    Buffer,
    Container,
    Definition,
    Graph,
    Input,
    Instance,
    Items,
    Leaf,
    Mapping,
    Node,
    Parameter,
    Rung,
    Shared,
    Slice,
    Slot,
    Switch,
    Value,
)


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """A module of the model before folding: as a definition, but its children are blocks."""

    name: str
    base: Literal["Module", "Sequential", "ModuleList", "ModuleDict"]
    children: tuple[tuple[str, BlockNode], ...]
    parameters: tuple[Parameter, ...]
    buffers: tuple[Buffer, ...]
    inputs: tuple[Input, ...]
    train: Graph | None
    eval: Graph | None
    rung: Rung = "symbolic"


@dataclass(frozen=True, slots=True, eq=False)
class BlockContainer:
    """A plain container before folding."""

    container: Literal["Sequential", "ModuleList", "ModuleDict"]
    children: tuple[tuple[str, BlockNode], ...]


BlockNode: TypeAlias = Leaf | Shared | Block | BlockContainer

# Where a literal stands: (child or operation, argument).
_Hint: TypeAlias = tuple[str, str]
_Visit: TypeAlias = Callable[[Value, _Hint], Value]


# The numbers of one place in all instances, as text: 1 and 1.0 are not the same.
_Column: TypeAlias = tuple[str, ...]


def _column(values: tuple[Value, ...]) -> _Column:
    return tuple(map(repr, values))


_Names: TypeAlias = Callable[[str], tuple[str, ...]]


class _Numbering:
    """Replaces numbers by slots and remembers them with their places."""

    def __init__(self) -> None:
        self.values: list[Value] = []
        self.hints: list[_Hint] = []

    def visit(self, value: Value, hint: _Hint) -> Value:
        self.values.append(value)
        self.hints.append(hint)
        return Slot(str(len(self.values)))


class _Resolution:
    """Replaces slots, in order, by constructor arguments where numbers vary and by numbers else."""

    def __init__(self, columns: list[tuple[Value, ...]], names: dict[_Column, str]) -> None:
        self.columns = iter(columns)
        self.names = names

    def visit(self, _value: Value, _hint: _Hint) -> Value:
        column = next(self.columns)
        name = self.names.get(_column(column))
        return column[0] if name is None else Slot(name)


def fold(root: Block, parameter_names: _Names) -> tuple[tuple[Definition, ...], Instance]:
    """Definitions, each before its users, and the root's instance.

    ``parameter_names`` gives the positional argument names of a ``torch.nn`` type, from which
    constructor arguments take their names.
    """
    levels: dict[int, list[Block]] = {}
    _collect(root, levels)
    instances: dict[int, Instance] = {}
    definitions: list[Definition] = []
    taken: set[str] = set()
    for level in sorted(levels):
        groups: dict[Definition, list[tuple[Block, _Numbering]]] = {}
        for block in levels[level]:
            numbering = _Numbering()
            skeleton = _map(_definition(block, instances), numbering.visit, parameter_names)
            groups.setdefault(skeleton, []).append((block, numbering))
        for skeleton, members in groups.items():
            name, count = skeleton.name, 1
            if operations.is_reserved(name):
                name = f"Model{name}"
            first = name
            while name in taken:
                count += 1
                name = f"{first}{count}"
            taken.add(name)
            columns = list(zip(*(numbering.values for _, numbering in members), strict=True))
            names = _argument_names(columns, members[0][1].hints, _used_names(skeleton))
            values = {names[_column(one)]: one for one in columns if _column(one) in names}
            resolution = _Resolution(columns, names)
            definition = _map(skeleton, resolution.visit, parameter_names, slots=True)
            definitions.append(replace(definition, name=name, arguments=tuple(names.values())))
            for row, (block, _) in enumerate(members):
                arguments = tuple((name, values[name][row]) for name in names.values())
                instances[id(block)] = Instance(name, arguments)
    return tuple(definitions), instances[id(root)]


def map_leaves(definition: Definition, change: Callable[[Leaf], Leaf]) -> Definition:
    """``definition`` with every leaf changed."""

    def node(item: Node) -> Node:
        if isinstance(item, Leaf):
            return change(item)
        if isinstance(item, Container):
            return replace(
                item, children=tuple((name, node(child)) for name, child in item.children)
            )
        return item

    return replace(
        definition, children=tuple((name, node(child)) for name, child in definition.children)
    )


def _collect(block: Block, levels: dict[int, list[Block]]) -> int:
    """Sort blocks by height, children below parents, each level in the model's order."""
    height = 0
    for child in _blocks(block.children):
        height = max(height, 1 + _collect(child, levels))
    levels.setdefault(height, []).append(block)
    return height


def _blocks(children: tuple[tuple[str, BlockNode], ...]) -> Iterator[Block]:
    for _, node in children:
        if isinstance(node, Block):
            yield node
        elif isinstance(node, BlockContainer):
            yield from _blocks(node.children)


def _definition(block: Block, instances: dict[int, Instance]) -> Definition:
    def node(child: BlockNode) -> Node:
        if isinstance(child, Block):
            return instances[id(child)]
        if isinstance(child, BlockContainer):
            return Container(child.container, tuple((n, node(c)) for n, c in child.children))
        return child

    return Definition(
        block.name,
        block.base,
        (),
        tuple((name, node(child)) for name, child in block.children),
        block.parameters,
        block.buffers,
        block.inputs,
        block.train,
        block.eval,
        rung=block.rung,
    )


def _map(
    definition: Definition, visit: _Visit, parameter_names: _Names, *, slots: bool = False
) -> Definition:
    """Apply ``visit`` to every number (or, with ``slots``, every slot) in a fixed order."""
    chosen = _is_slot if slots else _is_number

    def value(item: Value, hint: _Hint) -> Value:
        return _map_value(item, hint, visit, chosen)

    def leaf(name: str, item: Leaf) -> Leaf:
        def argument(part: Value, hint: _Hint) -> Value:
            return leaf(name, part) if isinstance(part, Leaf) else value(part, hint)

        names = (*parameter_names(item.type), *("value" for _ in item.args))
        return Leaf(
            item.type,
            tuple(argument(v, (name, n)) for v, n in zip(item.args, names, strict=False)),
            tuple((key, argument(v, (name, key))) for key, v in item.kwargs),
        )

    def node(name: str, item: Node) -> Node:
        if isinstance(item, Leaf):
            return leaf(name, item)
        if isinstance(item, Instance):
            arguments = tuple((key, value(v, (name, key))) for key, v in item.arguments)
            return replace(item, arguments=arguments)
        if isinstance(item, Container):
            children = tuple((n, node(f"{name}_{n}", child)) for n, child in item.children)
            return replace(item, children=children)
        return item

    def graph(item: Graph | None) -> Graph | None:
        if item is None:
            return None
        done = tuple(
            replace(
                operation,
                args=tuple(value(v, _place(operation.target)) for v in operation.args),
                kwargs=tuple((k, value(v, (operation.result, k))) for k, v in operation.kwargs),
            )
            for operation in item.operations
        )
        return Graph(done, value(item.output, ("output", "value")))

    return replace(
        definition,
        children=tuple((name, node(name, child)) for name, child in definition.children),
        parameters=tuple(
            replace(p, shape=value(p.shape, (p.name, "shape"))) for p in definition.parameters
        ),
        train=graph(definition.train),
        eval=graph(definition.eval),
    )


def _map_value(item: Value, hint: _Hint, visit: _Visit, chosen: Callable[[Value], bool]) -> Value:
    def inner(part: Value) -> Value:
        return _map_value(part, hint, visit, chosen)

    if chosen(item):
        return visit(item, hint)
    if isinstance(item, tuple):
        return tuple(inner(part) for part in item)
    if isinstance(item, Items):
        return Items(tuple(inner(part) for part in item.list))
    if isinstance(item, Mapping):
        return Mapping(tuple((key, inner(part)) for key, part in item.dict))
    if isinstance(item, Slice):
        start, stop, step = item.slice
        return Slice((inner(start), inner(stop), inner(step)))
    if isinstance(item, Switch):
        return Switch(inner(item.train), inner(item.eval))
    return item


def _place(target: str) -> _Hint:
    return target.rpartition(".")[2].strip("_") or "value", "value"


def _is_slot(value: Value) -> bool:
    return isinstance(value, Slot)


def _is_number(value: Value) -> bool:
    if isinstance(value, tuple):
        return bool(value) and all(type(item) is int for item in value)
    return type(value) in (int, float)


def _argument_names(
    columns: list[tuple[Value, ...]], hints: list[_Hint], used: set[str]
) -> dict[_Column, str]:
    """A name for each distinct column that varies, in order of first appearance."""
    first: dict[_Column, _Hint] = {}
    for values, hint in zip(columns, hints, strict=True):
        if len(set(_column(values))) > 1:
            first.setdefault(_column(values), hint)
    plain = [argument for _, argument in first.values()]
    names: dict[_Column, str] = {}
    for column, (owner, argument) in first.items():
        alone = plain.count(argument) == 1 and argument != "value"
        name = argument if alone else f"{owner}_{argument}".removesuffix("_value")
        if not name.isidentifier() or keyword.iskeyword(name):
            name = f"value_{name}" if f"value_{name}".isidentifier() else "value"
        candidate, count = name, 2
        while candidate in used:
            candidate, count = f"{name}{count}", count + 1
        used.add(candidate)
        names[column] = candidate
    return names


def _used_names(definition: Definition) -> set[str]:
    """Attributes of the class that an argument stored on it would hide."""
    used = {"self", "training", "forward", "nn", "torch", "F", "math", "operator"}
    used.update(name for name, _ in definition.children)
    used.update(parameter.name for parameter in definition.parameters)
    used.update(buffer.name for buffer in definition.buffers)
    used.update(item.name for item in definition.inputs)
    return used
