"""Allocators side by side: one model, one budget, one objective."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from planner.baselines import ALLOCATORS
from planner.budgets import Amount, the_limit
from planner.constraints import Constraints, resolve
from planner.errors import InfeasibleBudgetError
from planner.ir import Allocation, Evidence, significant
from planner.narrowing import Narrow, narrow
from planner.pipeline import Subject, allocated, check_allocator, constraints_of, prepare
from planner.rules import Rule
from planner.validation import parameter_count

if TYPE_CHECKING:
    from torch import nn

    from planner.examples import Inputs


@dataclass(frozen=True, slots=True)
class Entry:
    """What an allocator makes of the budget.

    Attributes:
        minimum: the least budget that it could use, where this one is too small; then the figures
            are None.
        status: the solver's, or ``RULE``.
        objective: in the unit of all entries, as all have the same sites and importance.
        count: trainable parameters.
        compression: dense parameters per emitted one.
        dissimilarity: of what shares a bank, the mean over generated elements; 0 if none are.
        tied: sites that are the same tensor as another.
        own: sites that keep their own parameters.
        shared: sites that are generated otherwise, with others or alone.
        seconds: of the wall clock.
    """

    allocator: str
    seconds: float
    minimum: int | None = None
    status: str | None = None
    objective: int | None = None
    count: int | None = None
    compression: float | None = None
    dissimilarity: float | None = None
    tied: int | None = None
    own: int | None = None
    shared: int | None = None
    banks: int | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Entries in the order that was asked for, and the narrower model of the budget."""

    model: str
    evidence: str
    budget: str
    parameters: int
    dense: int
    entries: tuple[Entry, ...]
    narrow: Narrow


def compare(
    model: nn.Module | str | Callable[..., nn.Module],
    budget: Amount | None = None,
    example_inputs: Inputs | None = None,
    *,
    target_bytes: Amount | None = None,
    max_gradient_bytes: Amount | None = None,
    allocators: Sequence[str] = ALLOCATORS,
    evidence: str | Evidence = "shape",
    constraints: Constraints | None = None,
    seed: int = 0,
    arguments: Mapping[str, object] | None = None,
    deterministic_limit: float | None = None,
    verify: bool = True,
) -> Comparison:
    """Allocate one budget by each of ``allocators``; the model is captured once.

    Arguments are those of :func:`planner.plan`. The solver alone keeps ``constraints``: baselines
    are what they would be without, and may then be worth more.

    Raises:
        PlannerError: as ``plan`` does, but a budget too small for an allocator is an entry.
    """
    limit = the_limit(budget, target_bytes, max_gradient_bytes)
    for name in allocators:
        check_allocator(name)
    asked = constraints_of(constraints)
    subject = prepare(
        model, example_inputs, evidence=evidence, seed=seed, arguments=arguments, verify=verify
    )
    parameters = subject.parameters(limit)
    rules = resolve(asked, subject.sites, subject.width)
    return Comparison(
        model=subject.spec,
        evidence=subject.evidence.source,
        budget=limit.text,
        parameters=parameters,
        dense=subject.dense,
        entries=tuple(
            _entry(subject, parameters, name, seed, rules, deterministic_limit)
            for name in dict.fromkeys(allocators)
        ),
        narrow=narrow(subject.program, subject.sites, parameters),
    )


def _entry(
    subject: Subject,
    parameters: int,
    name: str,
    seed: int,
    rules: Sequence[Rule],
    deterministic_limit: float | None,
) -> Entry:
    start = time.perf_counter()
    try:
        allocation = allocated(
            subject,
            parameters,
            name,
            seed=seed,
            rules=rules,
            deterministic_limit=deterministic_limit,
        )
    except InfeasibleBudgetError as error:
        return Entry(name, significant(time.perf_counter() - start, 3), minimum=error.minimum)
    seconds = significant(time.perf_counter() - start, 3)
    generators = [placement.generator for placement in allocation.placements]
    count = parameter_count(subject.sites, allocation)
    own, tied = generators.count("own"), generators.count("tie")
    return Entry(
        allocator=name,
        seconds=seconds,
        status=allocation.solution.status,
        objective=allocation.solution.objective,
        count=count,
        compression=significant(subject.dense / max(1, count)),
        dissimilarity=_dissimilarity(subject, allocation),
        tied=tied,
        own=own,
        shared=len(generators) - own - tied,
        banks=len(allocation.banks),
    )


def _dissimilarity(subject: Subject, allocation: Allocation) -> float:
    unlike = {bank.name: bank.dissimilarity for bank in allocation.banks}
    generated = [
        (site.size, unlike[placement.bank])
        for site, placement in zip(subject.sites, allocation.placements, strict=True)
        if placement.bank is not None
    ]
    elements = sum(size for size, _ in generated)
    return significant(sum(size * value for size, value in generated) / max(1, elements), 4)
