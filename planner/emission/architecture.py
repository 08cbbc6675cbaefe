"""Definitions as class views: the lines that a template prints, decided here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from planner import operations
from planner.emission.constants import constant
from planner.emission.expressions import (
    access,
    attribute,
    identifier,
    is_name,
    is_numbered,
    layer,
    literal,
)
from planner.emission.forward import statements
from planner.errors import PlanFormatError
from planner.ir import (
    Container,
    Definition,
    Graph,
    Input,
    Instance,
    Items,
    Leaf,
    Mapping,
    Node,
    Ref,
    Shared,
    Slot,
    TensorSpec,
    Value,
)


@dataclass(frozen=True, slots=True)
class ClassView:
    """One class of the emitted file, as text."""

    name: str
    base: str
    doc: str
    arguments: tuple[str, ...]
    init: tuple[str, ...]
    reset: tuple[str, ...]
    inputs: tuple[str, ...]
    output: str
    checks: tuple[str, ...]
    train: tuple[str, ...]
    eval: tuple[str, ...]


def class_view(definition: Definition, types: dict[str, str], resets: tuple[str, ...]) -> ClassView:
    """The view of ``definition``; ``types`` gives its constructor arguments' annotations.

    Raises:
        PlanFormatError: a name is no identifier, or an operation is not allowed.
    """
    if operations.is_reserved(definition.name):
        raise PlanFormatError(f"{definition.name!r} is a name of the emitted file's own")
    sizes = dict(_sizes(definition))
    init = list(_init(definition))
    train: tuple[str, ...] = ()
    evaluation: tuple[str, ...] = ()
    output = "Tensor"
    if definition.train is not None:
        train = tuple(statements(definition, definition.train, sizes))
        output = _annotation(definition.train)
    if definition.eval is not None:
        evaluation = tuple(statements(definition, definition.eval, sizes))
    reset = tuple(_reset(definition, resets))
    if reset:
        init.append("self.reset_parameters()")
    elif init == ["super().__init__()"] and not definition.arguments and train:
        init = []
    return ClassView(
        name=identifier(definition.name),
        base=f"nn.{definition.base}",
        doc=definition.doc,
        arguments=tuple(f"{identifier(name)}: {types[name]}" for name in definition.arguments),
        init=tuple(init),
        reset=reset,
        inputs=(*(_parameter(item) for item in definition.inputs), *_fixed(definition)),
        output=output,
        checks=tuple(_checks(definition)),
        train=train,
        eval=evaluation,
    )


def _parameter(item: Input) -> str:
    kinds = {"tensor": "Tensor", "tensors": "list[Tensor]", "any": "Any"}
    return f"{identifier(item.name)}: {kinds[item.type]}"


def _fixed(definition: Definition) -> Iterator[str]:
    """Arguments that have one value, after all others and by keyword."""
    if definition.fixed:
        yield "*"
    for name, value in definition.fixed:
        kind = type(value).__name__ if type(value) in (bool, int, float, str) else "Any"
        kind = "None" if value is None else kind
        yield f"{identifier(name)}: {kind} = {literal(value)}"


def _checks(definition: Definition) -> Iterator[str]:
    for name, value in definition.fixed:
        text = literal(value)
        test = f"is not {text}" if value is None or isinstance(value, bool) else f"!= {text}"
        told = f"{name} is fixed at {text}: plan the model again for another"
        yield f"if {identifier(name)} {test}:"
        yield f"    raise ValueError({told!r})"


def _annotation(graph: Graph) -> str:
    tensors = {operation.result for operation in graph.operations if operation.tensor}
    output = graph.output
    if isinstance(output, Ref):
        return "Tensor" if output.ref in tensors or not graph.operations else "Any"
    if isinstance(output, tuple):
        return "tuple[Tensor, ...]"
    if isinstance(output, Items):
        return "list[Tensor]"
    return "dict[str, Tensor]" if isinstance(output, Mapping) else "Any"


def _sizes(definition: Definition) -> Iterator[tuple[str, int]]:
    """Containers whose children a forward may loop over, by path."""

    def visit(name: str, node: Node) -> Iterator[tuple[str, int]]:
        if isinstance(node, Container):
            if is_numbered(node):
                yield name, len(node.children)
            for key, child in node.children:
                yield from visit(f"{name}.{key}", child)

    if is_numbered(definition):
        yield "", len(definition.children)
    for name, node in definition.children:
        yield from visit(name, node)


def _numbered(children: tuple[tuple[str, Node], ...]) -> bool:
    return [name for name, _ in children] == [str(index) for index in range(len(children))]


# --------------------------------------------------------------------------- construction


def construct(node: Node, within: Definition | None = None) -> str:
    """The expression that builds ``node`` in the constructor of ``within``."""
    if isinstance(node, Leaf):
        return layer(node)
    if isinstance(node, Instance):
        parts = [f"{identifier(key)}={literal(value)}" for key, value in node.arguments]
        return f"{identifier(node.definition)}({', '.join(parts)})"
    if isinstance(node, Shared):
        return access("self", node.shared, within)
    if node.container == "ModuleDict":
        pairs = (f"{name!r}: {construct(child, within)}" for name, child in node.children)
        return "nn.ModuleDict({" + ", ".join(pairs) + "})"
    items = _items(node.children, within)
    if node.container == "ModuleList":
        if not _numbered(node.children):
            # Some items of the original are None.
            placed = {int(name): construct(child, within) for name, child in node.children}
            items = [placed.get(index, "None") for index in range(max(placed) + 1)]
        if len(items) == 1 and items[0].startswith("*("):
            return f"nn.ModuleList{items[0].removeprefix('*')}"
        return f"nn.ModuleList([{', '.join(items)}])"
    return f"nn.Sequential({_sequence(node.children, within)})"


def _sequence(children: tuple[tuple[str, Node], ...], within: Definition | None) -> str:
    """Arguments of nn.Sequential."""
    if _numbered(children):
        return ", ".join(_items(children, within))
    texts = [construct(child, within) for _, child in children]
    names = [name for name, _ in children]
    series = _series(names)
    if series is not None and len(set(texts)) == 1:
        prefix, start, stop = series
        bounds = f"{stop}" if start == 0 else f"{start}, {stop}"
        return f'OrderedDict((f"{prefix}{{i}}", {texts[0]}) for i in range({bounds}))'
    if all(map(is_name, names)):
        pairs = ", ".join(f"{identifier(n)}={t}" for n, t in zip(names, texts, strict=True))
        return f"OrderedDict({pairs})"
    pairs = ", ".join(f"{n!r}: {t}" for n, t in zip(names, texts, strict=True))
    return f"OrderedDict({{{pairs}}})"


def _series(names: list[str]) -> tuple[str, int, int] | None:
    """(prefix, first, after last) if the names count upwards behind one prefix."""
    match = re.fullmatch(r"([A-Za-z_][A-Za-z_0-9]*?)(\d+)", names[0]) if len(names) > 1 else None
    if match is None:
        return None
    prefix, start = match[1], int(match[2])
    if names != [f"{prefix}{start + index}" for index in range(len(names))]:
        return None
    return prefix, start, start + len(names)


def _items(children: tuple[tuple[str, Node], ...], within: Definition | None) -> list[str]:
    """Positional children; equal neighbours become one starred generator."""
    texts = [construct(child, within) for _, child in children]
    items: list[str] = []
    position = 0
    while position < len(texts):
        run = 1
        while position + run < len(texts) and texts[position + run] == texts[position]:
            run += 1
        if run > 1 and not isinstance(children[position][1], Shared):
            items.append(f"*({texts[position]} for _ in range({run}))")
        else:
            items += [texts[position]] * run
        position += run
    return items


def _init(definition: Definition) -> Iterator[str]:
    """The body of ``__init__``."""
    inherits = definition.base == "Sequential" and definition.train is None
    shares = any(_shared(node) for _, node in definition.children)
    if shares:
        # Items that are others once more can only follow them.
        yield "super().__init__()"
        children: tuple[tuple[str, Node], ...] = definition.children
    elif inherits and (_numbered(definition.children) or not _named(definition)):
        yield f"super().__init__({_sequence(definition.children, definition)})"
        children = ()
    elif is_numbered(definition):
        items = ", ".join(_items(definition.children, definition))
        yield f"super().__init__({items if definition.base == 'Sequential' else f'[{items}]'})"
        children = ()
    else:
        yield "super().__init__()"
        children = definition.children
    for name in _stored(definition):
        yield f"self.{identifier(name)} = {name}"
    for parameter in definition.parameters:
        tensor = f"torch.empty({_shape(parameter.shape)}{_dtype(parameter.dtype)})"
        frozen = "" if parameter.trainable else ", requires_grad=False"
        made = f"nn.Parameter({tensor}{frozen})"
        if is_name(parameter.name):
            yield f"self.{parameter.name} = {made}"
        else:
            yield f"self.register_parameter({attribute(parameter.name)!r}, {made})"
    for buffer in definition.buffers:
        tensor = f"torch.empty({_shape(buffer.shape)}{_dtype(buffer.dtype)})"
        persistent = "" if buffer.persistent else ", persistent=False"
        if is_name(buffer.name):
            yield f"self.{buffer.name} = nn.Buffer({tensor}{persistent})"
        else:
            yield f"self.register_buffer({attribute(buffer.name)!r}, {tensor}{persistent})"
    for name, node in children:
        yield from _assign(name, node, definition)


def _assign(path: str, node: Node, within: Definition) -> Iterator[str]:
    """Statements that put ``node`` at ``path``: a container that repeats an item grows by it."""
    rest: tuple[tuple[str, Node], ...] = ()
    if isinstance(node, Container):
        inside = [
            any(shared.startswith(f"{path}.") for shared in _shared(item))
            for _, item in node.children
        ]
        if any(inside):
            first = inside.index(True)
            rest, node = node.children[first:], replace(node, children=node.children[:first])
    owner, _, name = path.rpartition(".")
    text = construct(node, within)
    if owner or not is_name(name):
        base = access("self", owner, within) if owner else "self"
        yield f"{base}.add_module({name!r}, {text})"
    else:
        yield f"self.{identifier(name)} = {text}"
    for name, item in rest:
        yield from _assign(f"{path}.{name}", item, within)


def _shared(node: Node) -> list[str]:
    """Paths of the modules that ``node`` has once more."""
    if isinstance(node, Shared):
        return [node.shared]
    if isinstance(node, Container):
        return [path for _, item in node.children for path in _shared(item)]
    return []


def _named(definition: Definition) -> bool:
    return all(is_name(name) for name, _ in definition.children)


def _shape(shape: Value) -> str:
    if isinstance(shape, tuple) and shape:
        return ", ".join(literal(item) for item in shape)
    return literal(shape)


def _dtype(dtype: str) -> str:
    return "" if dtype == "float32" else f", dtype=torch.{identifier(dtype)}"


def _stored(definition: Definition) -> list[str]:
    """Constructor arguments that a forward reads."""
    found: set[str] = set()

    def visit(value: object) -> None:
        if isinstance(value, Slot):
            found.add(value.slot)
        elif isinstance(value, tuple):
            for item in value:
                visit(item)
        elif hasattr(value, "__dataclass_fields__"):
            for name in value.__dataclass_fields__:
                visit(getattr(value, name))

    visit(definition.train)
    visit(definition.eval)
    return [name for name in definition.arguments if name in found]


# --------------------------------------------------------------------------- initialisation


def _reset(definition: Definition, resets: tuple[str, ...]) -> Iterator[str]:
    """The body of ``reset_parameters``: kept parameters, then constant buffers."""
    yield from resets
    for buffer in definition.buffers:
        lines, value = constant(buffer, definition.name)
        yield from lines
        yield f"{access('self', buffer.name)}.copy_({value})"


def input_doc(specs: tuple[TensorSpec, ...]) -> str:
    """Shapes of example tensors, as a reader writes them."""
    return ", ".join(f"{spec.dtype}[{', '.join(map(str, spec.shape))}]" for spec in specs)
