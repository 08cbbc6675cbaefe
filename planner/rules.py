"""What constraints mean: for single sites, for classes of sites, and for a decision.

A rule names sets of sites by index until the allocation problem is formulated, and sets of classes
from then on. ``planner.solver_model`` states the same to the solver.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING

from planner.errors import ConstraintError
from planner.ir import CandidateGroup, Evidence, Site

if TYPE_CHECKING:
    from planner.formulation import Option, Problem, SiteClass
    from planner.valuation import Decision


@dataclass(frozen=True, slots=True)
class Rule:
    """One constraint, resolved.

    Attributes:
        kind: as in a file of constraints.
        label: what messages call it.
        sets: the sites or classes that it speaks of; several only where they are kept apart.
        number: its ratio, number of templates, or budget.
        generators: those that it allows.
        fixed: parameters that its sites spend whatever is decided.
    """

    kind: str
    label: str
    sets: tuple[tuple[int, ...], ...]
    number: Fraction = Fraction(0)
    generators: frozenset[str] = frozenset()
    fixed: int = 0

    @property
    def members(self) -> tuple[int, ...]:
        """All that it speaks of."""
        return tuple(sorted({member for one in self.sets for member in one}))


def join_ties(rules: Sequence[Rule]) -> tuple[Rule, ...]:
    """The rules, with ties that share a site made one, and what holds for a part of a tie for all.

    Sites that are one tensor have all their constraints in common.
    """
    ties = _merged(set(rule.members) for rule in rules if rule.kind == "tie")
    return tuple(
        replace(
            rule,
            sets=tuple(
                tuple(sorted({*members}.union(*(tie for tie in ties if tie & {*members}))))
                for members in rule.sets
            ),
        )
        for rule in rules
    )


def _merged(sets: Iterable[set[int]]) -> list[set[int]]:
    """The sets, those that overlap made one."""
    found: list[set[int]] = []
    for one in sets:
        apart = [other for other in found if not other & one]
        found = [*apart, one.union(*(other for other in found if other & one))]
    return found


def widen(
    evidence: Evidence,
    sites: Sequence[Site],
    rules: Sequence[Rule],
    unlike: Callable[[Sequence[Site]], Sequence[float]],
) -> Evidence:
    """The evidence with the candidate groups that the rules call for.

    Of each group, the part inside and the part outside of what a rule speaks of; and what must be
    together as a group of its own, with the dissimilarities that ``unlike`` gives its members.
    """
    groups = {group.members: group.dissimilarity for group in evidence.groups}
    parting = [names for rule in rules if rule.kind in _PARTING for names in rule.sets]
    for members in parting:
        inside = {sites[index].name for index in members}
        for group in evidence.groups:
            for here in (True, False):
                part = [
                    (name, value)
                    for name, value in zip(group.members, group.dissimilarity, strict=True)
                    if (name in inside) == here
                ]
                if part:
                    names, values = zip(*part, strict=True)
                    groups.setdefault(names, values)
    together = [rule for rule in rules if rule.kind == "together"]
    for union in _merged(set(rule.members) for rule in together):
        gathered = [sites[index] for index in sorted(union)]
        labels = [rule.label for rule in together if union & {*rule.members}]
        dtypes = sorted({site.dtype for site in gathered})
        if len(dtypes) > 1:
            raise ConstraintError(
                f"{' and '.join(labels)}: a bank has one dtype, and these sites have "
                f"{' and '.join(dtypes)}"
            )
        groups.setdefault(tuple(site.name for site in gathered), tuple(unlike(gathered)))
    known = {group.members for group in evidence.groups}
    added = (names for names in groups if names not in known)
    return replace(
        evidence,
        groups=evidence.groups
        + tuple(
            CandidateGroup(f"c{number}", names, groups[names]) for number, names in enumerate(added)
        ),
    )


_PARTING = frozenset({"apart", "budget_per_group", "max_compression", "min_templates"})


def permits(rule: Rule, item: SiteClass, option: Option | None) -> bool:
    """Whether the rule lets sites of a class that it speaks of take ``option``; None is their own.

    What it says of several classes at once is not asked here.
    """
    made = "own" if option is None else option.generator
    if rule.kind == "pin":
        return option is None
    if rule.kind == "generator":
        return made in rule.generators
    if rule.kind == "tie":
        return made == "tie"
    if rule.kind == "together":
        return option is not None and option.group is not None
    if option is None:
        return True
    if rule.kind == "min_templates":
        return made == "mix" and option.parameter >= rule.number
    if rule.kind == "max_compression" and option.group is None:
        copies = len(item.sites) if made == "tie" else 1
        return copies * item.size <= rule.number * max(option.cost, option.fixed)
    return True


def apart_in_class(rule: Rule, number: int) -> bool:
    """Whether a class has sites on several sides of a rule that keeps them apart."""
    return rule.kind == "apart" and sum(number in members for members in rule.sets) > 1


def satisfied(problem: Problem, decision: Decision) -> bool:
    """Whether a decision keeps all rules of the problem."""
    return all(_keeps(rule, problem, decision) for rule in problem.rules)


def needs(problem: Problem, choices: Sequence[tuple[int | None, int]]) -> dict[int, int]:
    """For each group, the least size of its bank with which no rule's compression is exceeded."""
    sizes: dict[int, int] = {}
    for rule in problem.rules:
        if rule.kind == "max_compression":
            for group, made in _elements(rule, problem, choices).items():
                needed = math.ceil(made / rule.number)
                sizes[group] = max(needed, sizes.get(group, 0))
    return sizes


def _elements(
    rule: Rule, problem: Problem, choices: Sequence[tuple[int | None, int]]
) -> dict[int, int]:
    """For each group that the rule's classes read, the elements that its bank makes."""
    groups = [
        None if choice is None else item.options[choice].group
        for item, (choice, _) in zip(problem.classes, choices, strict=True)
    ]
    made = {group: 0 for number in rule.members if (group := groups[number]) is not None}
    for item, group, (_, count) in zip(problem.classes, groups, choices, strict=True):
        if group in made:
            made[group] += item.size * count
    return made


def _keeps(rule: Rule, problem: Problem, decision: Decision) -> bool:
    for number in rule.members:
        item, (choice, count) = problem.classes[number], decision.choices[number]
        option = None if choice is None else item.options[choice]
        if count < len(item.sites) and not permits(rule, item, None):
            return False
        if option is not None and not permits(rule, item, option):
            return False
        if option is not None and option.generator == "tie" and apart_in_class(rule, number):
            return False
    return rule.kind not in _JOINT or _JOINT[rule.kind](rule, problem, decision)


def _together(rule: Rule, problem: Problem, decision: Decision) -> bool:
    return len(set(groups_read(rule.members, problem, decision))) <= 1


def _apart(rule: Rule, problem: Problem, decision: Decision) -> bool:
    used = [set(groups_read(members, problem, decision)) for members in rule.sets]
    return len(set().union(*used)) == sum(map(len, used))


def _compressed(rule: Rule, problem: Problem, decision: Decision) -> bool:
    made = _elements(rule, problem, decision.choices)
    return all(made[group] <= rule.number * decision.sizes[group] for group in made)


def _affordable(rule: Rule, problem: Problem, decision: Decision) -> bool:
    banks = sum(decision.sizes[group] for group in {*groups_read(rule.members, problem, decision)})
    return _spent(rule, problem, decision) + banks <= rule.number


_JOINT: dict[str, Callable[[Rule, Problem, Decision], bool]] = {
    "together": _together,
    "apart": _apart,
    "max_compression": _compressed,
    "budget_per_group": _affordable,
}


def groups_read(members: Sequence[int], problem: Problem, decision: Decision) -> list[int]:
    """The groups whose banks the classes read."""
    chosen = [
        problem.classes[number].options[choice].group
        for number in members
        if (choice := decision.choices[number][0]) is not None
    ]
    return [group for group in chosen if group is not None]


def _spent(rule: Rule, problem: Problem, decision: Decision) -> int:
    """What the rule's sites spend besides banks."""
    total = rule.fixed
    for number in rule.members:
        item, (choice, count) = problem.classes[number], decision.choices[number]
        total += item.size * (len(item.sites) - count)
        if choice is not None:
            total += item.options[choice].cost * count + item.options[choice].fixed
    return total
