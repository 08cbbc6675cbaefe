"""How kept parameters start: lines of the classes that hold them.

torch resets its own layers; what a model initialises otherwise is drawn by the class around it:
one line for a role, whatever number of blocks has it; where blocks differ in numbers that no
formula gives, a row of a table. What many classes would say of all layers of a type, the root says
once for them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from planner.emission.constants import constant
from planner.emission.expressions import access
from planner.errors import PlanFormatError
from planner.formulas import FORMULAS
from planner.ir import Initial, Placement, Program, Site
from planner.topology import Place, nearest, places, role

_MANY = 4
"""Roles whose lines are more than those of a loop."""


@dataclass(frozen=True, slots=True)
class Resets:
    """Statements by definition, and rows (site, statement on ``tensor``) where blocks differ."""

    lines: Mapping[str, tuple[str, ...]]
    table: tuple[tuple[str, str], ...]


def resets(program: Program, sites: Sequence[Site], placements: Mapping[str, Placement]) -> Resets:
    """What must be initialised beyond torch's own resets."""
    by_path = {place.path: place for place in places(program)}
    definitions = {definition.name: definition for definition in program.definitions}
    siblings = {site.name: site for site in sites}
    roles: dict[tuple[str, str], list[Site]] = {}
    computed: dict[tuple[str, str], list[Site]] = {}
    generated: set[tuple[str, str]] = set()
    for site in sites:
        path = site.name.rpartition(".")[0]
        place = by_path[nearest(path, by_path)]
        part = role(place, path, site.parameter)
        if placements[site.name].generator != "own":
            generated.add(part)
        elif site.values is not None:
            computed.setdefault(part, []).append(site)
        elif not _is_torch_default(site, siblings, place):
            roles.setdefault(part, []).append(site)
    lines: dict[str, list[str]] = {}
    table: list[tuple[str, str]] = []
    loop, looped = _loop(sites, roles, by_path)
    if loop:
        lines[by_path[""].type] = ["for module in self.modules():", *loop]
    for (definition, local), members in roles.items():
        if (definition, local) in looped:
            continue
        owner = definitions.get(definition)
        texts = {draw(site.initial, access("self", local, owner)) for site in members}
        if len(texts) > 1 or (definition, local) in generated:
            # One line for all would write where nothing is kept, or a wrong number.
            table += [(site.name, draw(site.initial, "tensor")) for site in members]
        else:
            lines.setdefault(definition, []).extend(texts)
    for part, members in computed.items():
        alone = part not in roles and part not in generated
        copies = {
            _copy(site, access("self", part[1], definitions.get(part[0]))) for site in members
        }
        if len(copies) == 1 and alone:
            lines.setdefault(part[0], []).extend(*copies)
        else:
            table += [(one.name, "\n    ".join(_copy(one, "tensor"))) for one in members]
    return Resets({name: tuple(group) for name, group in lines.items()}, tuple(table))


def _copy(site: Site, tensor: str) -> tuple[str, ...]:
    """Statements that give ``tensor`` the values of a frozen site."""
    if site.values is None:
        raise PlanFormatError(f"site {site.name!r} has no values")
    lines, value = constant(site.values, _owner(site))
    return (*lines, f"{tensor}.copy_({value})")


_Role: TypeAlias = tuple[str, str]


def _loop(
    sites: Sequence[Site],
    roles: Mapping[_Role, Sequence[Site]],
    by_path: Mapping[str, Place],
) -> tuple[list[str], set[_Role]]:
    """(statements for every ``module`` of the model, the roles that need no line of their own).

    Layers inside layers of torch would be reached as well, so that there must be none.
    """
    lines: list[str] = []
    looped: set[_Role] = set()
    if any(_owner(site) not in by_path for site in sites):
        return lines, looped
    kinds: dict[_Role, dict[_Role, None]] = {}
    for part, members in roles.items():
        for site in members:
            kinds.setdefault((by_path[_owner(site)].type, site.parameter), {})[part] = None
    names = {name for site in sites for name in (site.name, *site.aliases)}
    for (layer, parameter), alike in kinds.items():
        owners = [place for place in by_path.values() if place.type == layer]
        keys = {f"{place.path}.{parameter}".lstrip(".") for place in owners}
        members = [site for part in alike for site in roles[part]]
        reached = {name for site in members for name in (site.name, *site.aliases)}
        draws = {draw(site.initial, f"module.{parameter}") for site in members}
        if len(alike) < _MANY or len(draws) > 1 or owners[0].block or keys & names != reached:
            continue
        present = "" if keys <= names else f" and module.{parameter} is not None"
        lines.append(f"    if isinstance(module, nn.{layer}){present}:")
        lines += [f"        {text}" for text in draws]
        looped.update(alike)
    return lines, looped


def _owner(site: Site) -> str:
    """The path of the module that holds the tensor."""
    return site.name.rpartition(".")[0]


# Gates of a recurrent layer: its tensors have gates x hidden rows, but for projections.
_GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}


def _sibling_weight(site: Site, siblings: Mapping[str, Site]) -> Site | None:
    return siblings.get(f"{site.name.rpartition('.')[0]}.weight".lstrip("."))


def _fan_in(weight: Site) -> int:
    return math.prod(weight.shape[1:])


def _is_fan_in_bias(site: Site, siblings: Mapping[str, Site]) -> bool:
    """Whether this is torch's default bias: uniform within 1 / sqrt(fan_in) of zero."""
    weight = _sibling_weight(site, siblings)
    if weight is None or site.parameter != "bias" or len(weight.shape) < 2:
        return False
    expected = 1 / math.sqrt(3 * _fan_in(weight))
    return (
        site.initial.family == "uniform"
        and abs(site.initial.mean) < 0.2 * expected
        and math.isclose(site.initial.std, expected, rel_tol=2e-5)
    )


def _is_torch_default(site: Site, siblings: Mapping[str, Site], place: Place) -> bool:
    """Whether torch's own reset of the owner draws the tensor like this."""
    if place.block:
        return False
    start = site.initial
    if "Norm" in place.type:
        expected = 1.0 if site.parameter == "weight" else 0.0
        return start.family == "constant" and start.mean == expected
    if place.type == "MultiheadAttention" and site.parameter.endswith("bias"):
        return start.family == "constant" and start.mean == 0.0
    if site.parameter == "bias":
        return _is_fan_in_bias(site, siblings)
    if place.type in ("Linear", "Conv1d", "Conv2d", "Conv3d"):
        return start.formula == "kaiming_uniform_(a=math.sqrt(5))"
    if place.type in _GATES:
        expected = math.sqrt(_GATES[place.type] / (3 * site.shape[0]))
        return start.family == "uniform" and math.isclose(start.std, expected, rel_tol=2e-5)
    if place.type == "Embedding":
        return start.family == "normal" and (start.mean, start.std) == (0.0, 1.0)
    return False


def draw(initial: Initial, tensor: str) -> str:
    """The call of ``torch.nn.init`` that draws ``tensor`` from ``initial``.

    Raises:
        PlanFormatError: its formula is not one of the known schemes.
    """
    if initial.formula:
        if initial.formula not in FORMULAS:
            raise PlanFormatError(f"{initial.formula!r} is not an initialiser that a plan may use")
        function, _, rest = initial.formula.partition("(")
        inner = rest.removesuffix(")")
        return f"nn.init.{function}({tensor}{', ' + inner if inner else ''})"
    if initial.family == "constant":
        if initial.mean in (0.0, 1.0):
            return f"nn.init.{'ones' if initial.mean else 'zeros'}_({tensor})"
        return f"nn.init.constant_({tensor}, {initial.mean!r})"
    if initial.family == "normal":
        mean = f"mean={initial.mean!r}, " if initial.mean else ""
        return f"nn.init.normal_({tensor}, {mean}std={initial.std!r})"
    reach = math.sqrt(3) * initial.std
    low, high = (float(f"{initial.mean + sign * reach:.6g}") for sign in (-1, 1))
    return f"nn.init.uniform_({tensor}, {low!r}, {high!r})"
