"""What a user may ask of an allocation, by patterns on the names of sites: objects and files.

A file is TOML or JSON, a list of tables for each kind of constraint::

    [[pin]]
    sites = "conv1.weight"

    [[apart]]
    sites = ["encoder.*", "decoder.*"]

    [[max_compression]]
    sites = "layer4.*"
    kind = "Conv2d"
    ratio = 20

``sites`` is a pattern or a list of them, as a shell's (``*`` crosses dots) or as a report prints
them (``layer3.{0..5}.conv1.weight``); ``kind`` narrows them to parameters of one type of module.
One of the two may be left out. ``name`` is what messages call the constraint.
"""

from __future__ import annotations

import dataclasses
import difflib
import fnmatch
import itertools
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

from planner.budgets import parse_budget
from planner.errors import ConstraintError, PlannerError
from planner.ir import GENERATORS, Site
from planner.rules import Rule

_BRACES = re.compile(r"\{([0-9]+\.\.[0-9]+|[0-9]+(?:,[0-9]+)*)\}")
_MOST_NAMES = 10_000


@dataclass(frozen=True)
class Constraint:
    """Base of all constraints.

    Attributes:
        sites: one pattern or several.
        kind: type of the module that holds the parameter, ``Conv2d``; any if empty.
        name: for messages; by default made from the patterns.
    """

    key: ClassVar[str] = ""
    sites: str | Sequence[str] = "*"
    kind: str = ""
    name: str = ""

    @property
    def patterns(self) -> tuple[str, ...]:
        """The patterns, one or several."""
        return (self.sites,) if isinstance(self.sites, str) else tuple(self.sites)

    @property
    def label(self) -> str:
        """What messages call it: ``pin "fc.*"``, ``pin "fc.*" of Linear``."""
        if self.name:
            return f"{self.key} {json.dumps(self.name)}"
        of = f" of {self.kind}" if self.kind else ""
        return f"{self.key} {', '.join(json.dumps(one) for one in self.patterns)}{of}"

    def __str__(self) -> str:
        given = ((one.name, getattr(self, one.name)) for one in dataclasses.fields(self))
        texts = (f"{key} = {json.dumps(value)}" for key, value in given if value not in ("", ()))
        return f"[[{self.key}]] {', '.join(texts)}"

    def rule(self, sets: tuple[tuple[int, ...], ...], context: _Context) -> Rule:
        """What it means for the sites matched, by index."""
        return Rule(self.key, self.label, sets)


@dataclass(frozen=True)
class Pin(Constraint):
    """The sites keep their own parameters."""

    key = "pin"


@dataclass(frozen=True)
class Together(Constraint):
    """The sites are generated, all from one bank."""

    key = "together"


@dataclass(frozen=True)
class Apart(Constraint):
    """Sites of different patterns share no bank; of one pattern alone, no two sites do."""

    key = "apart"

    def rule(self, sets: tuple[tuple[int, ...], ...], context: _Context) -> Rule:
        """One set a pattern, or one a site."""
        if len(sets) == 1:
            sets = tuple((index,) for index in sets[0])
        both = [index for a, b in itertools.combinations(sets, 2) for index in {*a} & {*b}]
        if both:
            raise ConstraintError(
                f"{self.label}: two of the patterns match {context.sites[both[0]].name!r}, which "
                "cannot be kept apart from itself: make the patterns exclude each other"
            )
        return Rule(self.key, self.label, sets)


@dataclass(frozen=True)
class SameBankAs(Constraint):
    """The sites are generated from the bank that ``site`` is generated from."""

    key = "same_bank_as"
    site: str = ""

    def rule(self, sets: tuple[tuple[int, ...], ...], context: _Context) -> Rule:
        """As of ``Together``, with ``site`` among them."""
        anchor = [i for i, one in enumerate(context.sites) if self.site in (one.name, *one.aliases)]
        if not anchor:
            raise ConstraintError(f"{self.label}: {context.unknown(self.site, 'site')}")
        if context.sites[anchor[0]].kept is not None:
            raise ConstraintError(
                f"{self.label}: {self.site} keeps its own parameters ("
                f"{context.sites[anchor[0]].kept}), so nothing can read its bank"
            )
        return Rule("together", self.label, (tuple(sorted({*_union(sets), *anchor})),))


@dataclass(frozen=True)
class Tie(Constraint):
    """The sites are one tensor."""

    key = "tie"

    def rule(self, sets: tuple[tuple[int, ...], ...], context: _Context) -> Rule:
        """All sites must be of one shape and dtype, and start at random."""
        first, *others = (context.sites[index] for index in _union(sets))
        if not others:
            raise ConstraintError(f"{self.label}: matches {first.name} alone, a tie needs two")
        for other in (first, *others):
            if (other.shape, other.dtype) != (first.shape, first.dtype):
                raise ConstraintError(
                    f"{self.label}: {first.name} is {_shape(first)}, {other.name} is "
                    f"{_shape(other)}: tied tensors have one shape and dtype"
                )
            if other.initial.std == 0:
                raise ConstraintError(
                    f"{self.label}: {other.name} starts at a constant and cannot be tied"
                )
        return Rule(self.key, self.label, sets)


@dataclass(frozen=True)
class MinTemplates(Constraint):
    """What of the sites is generated mixes at least ``templates`` templates."""

    key = "min_templates"
    templates: int = 2

    def rule(self, sets: tuple[tuple[int, ...], ...], context: _Context) -> Rule:
        """K ≥ templates."""
        _require(self, isinstance(self.templates, int), "templates must be an integer")
        _require(self, 2 <= self.templates <= 16, "templates must be from 2 to 16")
        return Rule(self.key, self.label, sets, number=Fraction(self.templates))


@dataclass(frozen=True)
class MaxCompression(Constraint):
    """A bank that one of the sites reads makes at most ``ratio`` elements a parameter."""

    key = "max_compression"
    ratio: float = 1.0

    def rule(self, sets: tuple[tuple[int, ...], ...], context: _Context) -> Rule:
        """Elements ≤ ratio · parameters."""
        _require(self, isinstance(self.ratio, (int, float)), "ratio must be a number")
        _require(self, 1 <= self.ratio < 1e9, "ratio must be from 1 to 1e9")
        exact = Fraction(self.ratio).limit_denominator(1000)
        return Rule(self.key, self.label, sets, number=exact)


@dataclass(frozen=True)
class BudgetPerGroup(Constraint):
    """The sites spend at most ``budget``, with all of every bank that one of them reads."""

    key = "budget_per_group"
    budget: str | int = ""

    def rule(self, sets: tuple[tuple[int, ...], ...], context: _Context) -> Rule:
        """A budget is written as the model's is; percentages are of the sites' own count."""
        members = [context.sites[index] for index in _union(sets)]
        dense = sum(site.size for site in members if site.trainable)
        try:
            most = parse_budget(self.budget, dense, context.bytes_per_parameter)
        except PlannerError as error:
            raise ConstraintError(f"{self.label}: {error}") from None
        fixed = sum(site.size for site in members if site.trainable and site.kept is not None)
        return Rule(self.key, self.label, sets, number=Fraction(most), fixed=fixed)


@dataclass(frozen=True)
class UseGenerator(Constraint):
    """The sites are made by one of the generators in ``use``; "own" is one of them."""

    key = "generator"
    use: str | Sequence[str] = ()

    def rule(self, sets: tuple[tuple[int, ...], ...], context: _Context) -> Rule:
        """The generators must be known."""
        names = (self.use,) if isinstance(self.use, str) else tuple(self.use)
        _require(self, bool(names), f"use must name one or more of {', '.join(GENERATORS)}")
        for name in names:
            _require(self, name in GENERATORS, f"{name!r} is not one of {', '.join(GENERATORS)}")
        return Rule(self.key, self.label, sets, generators=frozenset(names))


Constraints: TypeAlias = "str | os.PathLike[str] | Sequence[Constraint]"

_KINDS: dict[str, type[Constraint]] = {
    kind.key: kind
    for kind in (
        Pin, Together, Apart, SameBankAs, Tie, MinTemplates, MaxCompression, BudgetPerGroup,
        UseGenerator,
    )
}  # fmt: skip
_INERT = frozenset({"pin", "budget_per_group"})
"""What may name tensors that keep their own parameters anyway."""


@dataclass(frozen=True)
class _Context:
    """What constraints are resolved against."""

    sites: Sequence[Site]
    bytes_per_parameter: int

    def unknown(self, pattern: str, what: str) -> str:
        names = [site.name for site in self.sites]
        near = difflib.get_close_matches(pattern, names, n=3, cutoff=0.5)
        hint = f"; similar names: {', '.join(near)}" if near else ""
        return f"no parameter of the model matches the {what} {pattern!r}{hint}"


def read_constraints(path: str | os.PathLike[str]) -> tuple[Constraint, ...]:
    """The constraints in a file, TOML unless its name ends in ``.json``.

    Raises:
        ConstraintError: the file cannot be read or is not of this form; names file and place.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConstraintError(f"constraints {path} cannot be read: {reason}") from error
    try:
        data = json.loads(text) if Path(path).suffix == ".json" else _toml(text)
    except (ValueError, RecursionError) as error:  # both parsers' errors are ValueErrors
        raise ConstraintError(f"constraints {path} cannot be parsed: {error}") from None
    try:
        return parse_constraints(data)
    except ConstraintError as error:
        raise ConstraintError(f"{path}: {error}") from None


def parse_constraints(data: object) -> tuple[Constraint, ...]:
    """Constraints from a mapping of kinds to tables, or lists of tables.

    Raises:
        ConstraintError: an unknown kind, a field that is missing, unknown or of a wrong type.
    """
    if not isinstance(data, Mapping):
        raise ConstraintError("a file of constraints maps kinds to tables: [[pin]] sites = ...")
    found: list[Constraint] = []
    for key, tables in data.items():
        if key not in _KINDS:
            raise ConstraintError(f"{key!r} is no constraint; there are {', '.join(_KINDS)}")
        for place, table in enumerate(tables if isinstance(tables, list) else [tables]):
            found.append(_constraint(f"{key}[{place}]", _KINDS[key], table))
    return tuple(found)


def resolve(
    constraints: Sequence[Constraint], sites: Sequence[Site], bytes_per_parameter: int = 4
) -> tuple[Rule, ...]:
    """What the constraints mean for these sites.

    Raises:
        ConstraintError: a pattern or kind that matches nothing, or only tensors that keep their
            own parameters anyway; a value that makes no sense for what is matched.
    """
    context = _Context(sites, bytes_per_parameter)
    return tuple(one.rule(_matched(one, context), context) for one in constraints)


def _matched(constraint: Constraint, context: _Context) -> tuple[tuple[int, ...], ...]:
    """The sites that each pattern matches, by index."""
    if constraint.kind and all(site.owner != constraint.kind for site in context.sites):
        kinds = ", ".join(dict.fromkeys(site.owner for site in context.sites))
        raise ConstraintError(
            f"{constraint.label}: no parameter belongs to the kind {constraint.kind!r}; there are "
            f"{kinds}"
        )
    sets = []
    for pattern in constraint.patterns:
        tests = [re.compile(fnmatch.translate(one)).match for one in _expanded(pattern)]
        members = [
            index
            for index, site in enumerate(context.sites)
            if constraint.kind in ("", site.owner)
            and any(test(name) for name in (site.name, *site.aliases) for test in tests)
        ]
        if not members:
            raise ConstraintError(f"{constraint.label}: {context.unknown(pattern, 'pattern')}")
        if constraint.key not in _INERT:
            free = [index for index in members if context.sites[index].shareable]
            if not free:
                kept = context.sites[members[0]]
                raise ConstraintError(
                    f"{constraint.label}: the pattern {pattern!r} matches only tensors that keep "
                    f"their own parameters, such as {kept.name} ({kept.kept or 'not trained'})"
                )
            members = free
        sets.append(tuple(members))
    return tuple(sets) if constraint.key == "apart" else (_union(sets),)


def _expanded(pattern: str) -> list[str]:
    """``a.{0..2}.b`` is what reports call ``a.0.b``, ``a.1.b``, ``a.2.b``."""
    pieces = _BRACES.split(pattern)
    choices: list[list[str]] = []
    for place, piece in enumerate(pieces):
        first, dots, last = piece.partition("..")
        if place % 2 == 0:
            choices.append([piece])
        elif dots:
            span = range(int(first), min(int(last), int(first) + _MOST_NAMES) + 1)
            choices.append([str(number) for number in span])
        else:
            choices.append(piece.split(","))
    return ["".join(parts) for parts in itertools.islice(itertools.product(*choices), _MOST_NAMES)]


def _constraint(place: str, kind: type[Constraint], table: object) -> Constraint:
    if not isinstance(table, Mapping):
        raise ConstraintError(f"{place} is not a table with fields such as sites = ...")
    fields = {one.name: one for one in dataclasses.fields(kind)}
    unknown = [str(key) for key in table if key not in fields]
    if unknown:
        raise ConstraintError(f"{place} has no field {unknown[0]!r}; there are {', '.join(fields)}")
    if "sites" not in table and "kind" not in table:
        raise ConstraintError(f"{place} needs sites = a pattern, or kind = a type of module")
    required = [name for name in fields if name not in ("sites", "kind", "name")]
    missing = [name for name in required if name not in table]
    if missing:
        raise ConstraintError(f"{place} needs the field {missing[0]!r}")
    for key in ("sites", "use"):
        if key in table and not _texts(table[key]):
            raise ConstraintError(f"{place}: {key} must be a text, or a list of texts")
    for key in ("kind", "name", "site"):
        if key in table and not isinstance(table[key], str):
            raise ConstraintError(f"{place}: {key} must be a text")
    return kind(**table)


def _texts(value: object) -> bool:
    return isinstance(value, str) or (
        isinstance(value, list) and bool(value) and all(isinstance(one, str) for one in value)
    )


def _toml(text: str) -> Any:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    return tomllib.loads(text)


def _union(sets: Sequence[Sequence[int]]) -> tuple[int, ...]:
    return tuple(sorted({index for members in sets for index in members}))


def _shape(site: Site) -> str:
    return f"{' x '.join(map(str, site.shape))} of {site.dtype}"


def _require(constraint: Constraint, holds: bool, fault: str) -> None:
    if not holds:
        raise ConstraintError(f"{constraint.label}: {fault}")
