"""What the templates of generators and machinery read: the view of a plan's generated tensors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from planner.emission.expressions import identifier
from planner.emission.tables import bank_dtypes, is_used, quoted, widest
from planner.errors import PlanFormatError
from planner.ir import (
    Bank,
    Container,
    Generator,
    Instance,
    Leaf,
    Node,
    Placement,
    Program,
    Site,
    Slot,
    is_attribute,
)
from planner.topology import Place, places

# Layers that look up rows of a table.
_TABLES = ("nn.Embedding", "nn.EmbeddingBag")
_RECURRENT = ("RNN", "LSTM", "GRU")
# Layers that call their reset ``_reset_parameters``, or hold one that does.
_UNDERSCORED = ("MultiheadAttention", "Transformer")
# torch.nn types that stand inside others and are not public under torch.nn itself.
_INNER = {"NonDynamicallyQuantizableLinear": "nn.modules.linear.NonDynamicallyQuantizableLinear"}


@dataclass(frozen=True, slots=True)
class Owner:
    """A module type that holds generated tensors; ``lookup``: a table that rows are read of."""

    name: str
    base: str
    parameters: tuple[str, ...]
    recurrent: bool
    lookup: bool


@dataclass(frozen=True, slots=True)
class Root:
    """The root's type."""

    name: str
    base: str
    construct: str
    parameters: tuple[str, ...]
    recurrent: bool
    sequential: bool


@dataclass(frozen=True, slots=True)
class RuntimeView:
    """What the templates of generators and machinery read."""

    kinds: tuple[str, ...]
    owners: tuple[Owner, ...]
    root: Root
    aliases: bool
    links: bool
    limits: bool
    banks: str
    mixing: bool
    mixer: str
    fields: tuple[str, ...]
    linear: bool
    recurrent: bool
    underscored: bool
    kept: bool
    shared: bool
    lookups: tuple[str, ...]
    singles: bool
    dtypes: bool
    casts: bool
    frozen: tuple[str, ...]


def runtime_view(
    program: Program,
    sites: Sequence[Site],
    banks: Sequence[Bank],
    placements: dict[str, Placement],
    construct: str,
    kept: bool,
    shared: bool,
) -> RuntimeView:
    """The view for ``program``; ``construct`` is the expression that builds its root.

    ``kept`` says whether the file has a ``reset_kept`` for single tensors, ``shared`` whether a
    module stands at several places; ``sites`` have no aliases for what is below it.
    """
    by_path = {place.path: place for place in places(program, repeated=True)}
    found: dict[str, dict[str, None]] = {}
    layers: set[str] = set()
    root_parameters: dict[str, None] = {}
    lookups: dict[Generator, None] = {}
    links = False
    for site in sites:
        made = placements[site.name].generator != "own"
        links = links or (bool(site.aliases) and not made)
        for name in (site.name, *site.aliases) if made else site.aliases:
            path, _, attribute = name.rpartition(".")
            if not is_attribute(attribute):
                raise PlanFormatError(f"{attribute!r} cannot be a name in the emitted file")
            if path == "":
                root_parameters[attribute] = None
                continue
            base, layer = _base(path, site, by_path)
            found.setdefault(base, {})[attribute] = None
            if layer:
                layers.add(base)
            if layer and made and base in _TABLES:
                lookups[placements[site.name].generator] = None
    root_type = by_path[""].type
    root_definition = next(item for item in program.definitions if item.name == root_type)
    names = _names([root_type, *(base for base in found if base != root_type)])
    owners = tuple(
        Owner(
            names[base],
            base,
            tuple(parameters),
            recurrent=base in layers and base.removeprefix("nn.") in _RECURRENT,
            lookup=base in layers and base in _TABLES and bool(lookups),
        )
        for base, parameters in found.items()
        if base != root_type
    )
    kinds = _kinds(
        placement.generator for placement in placements.values() if placement.generator != "own"
    )
    dtypes = bank_dtypes(sites, placements).values()
    taken = {name for name, _ in root_definition.children}
    taken.update(parameter.name for parameter in root_definition.parameters)
    taken.update(buffer.name for buffer in root_definition.buffers)
    return RuntimeView(
        kinds=kinds,
        owners=owners,
        root=Root(
            names[root_type],
            root_type,
            construct,
            tuple(dict.fromkeys((*found.get(root_type, {}), *root_parameters))),
            recurrent=False,
            sequential=root_definition.base in ("Sequential", "ModuleList"),
        ),
        aliases=any(site.aliases for site in sites),
        links=links,
        limits=any(_is_limited(leaf) for leaf in _leaves(program)),
        banks=next(name for name in ("banks", "banks_", "parameter_banks") if name not in taken),
        mixing=bool({"mix", "interpolate", "tile"} & set(kinds)),
        mixer=mixer(kinds),
        fields=tuple(name for name in ("mean", "step", "zero") if is_used(name, placements)),
        linear=bool(set(kinds) - {"lowrank"}),
        recurrent=any(owner.recurrent for owner in owners),
        underscored=any(leaf.type.startswith(_UNDERSCORED) for leaf in _leaves(program)),
        kept=kept,
        shared=shared,
        lookups=_kinds(lookups),
        singles=any(bank.size == 1 for bank in banks),
        dtypes=any(widest(one) != "float32" for one in dtypes),
        casts=any(len(one) > 1 for one in dtypes),
        frozen=_frozen(sites, by_path),
    )


def _leaves(program: Program) -> Iterator[Leaf]:
    """The constructor calls of layers."""
    nodes = [program.root]
    nodes += [node for definition in program.definitions for _, node in definition.children]
    while nodes:
        node = nodes.pop()
        if isinstance(node, Leaf):
            yield node
        elif isinstance(node, Container):
            nodes += [child for _, child in node.children]


def _is_limited(leaf: Leaf) -> bool:
    """Whether this is a table with more options than a padding row."""
    options = {"max_norm", "scale_grad_by_freq", "sparse"}
    names = {name for name, _ in leaf.kwargs}
    return f"nn.{leaf.type}" in _TABLES and (len(leaf.args) > 3 or bool(options & names))


def mixer(kinds: Sequence[str]) -> str:
    """The class of the emitted file that has the fields of all generators with coefficients."""
    if "tile" not in kinds:
        return "Mix"
    return "Mixed" if {"mix", "interpolate"} & set(kinds) else "Tile"


def _kinds(generators: Iterable[Generator]) -> tuple[str, ...]:
    """The classes of the emitted file behind ``generators``, as the templates name them."""
    return tuple(dict.fromkeys("tile" if g in ("repeat", "mask") else g for g in generators))


def _names(bases: Iterable[str]) -> dict[str, str]:
    """A class name for each base: a model may have a class of the name of one of torch's."""
    names: dict[str, str] = {}
    for base in bases:
        first = name = f"Generated{base.rpartition('.')[2]}"
        count = 1
        while name in names.values():
            count += 1
            name = f"{first}{count}"
        names[base] = name
    return names


def _frozen(sites: Sequence[Site], by_path: dict[str, Place]) -> tuple[str, ...]:
    """Prefixes of the frozen parameters of layers (blocks make their own so), as source."""
    trained = [
        f"{name}." for site in sites if site.trainable for name in (site.name, *site.aliases)
    ]
    prefixes: dict[str, None] = {}
    for site in sites:
        path = site.name.rpartition(".")[0]
        if site.trainable or (path in by_path and by_path[path].block):
            continue
        parts = site.name.split(".")
        starts = (".".join(parts[:count]) + "." for count in range(1, len(parts) + 1))
        prefixes[next(s for s in starts if not any(name.startswith(s) for name in trained))] = None
    return tuple(map(quoted, prefixes))


def _base(path: str, site: Site, by_path: dict[str, Place]) -> tuple[str, bool]:
    """(the owner's type as an expression, whether it is a layer of torch)."""
    if path in by_path:
        place = by_path[path]
        return (place.type, False) if place.block else (f"nn.{place.type}", True)
    # A layer inside a layer of torch, such as the output projection of an attention.
    identifier(site.owner)
    return _INNER.get(site.owner, f"nn.{site.owner}"), True


def argument_types(program: Program) -> dict[str, dict[str, str]]:
    """Annotations of constructor arguments, from the values they are given, by definition."""
    seen: dict[str, dict[str, set[str]]] = {}

    def visit(node: Node, user: str) -> None:
        if isinstance(node, Container):
            for _, child in node.children:
                visit(child, user)
        elif isinstance(node, Instance):
            known = seen.setdefault(node.definition, {})
            for name, value in node.arguments:
                if isinstance(value, Slot):
                    # Users stand after what they use, so their own arguments are known by now.
                    known.setdefault(name, set()).update(seen[user][value.slot])
                else:
                    known.setdefault(name, set()).add(_type(value))

    visit(program.root, "")
    for definition in reversed(program.definitions):
        for _, child in definition.children:
            visit(child, definition.name)
    return {
        definition: {name: " | ".join(sorted(kinds)) for name, kinds in arguments.items()}
        for definition, arguments in seen.items()
    }


def _type(value: object) -> str:
    if isinstance(value, tuple):
        return "tuple[int, ...]"
    return type(value).__name__ if type(value) in (int, float) else "Any"
