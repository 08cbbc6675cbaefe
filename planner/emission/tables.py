"""The tables of an allocation: banks, sites and aliases, as rows of source."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from planner.emission.expressions import identifier
from planner.ir import Bank, Generator, Placement, Site

_CLASSES = {
    "mix": "Mix",
    "interpolate": "Interpolate",
    "repeat": "Tile",
    "mask": "Tile",
    "hash": "Hash",
    "lowrank": "LowRank",
    "tie": "Tie",
    "blend": "Blend",
}
_FIELDS = {
    "mix": ("start", "stride", "coefficient", "count"),
    "interpolate": ("start", "stride", "rows", "columns", "coefficient", "count"),
    "repeat": ("start", "coefficient", "count"),
    "mask": ("start", "coefficient", "count"),
    "hash": ("start", "stride", "seed"),
    "lowrank": ("rank",),
    "tie": (),
    "blend": ("start", "stride", "coefficient", "count"),
}
_DEFAULTS = {"scale": 1.0, "mean": 0.0, "step": 1.0, "zero": False}
_VARYING = ("start", "stride", "coefficient", "seed")
"""Fields in which the sites of one row may differ."""
_WIDTH = 140
_LONGEST = 200
"""Columns of a row that lists no numbers."""
_INDENT = " " * 7


@dataclass(frozen=True, slots=True)
class Tables:
    """Rows of BANKS and ALIASES: (key, text of the value), both as source; lines of SITES.

    Sites that differ in one number of their names, and in where they read their bank, share a row.
    """

    banks: tuple[tuple[str, str], ...]
    sites: tuple[str, ...]
    aliases: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class _Row:
    """A site: its name, the class of its generator, the fields' values as source, its shape."""

    name: str
    type: str
    fields: tuple[tuple[str, str], ...]
    shape: str

    def call(self, varying: Mapping[str, str]) -> str:
        """The constructor call, with expressions in place of some values."""
        parts = (f"{name}={varying.get(name, value)}" for name, value in self.fields)
        return f"{self.type}({', '.join(parts)})"

    def number(self, field: str) -> int:
        """The value of a field that holds an integer."""
        return int(dict(self.fields)[field])


@dataclass(frozen=True, slots=True)
class _Family:
    """Rows whose names are ``prefix``, a number and ``suffix``, by that number."""

    prefix: str
    suffix: str
    members: Mapping[int, _Row]


def tables(
    sites: Sequence[Site], banks: Sequence[Bank], placements: Mapping[str, Placement]
) -> Tables:
    """The tables of an allocation."""
    chunks = {bank.name: bank.chunk for bank in banks}
    lengths = {quoted(bank.name): bank.size for bank in banks}
    rows = [
        _row(site, placements[site.name], chunks)
        for site in sites
        if placements[site.name].generator != "own"
    ]
    aliases = tuple((repr(alias), repr(site.name)) for site in sites for alias in site.aliases)
    dtypes = bank_dtypes(sites, placements)
    named = tuple(
        (repr(bank.name), _bank(bank, widest(dtypes.get(bank.name, frozenset())))) for bank in banks
    )
    return Tables(named, tuple(_lines(rows, lengths)), aliases)


def bank_dtypes(
    sites: Sequence[Site], placements: Mapping[str, Placement]
) -> dict[str, frozenset[str]]:
    """The dtypes of the tensors that each bank makes."""
    found: dict[str, frozenset[str]] = {}
    for site in sites:
        bank = placements[site.name].bank
        if bank is not None:
            found[bank] = found.get(bank, frozenset()) | {site.dtype}
    return found


def widest(dtypes: frozenset[str]) -> str:
    """The dtype of a bank: one that holds the values of all its tensors."""
    if len(dtypes) == 1:
        return next(iter(dtypes))
    return "float64" if "float64" in dtypes else "float32"


def quoted(name: str) -> str:
    """``name`` in double quotes, as the formatter would have it."""
    return json.dumps(name) if '"' not in name else repr(name)


def is_used(field: str, placements: Mapping[str, Placement]) -> bool:
    """Whether a row has the optional ``field``."""
    return any(
        field in _optional(placement.generator) and getattr(placement, field) != _DEFAULTS[field]
        for placement in placements.values()
    )


def _optional(kind: Generator) -> tuple[str, ...]:
    """Fields that are left out at their default."""
    if kind == "own":
        return ()
    if kind == "blend":
        return ("scale", "mean", "zero")
    mixes = kind in ("mix", "interpolate", "repeat", "mask")
    return ("scale", "mean", "step", "zero") if mixes else ("scale", "mean")


def _bank(bank: Bank, dtype: str) -> str:
    text = f'"size": {bank.size}, "std": {bank.std!r}'
    if bank.coefficients:
        text += f', "coefficients": {bank.coefficients}'
    if dtype != "float32":
        text += f', "dtype": torch.{identifier(dtype)}'
    return f"{{{text}}}"


def _row(site: Site, placement: Placement, chunks: Mapping[str, int]) -> _Row:
    kind, bank = placement.generator, placement.bank or ""
    optional = (one for one in _optional(kind) if getattr(placement, one) != _DEFAULTS[one])
    fields = [("bank", quoted(bank))]
    fields += [(name, repr(getattr(placement, name))) for name in _FIELDS[kind]]
    fields += [("chunk", str(chunks[bank]))] if kind == "hash" else []
    fields += [(name, repr(getattr(placement, name))) for name in optional]
    return _Row(site.name, _CLASSES[kind], tuple(fields), " x ".join(map(str, site.shape)))


# --------------------------------------------------------------------------- rows of several sites


def _lines(rows: Sequence[_Row], lengths: Mapping[str, int]) -> list[str]:
    """The lines of SITES; a family stands where its first member is.

    ``lengths`` are the sizes of the banks, by their names as source.
    """
    families = _families(rows)
    texts: dict[str, list[str]] = {}
    taken: set[str] = set()
    for row in rows:
        if row.name in taken:
            continue
        for family in families.get(row.name, ()):
            members = {i: one for i, one in family.members.items() if one.name not in taken}
            if len(members) < 2:
                continue
            lines = _comprehension(_Family(family.prefix, family.suffix, members), lengths)
            if len(lines) < len(members):
                texts[row.name] = lines
                taken.update(one.name for one in members.values())
                break
    alone = {row.name: f"{quoted(row.name)}:" for row in rows if row.name not in taken}
    width = max(map(len, alone.values()), default=0)
    result: list[str] = []
    for row in rows:
        if row.name in alone:
            result.append(f"{alone[row.name]:<{width}} {row.call({})},  # {row.shape}")
        result += texts.get(row.name, ())
    return result


def _families(rows: Sequence[_Row]) -> dict[str, list[_Family]]:
    """The families of each row, by name, the largest first."""
    members: dict[tuple[object, ...], dict[int, _Row]] = {}
    for row in rows:
        if not re.fullmatch(r"[A-Za-z0-9_.]+", row.name):
            continue
        same = tuple((name, None if name in _VARYING else value) for name, value in row.fields)
        for number in re.finditer(r"(?<![0-9])(0|[1-9][0-9]*)(?![0-9])", row.name):
            around = row.name[: number.start()], row.name[number.end() :]
            members.setdefault((*around, row.type, same, row.shape), {})[int(number[0])] = row
    found: dict[str, list[_Family]] = {}
    for (prefix, suffix, *_), group in members.items():
        for row in group.values():
            found.setdefault(row.name, []).append(_Family(str(prefix), str(suffix), group))
    return {
        name: sorted(group, key=lambda family: -len(family.members))
        for name, group in found.items()
    }


def _comprehension(family: _Family, lengths: Mapping[str, int]) -> list[str]:
    """The row of a family: constant fields, progressions in ``i``, and others in a tuple."""
    numbers, rows = list(family.members), list(family.members.values())
    names = [name for name, _ in rows[0].fields if name in _VARYING]
    columns = {name: [row.number(name) for row in rows] for name in names}
    expressions = {name: _progression(numbers, values) for name, values in columns.items()}
    if "start" in columns and expressions["start"] is None and len(rows) > 2:
        length = lengths[dict(rows[0].fields)["bank"]]
        expressions["start"] = _around(numbers, columns["start"], length)
    listed = {name: columns[name] for name, text in expressions.items() if text is None}
    call = rows[0].call({name: text or name for name, text in expressions.items()})
    head = f'**{{f"{family.prefix}{{i}}{family.suffix}": {call}'
    tail, shape = f"for {_loop(numbers, listed)}}},", f"  # {rows[0].shape}"
    if len(head) + len(tail) < (_WIDTH if listed else _LONGEST):
        return [f"{head} {tail}{shape}"]
    *lines, last = textwrap.wrap(
        tail, _WIDTH, initial_indent=" " * 3, subsequent_indent=" " * 7, break_long_words=False
    )
    return [head, *lines, last + shape]


def _progression(numbers: Sequence[int], values: Sequence[int]) -> str | None:
    """``values`` as an expression in ``i``, if they grow evenly with it."""
    if len(set(values)) == 1:
        return str(values[0])
    step = (values[1] - values[0]) // (numbers[1] - numbers[0])
    offset = values[0] - step * numbers[0]
    if any(step * i + offset != value for i, value in zip(numbers, values, strict=True)):
        return None
    text = "i" if step == 1 else f"{step} * i"
    return f"{text} {'+' if offset > 0 else '-'} {abs(offset)}" if offset else text


def _around(numbers: Sequence[int], values: Sequence[int], length: int) -> str | None:
    """``values`` as an expression in ``i``, if they go around a ring in even steps."""
    if list(numbers) != list(range(numbers[0], numbers[0] + len(numbers))):
        return None
    step = (values[1] - values[0]) % length
    offset = (values[0] - step * numbers[0]) % length
    if any((step * i + offset) % length != value for i, value in zip(numbers, values, strict=True)):
        return None
    return f"({step} * i + {offset}) % {length}" if offset else f"{step} * i % {length}"


def _loop(numbers: Sequence[int], listed: Mapping[str, Sequence[int]]) -> str:
    """``i in range(...)``, or ``i`` and the values that are listed."""
    first, last = numbers[0], numbers[-1]
    even = list(numbers) == list(range(first, last + 1))
    if not listed:
        return (
            f"i in range({f'{first}, ' if first else ''}{last + 1})"
            if even
            else f"i in {_tuple(numbers)}"
        )
    items = list(listed.values()) if even else [numbers, *listed.values()]
    rows = [_tuple(row) for row in zip(*items, strict=True)] if len(items) > 1 else items[0]
    names = _tuple(list(listed)) if len(listed) > 1 and even else ", ".join(listed)
    start = f", {first}" if first else ""
    return f"i, {names} in {f'enumerate({_tuple(rows)}{start})' if even else _tuple(rows)}"


def _tuple(items: Sequence[object]) -> str:
    """Two items or more as a tuple."""
    return f"({', '.join(map(str, items))})"
