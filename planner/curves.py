"""One model at many budgets: what a few parameters more are worth."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from planner.allocation import sweep
from planner.budgets import Amount, Limit
from planner.constraints import Constraints, resolve
from planner.errors import BudgetError, InfeasibleBudgetError
from planner.ir import Allocation, Evidence, Generator, significant
from planner.pipeline import Subject, constraints_of, menu_of, prepare
from planner.validation import parameter_count

if TYPE_CHECKING:
    from torch import nn

    from planner.examples import Inputs


@dataclass(frozen=True, slots=True)
class Point:
    """A budget and what the solver makes of it.

    Attributes:
        budget: as it was asked for.
        parameters: the same in parameters.
        minimum: the least possible, where the budget is below it; then the figures are None.
        count: trainable parameters.
        compression: dense parameters per emitted one.
        objective: comparable along the curve, on which it never falls.
        gap: the relative distance of bound and objective.
        seconds: of the wall clock.
    """

    budget: str
    parameters: int
    seconds: float
    minimum: int | None = None
    count: int | None = None
    compression: float | None = None
    objective: int | None = None
    gap: float | None = None
    status: str | None = None


@dataclass(frozen=True, slots=True)
class Curve:
    """Points by rising budget. ``capture_seconds`` were spent once, before the first."""

    model: str
    evidence: str
    dense: int
    capture_seconds: float
    points: tuple[Point, ...]


def curve(
    model: nn.Module | str | Callable[..., nn.Module],
    budgets: Sequence[Amount],
    example_inputs: Inputs | None = None,
    *,
    evidence: str | Evidence = "shape",
    seed: int = 0,
    generators: Sequence[Generator] | None = None,
    constraints: Constraints | None = None,
    arguments: Mapping[str, object] | None = None,
    deterministic_limit: float | None = None,
    verify: bool = True,
) -> Curve:
    """Allocate each of ``budgets``; the model is captured once. Arguments are those of ``plan``.

    The search at a budget starts from what was found at the one before. So a point may differ from
    the plan of its budget alone where optimality is not proven: it is as good or better.

    Raises:
        PlannerError: as ``plan`` does, but a budget that is too small is a point with its minimum.
    """
    if not budgets:
        raise BudgetError("a curve needs a budget: give one or more")
    menu = menu_of(generators)
    asked = constraints_of(constraints)
    start = time.perf_counter()
    subject = prepare(
        model, example_inputs, evidence=evidence, seed=seed, arguments=arguments, verify=verify
    )
    captured = significant(time.perf_counter() - start, 3)
    limits = [Limit("budget", budget) for budget in budgets]
    # Equal budgets are one point, whatever they are called.
    named = {subject.parameters(limit): limit.text for limit in reversed(limits)}
    rising = sorted(named)
    found = sweep(
        subject.sites,
        subject.evidence,
        rising,
        seed=seed,
        generators=menu,
        deterministic_limit=deterministic_limit,
        rules=resolve(asked, subject.sites, subject.width),
    )
    points = []
    for parameters in rising:
        start = time.perf_counter()
        result = next(found)
        seconds = significant(time.perf_counter() - start, 3)
        points.append(_point(subject, named[parameters], parameters, result, seconds))
    return Curve(subject.spec, subject.evidence.source, subject.dense, captured, tuple(points))


def _point(
    subject: Subject,
    budget: str,
    parameters: int,
    result: Allocation | InfeasibleBudgetError,
    seconds: float,
) -> Point:
    if isinstance(result, InfeasibleBudgetError):
        return Point(budget, parameters, seconds, minimum=result.minimum)
    count = parameter_count(subject.sites, result)
    return Point(
        budget,
        parameters,
        seconds,
        count=count,
        compression=significant(subject.dense / max(1, count)),
        objective=result.solution.objective,
        gap=significant(result.solution.gap),
        status=result.solution.status,
    )
