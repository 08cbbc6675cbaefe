"""Tables of banks and sites, and the view of the generated subclasses."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from planner.emission.expressions import identifier
from planner.ir import (
    Bank,
    Container,
    Instance,
    Node,
    Placement,
    Program,
    Site,
    Slot,
)
from planner.topology import Place, places

_RECURRENT = ("RNN", "LSTM", "GRU")
# torch.nn types that stand inside others and are not public under torch.nn itself.
_INNER = {"NonDynamicallyQuantizableLinear": "nn.modules.linear.NonDynamicallyQuantizableLinear"}
_CLASSES = {
    "mix": "Mix",
    "interpolate": "Interpolate",
    "repeat": "Tile",
    "mask": "Tile",
    "hash": "Hash",
    "lowrank": "LowRank",
    "tie": "Tie",
}
_FIELDS = {
    "mix": ("start", "stride", "coefficient", "count"),
    "interpolate": ("start", "stride", "rows", "columns", "coefficient", "count"),
    "repeat": ("start", "coefficient", "count"),
    "mask": ("start", "coefficient", "count"),
    "hash": ("start", "stride", "seed"),
    "lowrank": ("rank",),
    "tie": (),
}


@dataclass(frozen=True, slots=True)
class Owner:
    """A module type that holds generated tensors."""

    name: str
    base: str
    parameters: tuple[str, ...]
    recurrent: bool


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
    links: bool
    banks: str
    mixing: bool
    linear: bool
    recurrent: bool
    kept: bool


@dataclass(frozen=True, slots=True)
class Tables:
    """Rows of BANKS, SITES and ALIASES: (key, text of the value), both as source.

    The rows of SITES are padded to columns and end in the tensor's shape.
    """

    banks: tuple[tuple[str, str], ...]
    sites: tuple[str, ...]
    aliases: tuple[tuple[str, str], ...]


def tables(
    sites: Sequence[Site], banks: Sequence[Bank], placements: dict[str, Placement]
) -> Tables:
    """The tables of an allocation."""
    chunks = {bank.name: bank.chunk for bank in banks}
    rows = [
        (f"{_key(site.name)}:", f"{_generator(placements[site.name], chunks)},", site.shape)
        for site in sites
        if placements[site.name].generator != "own"
    ]
    width = max((len(name) for name, _, _ in rows), default=0)
    lines = tuple(
        f"{name:<{width}} {text}  # {' x '.join(map(str, shape))}" for name, text, shape in rows
    )
    aliases = tuple((repr(alias), repr(site.name)) for site in sites for alias in site.aliases)
    return Tables(tuple((repr(bank.name), _bank(bank)) for bank in banks), lines, aliases)


def _key(name: str) -> str:
    """``name`` in double quotes, as the formatter would have it."""
    return json.dumps(name) if '"' not in name else repr(name)


def _bank(bank: Bank) -> str:
    coefficients = f', "coefficients": {bank.coefficients}' if bank.coefficients else ""
    return f'{{"size": {bank.size}, "std": {bank.std!r}{coefficients}}}'


def _generator(placement: Placement, chunks: dict[str, int]) -> str:
    kind = placement.generator
    parts = [f"bank={_key(placement.bank or '')}"]
    parts += [f"{name}={getattr(placement, name)!r}" for name in _FIELDS[kind]]
    if kind == "hash" and placement.bank is not None:
        parts.append(f"chunk={chunks[placement.bank]}")
    for name, default in (("scale", 1.0), ("mean", 0.0), ("step", 1.0), ("zero", False)):
        value = getattr(placement, name)
        if name in ("step", "zero") and kind not in ("mix", "interpolate", "repeat", "mask"):
            continue
        if value != default:
            parts.append(f"{name}={value!r}")
    return f"{_CLASSES[kind]}({', '.join(parts)})"


def runtime_view(
    program: Program,
    sites: Sequence[Site],
    placements: dict[str, Placement],
    construct: str,
    kept: bool,
) -> RuntimeView:
    """The view for ``program``; ``construct`` is the expression that builds its root.

    ``kept`` says whether the file has a ``reset_kept`` for single tensors.
    """
    by_path = {place.path: place for place in places(program)}
    found: dict[str, dict[str, None]] = {}
    recurrent: dict[str, bool] = {}
    root_parameters: dict[str, None] = {}
    links = False
    for site in sites:
        made = placements[site.name].generator != "own"
        links = links or (bool(site.aliases) and not made)
        for name in (site.name, *site.aliases) if made else site.aliases:
            path, _, attribute = name.rpartition(".")
            identifier(attribute)
            if path == "":
                root_parameters[attribute] = None
                continue
            base, layer = _base(path, site, by_path)
            found.setdefault(base, {})[attribute] = None
            recurrent[base] = layer and base.removeprefix("nn.") in _RECURRENT
    root_type = by_path[""].type
    root_definition = next(item for item in program.definitions if item.name == root_type)
    owners = tuple(
        Owner(f"Generated{base.rpartition('.')[2]}", base, tuple(names), recurrent[base])
        for base, names in found.items()
        if base != root_type
    )
    kinds = tuple(
        dict.fromkeys(
            "tile" if placement.generator in ("repeat", "mask") else placement.generator
            for placement in placements.values()
            if placement.generator != "own"
        )
    )
    taken = {name for name, _ in root_definition.children}
    taken.update(parameter.name for parameter in root_definition.parameters)
    taken.update(buffer.name for buffer in root_definition.buffers)
    return RuntimeView(
        kinds=kinds,
        owners=owners,
        root=Root(
            f"Generated{root_type}",
            root_type,
            construct,
            tuple(dict.fromkeys((*found.get(root_type, {}), *root_parameters))),
            recurrent=False,
            sequential=root_definition.base in ("Sequential", "ModuleList"),
        ),
        links=links,
        banks=next(name for name in ("banks", "banks_", "parameter_banks") if name not in taken),
        mixing=bool({"mix", "interpolate", "tile"} & set(kinds)),
        linear=bool(set(kinds) - {"lowrank"}),
        recurrent=any(owner.recurrent for owner in owners),
        kept=kept,
    )


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
