"""Why constraints and budget exclude each other, and the least that must change.

The smallest conflicting set is found with the minimum hitting sets of the corrections seen so far
(Ignatiev, Previti, Liffiton and Marques-Silva, "Smallest MUS extraction with minimal hitting set
dualization", 2015): a set of constraints that hits all corrections and cannot be satisfied is
smallest; one that can be satisfied is grown to a maximal one, whose complement is one more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from ortools.sat.python import cp_model

from planner.enforcement import add_rules, spent_by
from planner.errors import ConstraintConflictError
from planner.formulation import TEMPLATES, Problem
from planner.solver_model import Variables, constrain, deterministic_solver, spent

_LIMIT = 5.0
_STEPS = 24


def explain(problem: Problem, budget: int) -> ConstraintConflictError:
    """The error for rules that no allocation within ``budget`` keeps.

    ``problem`` has all options, those that a rule excludes by itself among them.
    """
    everything = frozenset(range(len(problem.rules)))
    core = _smallest_core(problem, budget)
    rules = sorted(one for one in core if one is not None)
    labels = [problem.rules[one].label for one in rules]
    bound = [f"the budget of {budget:,} parameters"] if None in core else []
    least = _least(problem, everything)
    changes = []
    if least is not None:
        changes.append(f"raise the budget to {least:,} parameters")
    changes += [
        change
        for one in rules
        if (change := _nearest(problem, one, everything - {one}, budget)) is not None
    ]
    dropped = _correction(problem, budget)
    if dropped:
        changes.append("drop " + " and ".join(problem.rules[one].label for one in dropped))
    verb = "cannot be kept" if len(labels) + len(bound) == 1 else "exclude each other"
    return ConstraintConflictError(
        f"{' and '.join([*labels, *bound])} {verb}; {', or '.join(changes)}",
        names=(*labels, *(["budget"] if bound else [])),
    )


def infeasible(model: cp_model.CpModel) -> bool:
    """Whether a model is proven to have no solution."""
    return bool(deterministic_solver(_LIMIT).solve(model) == cp_model.INFEASIBLE)


def _smallest_core(problem: Problem, budget: int) -> frozenset[int | None]:
    """A smallest set of rules (None is the budget) that cannot hold together."""
    items: list[int | None] = [*range(len(problem.rules)), None]
    corrections: list[frozenset[int | None]] = []
    while True:
        seed = _hitting_set(items, corrections)
        if not _holds(problem, seed, budget):
            return seed
        grown = set(seed)
        for item in items:
            if item not in grown and _holds(problem, frozenset({*grown, item}), budget):
                grown.add(item)
        corrections.append(frozenset(items) - grown)


def _hitting_set(
    items: Sequence[int | None], corrections: Sequence[frozenset[int | None]]
) -> frozenset[int | None]:
    """A smallest set with a member of each correction, the first in the order of the rules."""
    model = cp_model.CpModel()
    chosen = {item: model.new_bool_var(str(item)) for item in items}
    for correction in corrections:
        model.add_bool_or([chosen[item] for item in items if item in correction])
    weight = len(items) ** 2
    model.minimize(sum((weight + place) * chosen[item] for place, item in enumerate(items)))
    solver = deterministic_solver(_LIMIT)
    solver.solve(model)
    return frozenset(item for item in items if solver.value(chosen[item]))


def _holds(problem: Problem, core: frozenset[int | None], budget: int) -> bool:
    rules = frozenset(item for item in core if item is not None)
    return _feasible(problem, rules, budget if None in core else None)


def _feasible(problem: Problem, rules: frozenset[int], budget: int | None) -> bool:
    v = constrain(problem, budget)
    _add(v, problem, rules)
    if budget is not None:
        v.model.add(spent(v, problem) <= budget)
    return deterministic_solver(_LIMIT).solve(v.model) in {cp_model.OPTIMAL, cp_model.FEASIBLE}


def _least(problem: Problem, rules: frozenset[int]) -> int | None:
    """The least budget with which the rules hold, or None."""
    v = constrain(problem, None)
    _add(v, problem, rules)
    v.model.minimize(spent(v, problem))
    solver = deterministic_solver(_LIMIT)
    # Where the proof is missing, a little more than the least is still enough.
    found = solver.solve(v.model) in {cp_model.OPTIMAL, cp_model.FEASIBLE}
    return round(solver.objective_value) if found else None


def _correction(problem: Problem, budget: int) -> list[int]:
    """The fewest rules without which the others hold within the budget."""
    v = constrain(problem, budget)
    literals = [v.model.new_bool_var(f"rule[{one}]") for one in range(len(problem.rules))]
    add_rules(v, problem, literals)
    v.model.add(spent(v, problem) <= budget)
    v.model.maximize(sum(literals))
    solver = deterministic_solver(_LIMIT)
    if solver.solve(v.model) not in {cp_model.OPTIMAL, cp_model.FEASIBLE}:
        return []
    return [one for one, literal in enumerate(literals) if not solver.value(literal)]


def _nearest(problem: Problem, r: int, others: frozenset[int], budget: int) -> str | None:
    """The nearest number of a rule with which all rules hold, in words."""
    rule = problem.rules[r]
    if rule.kind == "budget_per_group":
        v = constrain(problem, budget)
        _add(v, problem, others)
        v.model.add(spent(v, problem) <= budget)
        v.model.minimize(spent_by(v, problem, r))
        solver = deterministic_solver(_LIMIT)
        if solver.solve(v.model) != cp_model.OPTIMAL:
            return None
        return f"raise the budget of {rule.label} to {round(solver.objective_value):,}"

    def holds(number: Fraction) -> bool:
        rules = (*problem.rules[:r], replace(rule, number=number), *problem.rules[r + 1 :])
        return _feasible(replace(problem, rules=rules), others | {r}, budget)

    if rule.kind == "min_templates":
        smaller = [count for count in sorted(TEMPLATES, reverse=True) if count < rule.number]
        found = next((count for count in smaller if holds(Fraction(count))), None)
        return None if found is None else f"lower the templates of {rule.label} to {found}"
    if rule.kind == "max_compression":
        low, high = rule.number, rule.number
        while not holds(high):
            low, high = high, 4 * high
            if high > 10**9:
                return None
        for _ in range(_STEPS):
            middle = ((low + high) / 2).limit_denominator(1000)
            if middle in (low, high):
                break
            low, high = (low, middle) if holds(middle) else (middle, high)
        shown = -(-high * 10 // 1) / 10
        return f"raise the ratio of {rule.label} to {float(shown):g}"
    return None


def _add(v: Variables, problem: Problem, rules: frozenset[int]) -> None:
    chosen = tuple(rule for number, rule in enumerate(problem.rules) if number in rules)
    add_rules(v, replace(problem, rules=chosen))
