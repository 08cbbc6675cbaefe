"""The probe: a module for the search phase, whose coefficients tell which sites are alike.

All shareable sites of a dtype read one bank of m parameters, and all mix the same K templates

    W = mean + scale · Σ_k p_k T_k,   p = softmax(c),   T_k[i] = bank[(k · stride + i) mod m]

by coefficients c of their own (the generator ``blend``). Sites that come to want the same mixture
have similar p (Neural Parameter Allocation Search, section 3.2: cluster the mixing parameters).
Coefficients start at ``SPREAD`` times normal values, and scale = σ / (σ_bank · gain) with
gain² = E Σ_k p_k² ≈ 1/K + (K - 1) · SPREAD² / K², so that W has the site's standard deviation σ.

A step of gradient descent moves p less than it moves W, by 1/K twice: give the coefficients, which
are a group of their own in ``parameter_groups``, some ten times the learning rate. Optimisers that
scale each parameter's step, such as Adam, need none of that.

It is a module to learn from, not to keep: it has one group whatever the budget. Weights are never
resized. SuperWeights (WACV 2024) found fault with probes that warp templates to each layer's size,
as training does not; a ring that is read element by element has every size as it is.

A tensor that starts at a constant has p - 1/K in place of p and starts with c = 0: the same bank,
nothing of it at first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from planner.budgets import Amount, the_limit
from planner.errors import InfeasibleBudgetError, PlannerError
from planner.evidence import SPREAD, sigma
from planner.formulation import chunk_length
from planner.ir import Allocation, Bank, Placement, Site, Solution, significant
from planner.pipeline import prepare
from planner.plans import Plan
from planner.validation import check

if TYPE_CHECKING:
    from torch import nn

    from planner.examples import Inputs

MOST_TEMPLATES = 64


def probe(
    model: nn.Module | str | Callable[..., nn.Module],
    budget: Amount | None = None,
    example_inputs: Inputs | None = None,
    templates: int = 4,
    *,
    target_bytes: Amount | None = None,
    max_gradient_bytes: Amount | None = None,
    seed: int = 0,
    arguments: Mapping[str, object] | None = None,
    verify: bool = True,
) -> Plan:
    """The plan of the search-phase module of ``model``, within ``budget``: see the module's text.

    Train what it emits for 10 to 15 % of the schedule and save its state dict: it is what
    ``evidence="learned:FILE"`` of :func:`planner.plan` reads. A bank is no larger than
    ``templates`` times the largest site, as nothing would read the rest: a large budget is not used
    up.

    ``templates`` is K, from 2 to ``MOST_TEMPLATES``; the other arguments are those of ``plan``.

    Raises:
        PlannerError: as :func:`planner.plan` does; no site can be shared; K is out of range.
        InfeasibleBudgetError: the budget leaves fewer than K² parameters for a bank.
    """
    if not 2 <= templates <= MOST_TEMPLATES:
        raise PlannerError(f"{templates} templates: a probe mixes 2 to {MOST_TEMPLATES}")
    limit = the_limit(budget, target_bytes, max_gradient_bytes)
    subject = prepare(model, example_inputs, seed=seed, arguments=arguments, verify=verify)
    parameters = subject.parameters(limit)
    allocation = probing(subject.sites, parameters, templates)
    check(subject.sites, allocation)
    return Plan(
        spec=subject.spec,
        seed=seed,
        evidence="probe",
        budget=limit.text,
        budget_parameters=parameters,
        dense_parameters=subject.dense,
        program=subject.program,
        sites=subject.sites,
        allocation=allocation,
        notes=("a probe for the search phase: plan with evidence learned:FILE of its state dict",),
    )


def probing(sites: Sequence[Site], budget: int, templates: int) -> Allocation:
    """One bank a dtype, in proportion to its sites' elements, and a blend for every shareable site.

    Coefficients stand in the order of the sites: that is how a state dict is read.

    Raises:
        PlannerError: there is nothing to share.
        InfeasibleBudgetError: the error carries the least budget.
    """
    by_dtype: dict[str, list[Site]] = {}
    for site in sites:
        if site.shareable:
            by_dtype.setdefault(site.dtype, []).append(site)
    if not by_dtype:
        raise PlannerError("the model has no tensor that could be shared, and nothing to probe")
    kept = sum(site.size for site in sites if site.trainable and not site.shareable)
    mixing = templates * sum(map(len, by_dtype.values()))
    # The windows of the largest site must meet, or what lies between them is never read. From K²
    # parameters on, K windows that cover the ring have K different starts.
    most = [templates * max(site.size for site in members) for members in by_dtype.values()]
    least = [min(templates**2, size) for size in most]
    free = budget - kept - mixing - sum(least)
    if free < 0:
        raise InfeasibleBudgetError(
            f"{budget} parameters are too few for a probe: tensors that keep their own have {kept},"
            f" mixing coefficients {mixing}, and banks need {sum(least)}; give {budget - free} or "
            "more, or ask for fewer templates",
            budget=budget,
            minimum=budget - free,
        )
    whole = sum(site.size for members in by_dtype.values() for site in members)
    banks, placed = [], dict[str, Placement]()
    for number, members in enumerate(by_dtype.values()):
        elements = sum(site.size for site in members)
        size = min(most[number], least[number] + free * elements // whole)
        bank = _bank(f"bank{number}", members, size, templates, whole)
        banks.append(bank)
        for index, site in enumerate(members):
            made = _blend(site, bank, templates)
            placed[site.name] = replace(made, coefficient=index * templates)
    own = {site.name: site.kept or "it is not trained, and so costs nothing" for site in sites}
    return Allocation(
        budget,
        tuple(banks),
        tuple(placed.get(one.name, Placement(one.name, "own", own[one.name])) for one in sites),
        Solution("probe", "RULE", 0, 0),
        ("own", "blend"),
    )


def _bank(name: str, members: Sequence[Site], size: int, templates: int, whole: int) -> Bank:
    """Stored as other banks are: see ``planner.placement``."""
    deviations = [sigma(site) for site in members]
    middle = math.sqrt(min(deviations) * max(deviations))
    reads = templates * sum(site.size for site in members) / size
    std = significant(middle * max(1.0, reads) ** 0.25)
    return Bank(name, size, templates * len(members), std, chunk_length(whole))


def _blend(site: Site, bank: Bank, templates: int) -> Placement:
    gain = math.sqrt(1 / templates + (templates - 1) * (SPREAD / templates) ** 2)
    return Placement(
        site.name,
        "blend",
        f"blends the {templates} templates of {bank.name}, as all sites do",
        bank=bank.name,
        stride=-(-bank.size // templates),
        templates=templates,
        count=templates,
        scale=significant(sigma(site) / (bank.std * gain)),
        mean=significant(site.initial.mean),
        zero=site.initial.std == 0,
    )
