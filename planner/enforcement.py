"""Rules as constraints of the solver's model: family 7 of ``planner.allocation``.

Each rule may be given a literal; its constraints then hold only where the literal is true, so that
the solver can say which rules exclude each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ortools.sat.python import cp_model

from planner.formulation import Problem
from planner.rules import apart_in_class, groups_read, permits
from planner.solver_model import Variables
from planner.valuation import Decision


def add_rules(
    v: Variables, problem: Problem, literals: Sequence[cp_model.IntVar] | None = None
) -> None:
    """7: every rule of the problem, enforced by its literal if there is one."""
    for number, rule in enumerate(problem.rules):
        when = [] if literals is None else [literals[number]]
        add_permitted(v, problem, number, when)
        if rule.kind == "together":
            add_together(v, problem, number, when)
        elif rule.kind == "apart":
            add_apart(v, problem, number, when)
        elif rule.kind == "max_compression":
            add_compression(v, problem, number, when)
        elif rule.kind == "budget_per_group":
            within = spent_by(v, problem, number) <= int(rule.number)
            _add(v, within, when, f"rule[{number}].budget")


def add_permitted(v: Variables, problem: Problem, r: int, when: Sequence[Any]) -> None:
    """7a: y[c,o] = 0, and own[c] = 0, where the rule does not permit it."""
    rule = problem.rules[r]
    for c in rule.members:
        item = problem.classes[c]
        if not permits(rule, item, None):
            _add(v, v.own[c] == 0, when, f"rule[{r}].own[{c}]")
        for o, option in enumerate(item.options):
            tied_apart = option.generator == "tie" and apart_in_class(rule, c)
            if tied_apart or not permits(rule, item, option):
                _add(v, v.taken[c, o] == 0, when, f"rule[{r}].permitted[{c},{o}]")


def add_together(v: Variables, problem: Problem, r: int, when: Sequence[Any]) -> None:
    """7b: Σ_{o ∈ O_cg} y[c,o] is the same for all classes c of the rule, for each g."""
    first, *others = problem.rules[r].members
    for g in v.size:
        here = _joins(v, problem, first, g)
        for c in others:
            _add(v, here == _joins(v, problem, c, g), when, f"rule[{r}].together[{c},{g}]")


def add_apart(v: Variables, problem: Problem, r: int, when: Sequence[Any]) -> None:
    """7c: of the sides, at most one has a class with a site that reads the bank of g."""
    for g in v.size:
        sides = []
        for side, members in enumerate(problem.rules[r].sets):
            taken = [v.taken[c, o] for c in members for o in _options(problem, c, g)]
            if taken:
                reads = v.reads[r, side, g] = v.model.new_bool_var(f"reads[{r},{side},{g}]")
                v.model.add_max_equality(reads, taken).with_name(f"rule[{r}].reads[{side},{g}]")
                sides.append(reads)
        if len(sides) > 1:
            _add(v, sum(sides) <= 1, when, f"rule[{r}].apart[{g}]")


def add_compression(v: Variables, problem: Problem, r: int, when: Sequence[Any]) -> None:
    """7d: q · Σ n_c · k[c,o] ≤ p · m[g] where a class of the rule reads g, p / q the ratio."""
    rule = problem.rules[r]
    for g, joins in enumerate(problem.joins()):
        made = sum(problem.classes[c].size * v.count[c, o] for c, o in joins)
        mine = [(c, o) for c, o in joins if c in rule.members]
        if not mine:
            continue
        within = rule.number.denominator * made <= rule.number.numerator * v.size[g]
        if len(mine) == len(joins):
            # Of a bank that is not used both sides are 0; without a condition proofs are quick.
            _add(v, within, when, f"rule[{r}].compression[{g}]")
            continue
        for c, o in mine:
            _add(v, within, [*when, v.taken[c, o]], f"rule[{r}].compression[{c},{o}]")


def spent_by(v: Variables, problem: Problem, r: int) -> Any:
    """7e: what the rule's sites spend, with every bank that one of them reads."""
    rule = problem.rules[r]
    total: Any = rule.fixed
    for c in rule.members:
        item = problem.classes[c]
        total += item.size * v.own[c]
        for o, option in enumerate(item.options):
            total += option.cost * v.count[c, o] + option.fixed * v.taken[c, o]
    for g, size in v.size.items():
        taken = [v.taken[c, o] for c in rule.members for o in _options(problem, c, g)]
        if taken:
            most = size.proto.domain[-1]
            counted = v.counted[r, g] = v.model.new_int_var(0, most, f"counted[{r},{g}]")
            for one in taken:
                _add(v, counted >= size, [one], f"rule[{r}].bank[{g}]")
            total += counted
    return total


def add_rule_hints(v: Variables, problem: Problem, start: Decision) -> None:
    """Gives the solver what ``start`` means for the variables of rules."""
    for (r, side, g), reads in v.reads.items():
        members = problem.rules[r].sets[side]
        v.model.add_hint(reads, g in groups_read(members, problem, start))
    for (r, g), counted in v.counted.items():
        here = g in groups_read(problem.rules[r].members, problem, start)
        v.model.add_hint(counted, start.sizes[g] if here else 0)


def _add(v: Variables, holds: Any, when: Sequence[Any], name: str) -> None:
    constraint = v.model.add(holds).with_name(name)
    if when:
        constraint.only_enforce_if(when)


def _options(problem: Problem, c: int, g: int) -> list[int]:
    return [o for o, option in enumerate(problem.classes[c].options) if option.group == g]


def _joins(v: Variables, problem: Problem, c: int, g: int) -> Any:
    return sum(v.taken[c, o] for o in _options(problem, c, g))
