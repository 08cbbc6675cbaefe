"""Chooses a bank and a generator for each site, and the size of each bank, under a budget.

Sets
    c ∈ C       classes: M_c sites of n_c elements that nothing tells apart; w_c = n_c · importance
    g ∈ G       candidate groups of the evidence, at most one bank each
    o ∈ O_c     options of a class (generator, K or rank or copies, group g(o) or none);
                O_cg those with g(o) = g

Variables, all integers
    y[c,o] ∈ {0,1}     sites of c take option o
    k[c,o] ∈ 0..M_c    how many do
    all[c] ∈ {0,1}     all of c keep their own parameters
    some[c] ≥ 0        how many do besides an option; split[c] ∈ {0,1}: some[c] > 0
    m[g] ≥ 0           parameters of the bank of g; used[g] ∈ {0,1}
    U[g], V[c,g], S ≥ 0  worth of a bank's size, of what a site of c sees of it, of what is spent

Constraints
    1. choice (``add_choice``)        all[c] + Σ_o y[c,o] = 1;  y[c,o] ≤ k[c,o] ≤ M_c · y[c,o];
                                      own[c] + Σ_o k[c,o] = M_c, own[c] = M_c · all[c] + some[c];
                                      split[c] ≤ some[c] ≤ (M_c - 1) · split[c];
                                      split[c] + all[c] ≤ 1; neither if "own" is not in the menu
    2. size (``add_sizes``)           m[g] ≥ Σ_{o ∈ O_cg} need_o · y[c,o] for each c;
                                      m[g] ≤ room_o where y[c,o]; m[g] = 0 where not used[g]
                                      m[g] ≥ n_c · (split[c] + Σ_{o ∈ O_cg} y[c,o] - 1): a class is
                                      split only where the bank holds one of its sites
    3. coverage (``add_coverage``)    m[g] ≤ Σ_{c, o ∈ O_cg} reads_o · k[c,o]
    4. budget (``add_budget``)        spent = kept + Σ_c n_c · own[c] + Σ_g m[g]
                                      + Σ_{c,o} (cost_o · k[c,o] + fixed_o · y[c,o]) ≤ budget;
                                      D · S ≤ SPENDING · spent
    5. worth of size (``add_share``)  D · U[g] ≤ slope · m[g] + intercept · Σ w_c · k[c,o] for each
                                      piece of SHARE: N · SHARE(m / N), N the group's elements
    6. visibility (``add_visible``)   D · V[c,g] ≤ M_c · (slope · m[g] + intercept · n_c · Σ y[c,o])
                                      for each piece of VISIBLE, the last one per site that shares
    7. rules (``add_rules``)          the user's constraints on classes (``planner.enforcement``):
       permitted (``add_permitted``)  y[c,o] = 0, own[c] = 0 for what a rule does not permit
       together (``add_together``)    Σ_{o ∈ O_cg} y[c,o] equal for all c of the rule, for each g
       apart (``add_apart``)          at most one side of the rule reads the bank of g
       compression (``add_compression``)  Σ n_c · k[c,o] ≤ ratio · m[g] where c of the rule reads g
       budget (``spent_by``)          own, costs and banks of the rule's classes ≤ its budget

Objective (``objective_of``)
    maximise S + Σ_g U[g] + Σ_{c,g} V[c,g] + Σ_c ⌊own_value_c / D⌋ · own[c]
             + Σ_{c,o} ⌊value_o / D⌋ · k[c,o] - bank · banks

where value_o is w_c · (BONUS - DISSIMILARITY · d_cg), plus the worth of their size for options
without a group, and banks counts the banks in use. D scales the worth of own parameters to about
RANGE units, bank is one part in BANKS of it (``planner.valuation``). The functions named are those
of ``planner.solver_model``, the tables stand in ``planner.formulation``.

Properties. N · SHARE(m / N) is concave and homogeneous, so equal shares are best, and a merger of
groups never loses worth of size. Own parameters have the greatest worth at a share of 1, so that
at the dense count every site that may keeps its own. Constraints other than 4 do not depend on
the budget, so a larger one never lowers the optimum.

Search. Rules find an allocation (``planner.construction``). Prices taken from it bound all others
(``planner.prices``), whatever the number of classes; options that no better allocation has are
left out of the solver's model. Coefficients are integers, and one worker searches from a fixed seed
to a deterministic limit. For a part PROOF of it a proof of optimality is sought. If the gap is then
above one bank's cost, another search with the whole limit goes on until it is not (``_solve``):
what is worth less than a bank is left. Status, bound and gap tell how it ended. Where optimality is
proven, another solve holds the objective and minimises Σ rank · variable (``_settle``), so that of
equal optima one is canonical. A limit of time and Ctrl-C (``planner.effort``) end all this at the
best allocation so far.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

from ortools.sat.python import cp_model

from planner.conflicts import explain, infeasible
from planner.construction import construct
from planner.effort import Effort, Progress
from planner.enforcement import add_rule_hints, add_rules
from planner.errors import InfeasibleBudgetError, PlannerError, SolveLimitError
from planner.evidence import dissimilarity
from planner.formulation import Problem, coarse, dense_count, formulate, prune
from planner.ir import MENU, Allocation, Evidence, Generator, Site, Solution
from planner.placement import place
from planner.prices import Bound, bound_of, reduced, restored
from planner.rules import Rule, widen
from planner.solver_model import (
    Variables,
    add_budget,
    add_hint,
    add_share,
    add_visible,
    constrain,
    decision_of,
    deterministic_solver,
    objective_of,
    spent,
)
from planner.validation import check
from planner.valuation import Decision, Scale, scale_of, spending, worth

EFFORT = 2.0
"""The solver's limit unless another is given, in its own deterministic seconds."""

PROOF = 0.25
"""Share of the solver's limit that goes to a proof of optimality where the gap is small."""


def allocate(
    sites: Sequence[Site],
    evidence: Evidence,
    budget: int,
    *,
    seed: int = 0,
    generators: tuple[Generator, ...] = MENU,
    deterministic_limit: float | None = None,
    rules: Sequence[Rule] = (),
    time_limit: float | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Allocation:
    """The best allocation of at most ``budget`` trainable parameters, checked.

    Args:
        sites: all parameter tensors of the model, in its order.
        evidence: candidate groups, by site name.
        budget: parameters that the emitted model may have, everything counted.
        seed: of the hashes' permutations and signs.
        generators: what may make a shareable site. One that no generator of the menu fits keeps
            its own parameters, as do sites with ``kept``.
        deterministic_limit: the solver's effort, in its own machine-independent seconds; EFFORT by
            default.
        rules: the user's constraints, resolved for these sites.
        time_limit: seconds of wall clock after which the best allocation so far is returned. What
            that is depends on the machine and its load.
        progress: is told of objective and bound while the search goes on, from this thread.

    Ctrl-C ends the search as a time limit does, once there is an allocation to return;
    ``Solution.stopped`` says so.

    Raises:
        InfeasibleBudgetError: ``budget`` is below the least possible, which it carries.
        ConstraintConflictError: the rules exclude each other, or the budget.
        SolveLimitError: the solver found nothing within its limit.
        AllocationError: the evidence does not fit the sites, or a generator is unknown.
    """
    (allocation,) = sweep(
        sites,
        evidence,
        (budget,),
        seed=seed,
        generators=generators,
        deterministic_limit=deterministic_limit,
        rules=rules,
        time_limit=time_limit,
        progress=progress,
    )
    if isinstance(allocation, InfeasibleBudgetError):
        raise allocation
    return allocation


def sweep(
    sites: Sequence[Site],
    evidence: Evidence,
    budgets: Sequence[int],
    *,
    seed: int = 0,
    generators: tuple[Generator, ...] = MENU,
    deterministic_limit: float | None = None,
    rules: Sequence[Rule] = (),
    time_limit: float | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Iterator[Allocation | InfeasibleBudgetError]:
    """The allocation of each of ``budgets``, from the least on, as by ``allocate``.

    Each search starts from what the one before has found, so that the objective never falls. A
    budget that is too small gives the error that ``allocate`` raises.
    """
    evidence = widen(evidence, sites, rules, dissimilarity)
    whole = formulate(sites, evidence, generators, rules)
    problem = prune(whole)
    scale, incumbent = scale_of(problem), None
    limit = EFFORT if deterministic_limit is None else deterministic_limit
    fine, dense = problem, dense_count(problem)
    # Rules may ask for numbers of templates that only the whole menu has.
    problem = problem if rules else coarse(problem)
    for budget in budgets:
        if budget > dense and problem is not fine:
            incumbent = None if incumbent is None else _moved(incumbent, problem, fine)
            problem = fine
        effort = Effort(limit, time_limit, progress)
        start = construct(problem, budget, scale, effort, incumbent)
        if start is None:
            start = _least(problem, effort, budget)
            if start is None:
                error = _infeasible(whole, budget, effort)
                if not isinstance(error, InfeasibleBudgetError):
                    raise error
                yield error
                continue
            start = construct(problem, budget, scale, effort, start) or start
        incumbent, solution = _solve(problem, budget, scale, start, effort)
        banks, placements = place(sites, evidence, problem, incumbent, seed)
        allocation = Allocation(budget, banks, placements, solution, generators)
        check(sites, allocation)
        yield allocation


def _moved(decision: Decision, problem: Problem, other: Problem) -> Decision:
    """A decision on ``problem`` as one on ``other``, which has all of its options."""
    choices = tuple(
        (None if choice is None else there.options.index(here.options[choice]), count)
        for here, there, (choice, count) in zip(
            problem.classes, other.classes, decision.choices, strict=True
        )
    )
    return replace(decision, choices=choices)


def _solve(
    problem: Problem, budget: int, scale: Scale, start: Decision, effort: Effort
) -> tuple[Decision, Solution]:
    """The best decision found from ``start``, made canonical."""
    decision, value = start, worth(problem, start, scale)
    bound: int | None = None
    priced = bound_of(problem, budget, scale, start)
    for limit, tolerance in ((PROOF * effort.limit, scale.tolerance), (effort.limit, scale.bank)):
        smaller, known = problem, decision
        if priced is not None:
            bound = priced.value if bound is None else min(bound, priced.value)
            smaller, known = reduced(problem, priced, decision, value)
        effort.known(value, bound)
        if bound is not None and value + tolerance >= bound:
            break
        if effort.over():
            break
        v, _ = _model(smaller, budget, scale)
        found, searched = _search(v, smaller, scale, known, effort, limit, tolerance)
        # What was left out is worth less than what was known.
        searched = max(searched, value)
        bound = searched if bound is None else min(bound, searched)
        better = restored(problem, smaller, found)
        if better != decision:
            decision, value = better, worth(problem, better, scale)
            priced = bound_of(problem, budget, scale, decision)
    if bound is None:
        bound = value
    proven = value + scale.tolerance >= bound
    if proven and not effort.over():
        decision = _settle(problem, budget, scale, decision, priced, effort)
        value = worth(problem, decision, scale)
    status: Literal["OPTIMAL", "FEASIBLE"] = "OPTIMAL" if proven else "FEASIBLE"
    stopped = "" if proven else effort.stopped
    return decision, Solution("cp-sat", status, value, max(value, bound), stopped)


def _model(problem: Problem, budget: int, scale: Scale) -> tuple[Variables, Any]:
    """The solver's model with its objective."""
    v = constrain(problem, budget)
    for group, joins in enumerate(problem.joins()):
        if joins:
            add_share(v, problem, group, joins, scale)
    for number in range(len(problem.classes)):
        add_visible(v, problem, number, scale)
    add_budget(v, problem, budget, scale)
    add_rules(v, problem)
    objective = objective_of(v, problem, scale)
    v.model.maximize(objective)
    return v, objective


def _search(
    v: Variables,
    problem: Problem,
    scale: Scale,
    start: Decision,
    effort: Effort,
    limit: float,
    tolerance: int,
) -> tuple[Decision, int]:
    """A decision no worse than ``start``, and the bound on the objective of any."""
    add_hint(v, problem, start, scale)
    add_rule_hints(v, problem, start)
    solver, status = _run(v, effort, limit, tolerance, watched=True)
    if status not in _SOLVED and effort.stopped:
        return start, 2**62
    if status not in _SOLVED:
        raise SolveLimitError(
            f"the solver found no allocation within its limit of {limit}; raise the limit"
        )
    found = decision_of(solver, v, problem)
    better = max(start, found, key=lambda decision: worth(problem, decision, scale))
    return better, round(solver.best_objective_bound)


def _infeasible(problem: Problem, budget: int, effort: Effort) -> PlannerError:
    """What to say of a budget, or rules, that nothing satisfies."""
    free = _least(replace(problem, rules=()), effort)
    minimum = problem.kept if free is None else spending(problem, free)
    if problem.rules and minimum <= budget:
        return explain(problem, budget)
    return InfeasibleBudgetError(
        f"{budget} parameters are too few: the least possible for this model is {minimum}, "
        f"{problem.kept} of them in tensors that keep their own",
        budget=budget,
        minimum=minimum,
    )


def _least(problem: Problem, effort: Effort, budget: int | None = None) -> Decision | None:
    """The decision with the fewest parameters, or None if there is none within ``budget``.

    With a budget any decision within it will do.
    """
    limit = 5 * effort.limit
    v = constrain(problem, None)
    add_rules(v, problem)
    total = spent(v, problem)
    if budget is not None:
        v.model.add(total <= budget)
    v.model.minimize(total)
    solver, status = _run(v, effort, limit)
    if effort.stopped == "interrupted":
        raise KeyboardInterrupt
    if status == cp_model.INFEASIBLE:
        return None
    # Cuts and probing, which the search does without, may prove it after all.
    if status not in _SOLVED and not effort.stopped and infeasible(v.model):
        return None
    if status in _SOLVED and (
        budget is not None or solver.objective_value <= solver.best_objective_bound
    ):
        return decision_of(solver, v, problem)
    limits = f"{effort.seconds} seconds" if effort.stopped else f"a limit of {limit}"
    raise SolveLimitError(f"the least number of parameters was not found within {limits}; raise it")


def _settle(
    problem: Problem,
    budget: int,
    scale: Scale,
    found: Decision,
    priced: Bound | None,
    effort: Effort,
) -> Decision:
    """Of the decisions that are no worse than ``found``, the first in a fixed order of costs."""
    value = worth(problem, found, scale)
    smaller, known = problem, found
    if priced is not None:
        smaller, known = reduced(problem, priced, found, value)
    v, objective = _model(smaller, budget, scale)
    v.model.add(objective >= value).with_name("objective")
    ranks = [
        (problem.classes[c].options.index(smaller.classes[c].options[o]) + 1) * taken
        for (c, o), taken in v.taken.items()
    ]
    sizes = [(group + 1) * size for group, size in v.size.items()]
    v.model.minimize(sum(ranks) + sum(sizes) - (len(problem.groups) + 1) * spent(v, smaller))
    add_hint(v, smaller, known, scale)
    add_rule_hints(v, smaller, known)
    solver, status = _run(v, effort, effort.limit / 4)
    if status not in _SOLVED:
        return found
    return restored(problem, smaller, decision_of(solver, v, smaller))


def _run(
    v: Variables, effort: Effort, limit: float, tolerance: int = 0, *, watched: bool = False
) -> tuple[cp_model.CpSolver, cp_model.CpSolverStatus]:
    """The solver after its search, and how that ended: in ``_SOLVED`` there is a solution."""
    error = v.model.validate()
    if error:
        raise AssertionError(error)
    solver = deterministic_solver(limit)
    # The relaxation of all constraints is tight here; cuts and probing add little but time.
    solver.parameters.cut_level = 0
    solver.parameters.linearization_level = 2
    solver.parameters.cp_model_probing_level = 0
    solver.parameters.symmetry_level = 0
    solver.parameters.absolute_gap_limit = tolerance
    return solver, effort.run(solver, v.model, watched=watched)


_SOLVED = (cp_model.OPTIMAL, cp_model.FEASIBLE)
