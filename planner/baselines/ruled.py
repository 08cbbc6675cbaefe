"""What a rule returns, and how it says that a budget is too small for it."""

from __future__ import annotations

from dataclasses import dataclass

from planner.errors import InfeasibleBudgetError
from planner.formulation import Problem
from planner.ir import Evidence, Generator
from planner.valuation import Decision


@dataclass(frozen=True, slots=True)
class Ruled:
    """A rule's decision, with the groups and options that it is about."""

    evidence: Evidence
    problem: Problem
    decision: Decision
    generators: tuple[Generator, ...]


def too_few(rule: str, budget: int, minimum: int, problem: Problem) -> InfeasibleBudgetError:
    """The error of a budget below what the rule needs."""
    return InfeasibleBudgetError(
        f"{budget} parameters are too few for {rule!r}: the least that this rule makes of the "
        f"model is {minimum}, {problem.kept} of them in tensors that keep their own",
        budget=budget,
        minimum=minimum,
    )
