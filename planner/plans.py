"""The plan: everything that rendering needs, as one file of canonical JSON."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, Union

import pydantic
from pydantic import ConfigDict, Discriminator, Tag
from typing_extensions import Self, TypeAliasType

import planner
from planner import ir
from planner.errors import PlanFormatError
from planner.files import write_text
from planner.references import check_references

VERSION: Literal[1] = 1
"""Of the schema. A plan of another version is refused, never guessed at."""

_DEPTH = 100
_LARGEST = 1 << 63


def _tagged(types: dict[str, Any]) -> Any:
    """A union whose member :func:`_tag` tells, so that an error names the one that was meant."""
    members = tuple(Annotated[type_, Tag(f"<{tag}>")] for tag, type_ in types.items())
    return Union[members]  # noqa: UP007  there is no operator for members in a tuple


def _tag(keys: tuple[str, ...]) -> Callable[[Any], str | None]:
    """Of a Python value, the tag of its type; of an object in JSON, the key that it must have."""

    def tag(value: Any) -> str | None:
        if isinstance(value, dict):
            return next((f"<{key}>" for key in keys if key in value), None)
        if isinstance(value, (tuple, list)):
            return "<array>"
        return _TAGS.get(type(value))

    return tag


_OBJECTS = {
    "ref": ir.Ref,
    "slot": ir.Slot,
    "training": ir.Training,
    "train": ir.Switch,
    "list": ir.Items,
    "dict": ir.Mapping,
    "slice": ir.Slice,
    "special": ir.Special,
    "type": ir.Leaf,
}
_NODES = {
    "container": ir.Container,
    "definition": ir.Instance,
    "shared": ir.Shared,
    "type": ir.Leaf,
}
_ATOMS = {"null": type(None), "bool": bool, "int": int, "float": float, "str": str}
_TAGS = {type_: f"<{tag}>" for table in (_OBJECTS, _NODES, _ATOMS) for tag, type_ in table.items()}
# ir.Value and ir.Node contain themselves, which pydantic wants as named aliases.
_Value: Any = TypeAliasType(
    "_Value",
    Annotated[
        _tagged({**_ATOMS, **_OBJECTS, "array": tuple["_Value", ...]}),  # type: ignore[misc]
        Discriminator(_tag(tuple(_OBJECTS))),
    ],
)
_Node: Any = TypeAliasType("_Node", Annotated[_tagged(_NODES), Discriminator(_tag(tuple(_NODES)))])


class Plan(pydantic.BaseModel):
    """A captured model, its sites, and the allocation of its budget.

    Rendering, inspecting and checking are functions of a plan alone.

    Attributes:
        version: of the schema.
        planner: version of the planner that made it.
        spec: where the model came from; information, nothing imports it.
        seed: of the model's construction and the hash generators.
        evidence: what said which sites may share.
        budget: as it was asked for ("10%").
        budget_parameters: the same in parameters.
        dense_parameters: trainable parameters of the model itself.
        program: the captured model.
        sites: its parameter tensors, each once.
        allocation: their banks and generators.
        notes: remarks for the reader.
        constraints: what the user asked of the allocation, one line each.

    Raises:
        pydantic.ValidationError: a field of a wrong type.
        PlanFormatError: names or references that don't hold together.
    """

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        allow_inf_nan=False,
        # Values that are made in Python are checked like those that are read, all the way down.
        revalidate_instances="always",
        defer_build=True,
    )

    version: Literal[1] = VERSION
    planner: str = planner.__version__
    spec: str
    seed: int
    evidence: str
    budget: str
    budget_parameters: int
    dense_parameters: int
    program: ir.Program
    sites: tuple[ir.Site, ...]
    allocation: ir.Allocation
    notes: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()

    @pydantic.model_validator(mode="after")
    def _check(self) -> Self:
        check_references(self.program, self.sites, self.allocation)
        if self.allocation.budget != self.budget_parameters:
            raise PlanFormatError(
                f"the allocation's budget is {self.allocation.budget}, "
                f"the plan's {self.budget_parameters}"
            )
        return self

    @property
    def digest(self) -> str:
        """SHA-256 of the plan's compact canonical JSON, in hexadecimal."""
        return _digest(self._data())

    @property
    def parameter_count(self) -> int:
        """Trainable parameters of the emitted module, each once."""
        from planner.validation import parameter_count

        count: int = parameter_count(self.sites, self.allocation)
        return count

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, defaults left out, one site, placement or operation a line.

        Raises:
            PlanFormatError: a number beyond 64 bits or nesting beyond what can be read again.
        """
        data = self._data()
        _refuse_extremes(data)
        return _layout({**data, "digest": _digest(data)}, "plan", "") + "\n"

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """The plan that ``text`` holds.

        Raises:
            PlanFormatError: ``text`` is not a valid plan of this version, or its digest says that
                it was changed; names the first problem and its place.
        """
        data = _parse(text)
        if data.get("version") != VERSION or isinstance(data["version"], (bool, float)):
            raise PlanFormatError(
                f"plan version {data.get('version')!r} can't be read, only {VERSION}: plan again, "
                "or use the planner that made it"
            )
        digest = data.pop("digest", None)
        if "planner" not in data:
            raise PlanFormatError("invalid plan: planner: missing")
        try:
            plan = cls.model_validate_json(json.dumps(data))
        except pydantic.ValidationError as error:
            raise PlanFormatError(f"invalid plan: {_first(error)}") from None
        if digest != plan.digest:
            raise PlanFormatError(
                "the plan was changed after it was made: its digest differs; plan again"
            )
        return plan

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the plan to ``path``, whole or not at all.

        Raises:
            OutputError: it cannot be written.
        """
        write_text(path, self.to_json())

    def _data(self) -> dict[str, Any]:
        data = self.model_dump(mode="json", exclude_defaults=True)
        # Defaults that another version of the planner may choose otherwise are written down.
        data["version"], data["planner"] = self.version, self.planner
        data["allocation"]["generators"] = list(self.allocation.generators)
        return data


def _complete() -> None:
    """Build the validator of plans, with the aliases above in place of ir's own.

    pydantic looks up the names of a dataclass's annotations in its module, and nowhere else, so
    they stand there while it does.
    """
    aliases = {"Value": _Value, "Node": _Node, "Arguments": tuple[tuple[str, _Value], ...]}
    own = {name: getattr(ir, name) for name in aliases}
    try:
        for name, alias in aliases.items():
            setattr(ir, name, alias)
        Plan.model_rebuild(force=True)
    finally:
        for name, alias in own.items():
            setattr(ir, name, alias)


_complete()


def read_plan(path: str | os.PathLike[str]) -> Plan:
    """The plan in a file.

    Raises:
        PlanFormatError: it cannot be read, or is not a valid plan.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise PlanFormatError(f"plan {path} cannot be read: {reason}") from error
    try:
        return Plan.from_json(text)
    except PlanFormatError as error:
        raise PlanFormatError(f"{path}: {error}") from error


def plan_schema() -> dict[str, Any]:
    """JSON schema of a plan's file."""
    schema = Plan.model_json_schema()
    schema["properties"]["digest"] = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
    schema["required"] = [*schema["required"], "digest", "planner", "version"]
    return schema


def _digest(data: dict[str, Any]) -> str:
    text = json.dumps(data, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()


# Arrays whose items have a line each.
_ROWS = frozenset(
    (
        "banks buffers children constraints definitions notes operations parameters placements "
        "sites"
    ).split()
)


def _layout(value: Any, key: str, indent: str) -> str:
    if not _spreads(value, key):
        return json.dumps(value, sort_keys=True)
    inner = indent + " "
    if isinstance(value, dict):
        rows = [
            f"{json.dumps(name)}: {_layout(value[name], name, inner)}" for name in sorted(value)
        ]
        left, right = "{", "}"
    else:
        rows = [_layout(item, "", inner) for item in value]
        left, right = "[", "]"
    lines = ",\n".join(inner + row for row in rows)
    return f"{left}\n{lines}\n{indent}{right}"


def _spreads(value: Any, key: str) -> bool:
    """Whether ``value`` takes several lines: an array of rows, or what contains one."""
    if isinstance(value, list):
        return bool(value) and (key in _ROWS or any(_spreads(item, "") for item in value))
    if isinstance(value, dict):
        return any(_spreads(item, name) for name, item in value.items())
    return False


def _parse(text: str) -> dict[str, Any]:
    try:
        data = json.loads(text, object_pairs_hook=_object, parse_constant=_not_json)
        _refuse_extremes(data)
    except json.JSONDecodeError as error:
        raise PlanFormatError(
            f"the plan is not JSON: {error.msg} (line {error.lineno}, column {error.colno})"
        ) from None
    except RecursionError:
        raise PlanFormatError(f"the plan is nested deeper than {_DEPTH} levels") from None
    except ValueError as error:  # an integer of thousands of digits
        raise PlanFormatError(f"the plan is not JSON: {error}") from None
    if not isinstance(data, dict):
        raise PlanFormatError("the plan is not a JSON object")
    return data


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise PlanFormatError(f"the plan has the key {key!r} twice in one object")
        found[key] = value
    return found


def _not_json(text: str) -> Any:
    raise PlanFormatError(f"the plan is not JSON: {text} is not a number in JSON")


def _refuse_extremes(data: Any) -> None:
    pending = [(data, 0)]
    while pending:
        value, depth = pending.pop()
        if depth > _DEPTH:
            raise PlanFormatError(f"the plan is nested deeper than {_DEPTH} levels")
        if isinstance(value, (dict, list)):
            items = value.values() if isinstance(value, dict) else value
            pending += [(item, depth + 1) for item in items]
        elif isinstance(value, int) and not -_LARGEST <= value < _LARGEST:
            raise PlanFormatError("the plan holds an integer beyond 64 bits")
        elif isinstance(value, float) and not math.isfinite(value):
            raise PlanFormatError("the plan holds a number that is not finite")


def _first(error: pydantic.ValidationError) -> str:
    """``path: what is wrong`` of the first problem."""
    problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ""
    for part in problem["loc"]:
        if isinstance(part, int):
            place += f"[{part}]"
        elif not part.startswith("<"):  # the tag of a union's member is no part of the path
            place += f".{part}" if place else part
    what = {
        "missing": "missing",
        "unexpected_keyword_argument": "unknown",
        "extra_forbidden": "unknown",
        "union_tag_not_found": "not one of the objects that may stand here",
    }.get(problem["type"], problem["msg"][:1].lower() + problem["msg"][1:])
    return f"{place}: {what}"
