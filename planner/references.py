"""Names and references of a plan: what no type can say of them.

A plan is data from strangers and its names become source, so each must be a Python name where one
will stand, and whatever refers to something must find it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from keyword import iskeyword

from planner.errors import PlanFormatError
from planner.formulas import FORMULAS
from planner.ir import (
    Allocation,
    Container,
    Definition,
    Graph,
    Instance,
    Items,
    Leaf,
    Mapping,
    Node,
    Operation,
    Program,
    Ref,
    Shared,
    Site,
    Slice,
    Slot,
    Special,
    Switch,
    Value,
    is_attribute,
)

_NUMBER = r"[0-9]+(\.[0-9]+)?(e[+-]?[0-9]+)?"
_SPECIALS = {
    "device": re.compile(r"[a-z]+(:[0-9]+)?"),
    "float": re.compile(r"-?inf|nan"),
    "complex": re.compile(rf"-?{_NUMBER}j|\(-?{_NUMBER}[+-]{_NUMBER}j\)"),
    "ellipsis": re.compile(r"\.\.\."),
    "function": re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*"),
}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def check_references(program: Program, sites: Sequence[Site], allocation: Allocation) -> None:
    """Check every name and reference.

    Raises:
        PlanFormatError: a name that is no Python name or stands twice, or a reference to a
            definition, value, constructor argument, bank or site that there isn't (definitions and
            values stand before their users).
    """
    known: dict[str, Definition] = {}
    for definition in program.definitions:
        where = f"definition {definition.name!r}"
        _identifier(definition.name, "a definition")
        if definition.name in known:
            raise PlanFormatError(f"{where} stands twice")
        _definition(definition, known, where)
        known[definition.name] = definition
    _node(program.root, known, (), "the root")
    for spec in (*program.example_inputs, *program.example_outputs):
        _identifier(spec.dtype, "the dtype of an example")
    _sites(sites)
    _allocation(sites, allocation)


def _definition(definition: Definition, known: dict[str, Definition], where: str) -> None:
    _distinct(definition.arguments, f"arguments of {where}")
    children = tuple(name for name, _ in definition.children)
    own = tuple(item.name for item in definition.parameters)
    own += tuple(item.name for item in definition.buffers)
    _distinct((*children, *own), f"attributes of {where}")
    inputs = tuple(item.name for item in definition.inputs)
    inputs += tuple(name for name, _ in definition.fixed)
    _distinct(inputs, f"inputs of {where}")
    for name, value in definition.fixed:
        _value(value, (), (), f"{name} of {where}")
    for name in (*definition.arguments, *inputs):
        _identifier(name, f"a name in {where}")
    for name in (*children, *own):
        _component(name, f"an attribute of {where}")
    for name, child in definition.children:
        _node(child, known, definition.arguments, f"{name} of {where}")
    for parameter in definition.parameters:
        _identifier(parameter.dtype, f"the dtype of {parameter.name} of {where}")
        _value(parameter.shape, (), definition.arguments, where)
    for buffer in definition.buffers:
        _identifier(buffer.dtype, f"the dtype of {buffer.name} of {where}")
        _operations(buffer.expression, (), definition.arguments, (*children, *own), where)
    for graph in (definition.train, definition.eval):
        if graph is not None:
            _graph(graph, definition, (*children, *own), where)


def _graph(graph: Graph, definition: Definition, owned: tuple[str, ...], where: str) -> None:
    inputs = tuple(item.name for item in definition.inputs)
    values = _operations(graph.operations, inputs, definition.arguments, owned, where)
    _value(graph.output, values, definition.arguments, where)


def _operations(
    operations: Iterable[Operation],
    inputs: Iterable[str],
    slots: Sequence[str],
    owned: Sequence[str],
    where: str,
) -> set[str]:
    values = set(inputs)
    for operation in operations:
        place = f"{operation.result!r} in {where}"
        for argument in (*operation.args, *(value for _, value in operation.kwargs)):
            _value(argument, values, slots, place)
        _keywords(operation.kwargs, place)
        _identifier(operation.result, f"a result in {where}")
        parts = operation.target.split(".")
        for part in parts:
            check = _component if operation.op in ("module", "attribute") else _identifier
            check(part, f"the target of {place}")
        if operation.op in ("module", "attribute") and parts[0] not in owned:
            raise PlanFormatError(f"{place} reads {operation.target!r}, which {where} lacks")
        if operation.op == "method" and len(parts) > 1:
            raise PlanFormatError(f"{place} calls {operation.target!r}: not a method's name")
        values.add(operation.result)
    return values


def _node(node: Node, known: dict[str, Definition], slots: Sequence[str], where: str) -> None:
    if isinstance(node, Container):
        _distinct([name for name, _ in node.children], f"children of {where}")
        for name, child in node.children:
            _component(name, f"a child of {where}")
            _node(child, known, slots, f"{name} of {where}")
    elif isinstance(node, Shared):
        for part in node.shared.split("."):
            _component(part, f"the path of {where}")
    elif isinstance(node, Leaf):
        _leaf(node, slots, where)
    else:
        _instance(node, known, slots, where)


def _leaf(leaf: Leaf, slots: Sequence[str], where: str) -> None:
    _identifier(leaf.type, f"the type of {where}")
    _keywords(leaf.kwargs, where)
    for value in (*leaf.args, *(value for _, value in leaf.kwargs)):
        if isinstance(value, Leaf):
            _leaf(value, slots, where)
        else:
            _value(value, (), slots, where)


def _instance(
    node: Instance, known: dict[str, Definition], slots: Sequence[str], where: str
) -> None:
    if node.definition not in known:
        raise PlanFormatError(
            f"{where} is a {node.definition!r}, which is not defined before its use"
        )
    _keywords(node.arguments, where)
    for name, value in node.arguments:
        if name not in known[node.definition].arguments:
            raise PlanFormatError(f"{where}: {node.definition} takes no argument {name!r}")
        _value(value, (), slots, where)


def _value(value: Value, values: Iterable[str], slots: Sequence[str], where: str) -> None:
    if isinstance(value, Ref):
        if value.ref not in values:
            raise PlanFormatError(f"{where} reads {value.ref!r} before it is computed")
    elif isinstance(value, Slot):
        if value.slot not in slots:
            raise PlanFormatError(f"{where} reads {value.slot!r}, which is not an argument")
    elif isinstance(value, Special):
        if not _SPECIALS.get(value.special, _NAME).fullmatch(value.text):
            raise PlanFormatError(f"{where}: {value.text!r} is not a {value.special}")
    elif isinstance(value, Leaf):
        raise PlanFormatError(f"{where}: a layer is not a value")
    elif isinstance(value, (tuple, Items, Slice, Mapping, Switch)):
        for item in _items(value):
            _value(item, values, slots, where)


def _items(value: tuple[Value, ...] | Items | Slice | Mapping | Switch) -> Iterable[Value]:
    if isinstance(value, Items):
        return value.list
    if isinstance(value, Slice):
        return value.slice
    if isinstance(value, Switch):
        return (value.train, value.eval)
    if isinstance(value, Mapping):
        return [item for _, item in value.dict]
    return value


def _sites(sites: Sequence[Site]) -> None:
    _distinct([name for site in sites for name in (site.name, *site.aliases)], "sites")
    for site in sites:
        where = f"site {site.name!r}"
        for name in (site.name, *site.aliases):
            for part in name.split("."):
                _component(part, where)
        _component(site.parameter, f"the parameter of {where}")
        _identifier(site.dtype, f"the dtype of {where}")
        if site.values is not None:
            _identifier(site.values.dtype, f"the dtype of the values of {where}")
            _operations(site.values.expression, (), (), (), where)
            if (site.values.shape, site.values.name) != (site.shape, site.parameter):
                raise PlanFormatError(f"{where} has values of another tensor")
        formula = site.initial.formula
        if formula is not None and formula not in FORMULAS:
            raise PlanFormatError(f"{where}: {formula!r} is not a known initialiser")
        if min(site.shape, default=0) < 0 or site.initial.std < 0.0:
            raise PlanFormatError(f"{where} has a negative size or standard deviation")


def _allocation(sites: Sequence[Site], allocation: Allocation) -> None:
    _distinct([bank.name for bank in allocation.banks], "banks")
    _distinct([placement.site for placement in allocation.placements], "placements")
    names = {site.name for site in sites}
    banks = {bank.name for bank in allocation.banks}
    for bank in allocation.banks:
        _identifier(bank.name, "a bank")
    for placement in allocation.placements:
        if placement.site not in names:
            raise PlanFormatError(f"a placement's site {placement.site!r} is not a site")
        if placement.bank is not None and placement.bank not in banks:
            raise PlanFormatError(f"site {placement.site!r}: there is no bank {placement.bank!r}")
        if (placement.bank is None) != (placement.generator == "own"):
            raise PlanFormatError(
                f"site {placement.site!r}: all generators but 'own' read a bank, 'own' reads none"
            )
    placed = {placement.site for placement in allocation.placements}
    for site in sites:
        if site.name not in placed:
            raise PlanFormatError(f"site {site.name!r} has no placement")


def _keywords(pairs: Iterable[tuple[str, Value]], where: str) -> None:
    names = [name for name, _ in pairs]
    _distinct(names, f"keywords of {where}")
    for name in names:
        _identifier(name, f"a keyword of {where}")


def _distinct(names: Sequence[str], what: str) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise PlanFormatError(f"{what}: {name!r} stands twice")
        seen.add(name)


def _identifier(name: str, what: str) -> None:
    if not name.isidentifier() or iskeyword(name):
        raise PlanFormatError(f"{what}: {name!r} is not a Python name")


def _component(name: str, what: str) -> None:
    """Of a path in a state dict: a name, the number of an item, or what ``add_module`` takes."""
    if not is_attribute(name):
        raise PlanFormatError(f"{what}: {name!r} is not a name of letters, digits, '_' and '-'")
