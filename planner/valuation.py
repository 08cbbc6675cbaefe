"""What a decision on the allocation problem spends and is worth, by the solver's own objective."""

from __future__ import annotations

from dataclasses import dataclass

from planner.formulation import VISIBLE, Problem, share_value, visible_value

SPENDING = 2000
"""Worth of a parameter spent, in thousandths as in ``planner.formulation``: a budget is there to be
used. It decides only what to do with parameters beyond the dense count, when the bonus of own
parameters and the cost of banks weigh more than what a few more parameters add."""

RANGE = 10**7
"""Units of the objective: coarse enough for proofs of optimality, fine enough for a thousandth of
the budget to count."""

PRECISION = 10**5
"""A solution is called optimal within one part in this many of the model's worth, which rounds to
nothing in a model of a few dozen parameters."""

BANKS = 1000
"""A bank costs one part in this many of the model's worth: for less, groups are merged or left."""


@dataclass(frozen=True, slots=True)
class Decision:
    """A solution: per class an option (or None) and how many sites take it; the banks' sizes."""

    choices: tuple[tuple[int | None, int], ...]
    sizes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Scale:
    """The objective's unit.

    Attributes:
        unit: worth per unit.
        bank: units that a bank costs.
        tolerance: units between bound and objective that are near enough.
    """

    unit: int
    bank: int
    tolerance: int


def scale_of(problem: Problem) -> Scale:
    """The scale at which the model with own parameters is worth about ``RANGE`` units."""
    total = sum(item.own_value * len(item.sites) for item in problem.classes)
    unit = max(1, total // RANGE)
    return Scale(unit, total // unit // BANKS, total // unit // PRECISION)


def spending(problem: Problem, decision: Decision) -> int:
    """Trainable parameters of a decision, all counted."""
    total = problem.kept + sum(decision.sizes)
    for item, (choice, count) in zip(problem.classes, decision.choices, strict=True):
        total += item.size * (len(item.sites) - count)
        if choice is not None:
            total += item.options[choice].cost * count + item.options[choice].fixed
    return total


def shared_weights(problem: Problem, decision: Decision) -> list[int]:
    """For each group, what the sites weigh that share its bank."""
    weights = [0] * len(problem.groups)
    for item, (choice, count) in zip(problem.classes, decision.choices, strict=True):
        group = None if choice is None else item.options[choice].group
        if group is not None:
            weights[group] += item.weight * count
    return weights


def share_worth(problem: Problem, size: int, weight: int, scale: Scale) -> int:
    """U[g] of the solver's model, for a bank of ``size`` whose sites weigh ``weight``."""
    return share_value(size * problem.resolution, weight) // scale.unit


def visible_worth(problem: Problem, decision: Decision, number: int, scale: Scale) -> int:
    """V[c,g] of the solver's model for class ``number``, in the group it has chosen."""
    item = problem.classes[number]
    choice, count = decision.choices[number]
    group = None if choice is None else item.options[choice].group
    if group is None:
        return 0
    per_element = item.weight // item.size
    seen = visible_value(decision.sizes[group] * per_element, item.weight) * len(item.sites)
    return min(seen, VISIBLE[-1][1] * item.weight * count) // scale.unit


def spending_worth(problem: Problem, decision: Decision, scale: Scale) -> int:
    """S of the solver's model."""
    return SPENDING * problem.resolution * spending(problem, decision) // scale.unit


def worth(problem: Problem, decision: Decision, scale: Scale) -> int:
    """The objective of the solver's model, recomputed."""
    total = spending_worth(problem, decision, scale)
    weights = shared_weights(problem, decision)
    for size, weight in zip(decision.sizes, weights, strict=True):
        if size:
            total += share_worth(problem, size, weight, scale) - scale.bank
    for number, (item, (choice, count)) in enumerate(
        zip(problem.classes, decision.choices, strict=True)
    ):
        total += item.own_value // scale.unit * (len(item.sites) - count)
        if choice is not None:
            option = item.options[choice]
            total += option.value // scale.unit * count
            total += visible_worth(problem, decision, number, scale)
            if option.group is None:
                total -= scale.bank * (count if option.cost else 1)
    return total
