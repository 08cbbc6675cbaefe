"""Program → the graph of its layers: which layer feeds which, how deep each lies, what repeats."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from planner.ir import (
    Container,
    Definition,
    Instance,
    Leaf,
    Node,
    Program,
    Shared,
    Value,
    references,
)

if TYPE_CHECKING:
    import networkx as nx


@dataclass(frozen=True, slots=True)
class Place:
    """Where a module stands.

    Attributes:
        path: its dotted path in the model.
        type: its torch.nn type or its definition.
        definition: the definition that creates it ("" for the root).
        local: its path within that definition.
        block: whether its type is a definition.
    """

    path: str
    type: str
    definition: str
    local: str
    block: bool = False


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer of torch, or a tensor that a block reads by itself.

    ``depth`` layers precede it on the longest path; ``uses`` calls read it.
    """

    path: str
    depth: int
    uses: int


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def places(program: Program, *, repeated: bool = False) -> tuple[Place, ...]:
    """Every module of the model, parents before children; blocks appear under their definitions.

    ``repeated`` says that a module with several names in its block appears under each.
    """
    definitions = {definition.name: definition for definition in program.definitions}
    found: list[Place] = []

    def visit(node: Node, path: str, definition: str, local: str) -> None:
        if isinstance(node, Leaf):
            found.append(Place(path, node.type, definition, local))
        elif isinstance(node, Container):
            for name, child in node.children:
                visit(child, _join(path, name), definition, _join(local, name))
        elif isinstance(node, Instance):
            found.append(Place(path, node.definition, definition, local, block=True))
            for name, child in definitions[node.definition].children:
                visit(child, _join(path, name), node.definition, name)
        elif repeated:
            first = path.removesuffix(local) + node.shared
            below = [one for one in found if f"{one.path}.".startswith(f"{first}.")]
            found.extend(replace(one, path=path + one.path[len(first) :]) for one in below)

    visit(program.root, "", "", "")
    return tuple(found)


def repeated(program: Program) -> tuple[str, ...]:
    """Paths at which a module stands that stands elsewhere already."""
    definitions = {definition.name: definition for definition in program.definitions}

    def visit(node: Node, path: str) -> Iterator[str]:
        if isinstance(node, Shared):
            yield path
        elif isinstance(node, (Container, Instance)):
            inner = node if isinstance(node, Container) else definitions[node.definition]
            for name, child in inner.children:
                yield from visit(child, _join(path, name))

    return tuple(visit(program.root, ""))


def nearest(path: str, known: Mapping[str, object]) -> str:
    """The nearest module at or above ``path`` that is among the ``known`` ones; "" if none is."""
    while path not in known and path:
        path = path.rpartition(".")[0]
    return path


def role(place: Place, path: str, parameter: str) -> tuple[str, str]:
    """What a parameter of the module at ``path``, at or below ``place``, is in its block.

    Returns:
        The definition that the parameter belongs to, and its dotted path within that.
    """
    inner = path[len(place.path) :].lstrip(".")
    definition, *within = (
        (place.type, inner) if place.block else (place.definition, place.local, inner)
    )
    return definition, ".".join(part for part in (*within, parameter) if part)


def layer_graph(program: Program) -> nx.DiGraph[tuple[str, int]]:
    """The data flow between calls of layers, as a directed acyclic graph.

    Nodes are ``(path, call)``: a module called twice is two nodes. A tensor that a block reads by
    itself is a node as well. Edges point from producer to consumer.
    """
    return _Flow(program).graph


def layers(program: Program) -> tuple[Layer, ...]:
    """Depth (longest path from an input, in layers) and number of calls of each layer."""
    import networkx as nx

    graph = layer_graph(program)
    depth: dict[str, int] = {}
    uses: dict[str, int] = {}
    for generation, nodes in enumerate(nx.topological_generations(graph)):
        for path, _ in nodes:
            depth.setdefault(path, generation)
            uses[path] = uses.get(path, 0) + 1
    return tuple(Layer(path, depth[path], uses[path]) for path in sorted(depth))


_Producers = frozenset[tuple[str, int]]


class _Flow:
    """Runs a program on sets of producers instead of tensors."""

    def __init__(self, program: Program) -> None:
        # Here and not above: emission needs places alone, and starts sooner without.
        import networkx as nx

        self.definitions = {definition.name: definition for definition in program.definitions}
        self.uncaptured = program.obstacle != ""
        self.graph: nx.DiGraph[tuple[str, int]] = nx.DiGraph()
        self.calls: dict[str, int] = {}
        self.run(program.root, "", [frozenset() for _ in program.example_inputs])

    def layer(self, path: str, sources: list[_Producers]) -> _Producers:
        call = self.calls.get(path, 0)
        self.calls[path] = call + 1
        node = (path, call)
        self.graph.add_node(node)
        self.graph.add_edges_from((source, node) for group in sources for source in sorted(group))
        return frozenset((node,))

    def run(self, node: Node, path: str, arguments: list[_Producers]) -> _Producers:
        if isinstance(node, Leaf):
            return self.layer(path, arguments)
        if isinstance(node, Container):
            return self.in_order(node.children, path, arguments)
        if isinstance(node, Instance):
            definition = self.definitions[node.definition]
            if definition.train is None:
                if self.uncaptured and definition.parameters:
                    # Nobody knows what its forward reads: all that it holds, presumably.
                    arguments = [self.layer(path, arguments)]
                return self.in_order(definition.children, path, arguments)
            return self.forward(definition, path, arguments)
        return frozenset().union(*arguments) if arguments else frozenset()

    def in_order(
        self, children: tuple[tuple[str, Node], ...], path: str, arguments: list[_Producers]
    ) -> _Producers:
        for name, child in children:
            arguments = [self.run(child, _join(path, name), arguments)]
        return arguments[0] if arguments else frozenset()

    def forward(self, definition: Definition, path: str, arguments: list[_Producers]) -> _Producers:
        # The training graph holds every layer that learns.
        if definition.train is None:
            return frozenset()
        known: dict[str, _Producers] = {}
        for position, item in enumerate(definition.inputs):
            known[item.name] = arguments[position] if position < len(arguments) else frozenset()

        def sources_of(value: Value) -> _Producers:
            return frozenset().union(*(known.get(name, frozenset()) for name in references(value)))

        for operation in definition.train.operations:
            values = (*operation.args, *(value for _, value in operation.kwargs))
            sources = [sources_of(value) for value in values]
            if operation.op == "module":
                local, node = find(definition, operation.target)
                if isinstance(node, Instance):
                    # A block's arguments are told apart, by position or name.
                    named = dict(operation.kwargs)
                    names = [item.name for item in self.definitions[node.definition].inputs]
                    rest = names[len(operation.args) :]
                    sources = [sources_of(value) for value in operation.args]
                    sources += [sources_of(named.get(name)) for name in rest]
                known[operation.result] = self.enter(node, _join(path, local), sources)
            elif operation.op == "attribute":
                known[operation.result] = self.layer(_join(path, operation.target), [])
            else:
                known[operation.result] = frozenset().union(*sources)
        output = references(definition.train.output)
        return frozenset().union(*(known.get(name, frozenset()) for name in output))

    def enter(
        self, found: tuple[Node, str] | Node, path: str, sources: list[_Producers]
    ) -> _Producers:
        if isinstance(found, tuple):
            # The rest of the target lies inside a child block.
            node, rest = found
            if isinstance(node, Instance):
                local, inner = find(self.definitions[node.definition], rest)
                return self.enter(inner, _join(path, local), sources)
            return self.layer(_join(path, rest), sources)
        return self.run(found, path, sources)


def find(definition: Definition, target: str) -> tuple[str, Node | tuple[Node, str]]:
    """The child at the dotted path ``target``, as (its path with shared names resolved, node).

    Where the path leads into a child block or leaf, the node is (that child, rest of the path).
    """
    children = dict(definition.children)
    node: Node | None = None
    done: list[str] = []
    parts = target.split(".")
    for position, part in enumerate(parts):
        if node is not None and not isinstance(node, Container):
            return ".".join(done), (node, ".".join(parts[position:]))
        node = children[part]
        done.append(part)
        if isinstance(node, Shared):
            local, found = find(definition, node.shared)
            if position + 1 < len(parts) and not isinstance(found, tuple):
                return find(definition, ".".join([node.shared, *parts[position + 1 :]]))
            return local, found
        if isinstance(node, Container):
            children = dict(node.children)
    if node is None:
        raise KeyError(target)
    return target, node
