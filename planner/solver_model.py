"""The mathematics of ``planner.allocation`` as a CP-SAT model, a function per constraint family."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ortools.sat.python import cp_model

from planner.formulation import SHARE, VISIBLE, Problem, share_value
from planner.valuation import (
    SPENDING,
    Decision,
    Scale,
    share_worth,
    shared_weights,
    spending_worth,
    visible_worth,
)


@dataclass(slots=True)
class Variables:
    """The solver's model with its variables, keyed by class, option and group as in the docstring.

    ``count`` and ``own`` are expressions where a class has one site or is never split.
    """

    model: cp_model.CpModel = field(default_factory=cp_model.CpModel)
    taken: dict[tuple[int, int], cp_model.IntVar] = field(default_factory=dict)
    count: dict[tuple[int, int], Any] = field(default_factory=dict)
    own: dict[int, Any] = field(default_factory=dict)
    whole: dict[int, cp_model.IntVar] = field(default_factory=dict)
    some: dict[int, cp_model.IntVar] = field(default_factory=dict)
    split: dict[int, cp_model.IntVar] = field(default_factory=dict)
    size: dict[int, cp_model.IntVar] = field(default_factory=dict)
    used: dict[int, cp_model.IntVar] = field(default_factory=dict)
    share: dict[int, cp_model.IntVar] = field(default_factory=dict)
    visible: dict[tuple[int, int], cp_model.IntVar] = field(default_factory=dict)
    reward: list[cp_model.IntVar] = field(default_factory=list)
    reads: dict[tuple[int, int, int], cp_model.IntVar] = field(default_factory=dict)
    counted: dict[tuple[int, int], cp_model.IntVar] = field(default_factory=dict)


def deterministic_solver(limit: float) -> cp_model.CpSolver:
    """A solver with one worker and a fixed seed, that ends after ``limit`` of its own seconds."""
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    # Fixed: the plan's seed is for hashes, and must not move the search among equal optima.
    solver.parameters.random_seed = 0
    # CP-SAT 9.15 cuts off optimal solutions when it merges at-most-one and linear constraints; a
    # limit of 0 turns that step of its presolve off.
    solver.parameters.presolve_inclusion_work_limit = 0
    solver.parameters.max_deterministic_time = limit
    return solver


def constrain(problem: Problem, budget: int | None) -> Variables:
    """Constraints 1 to 3, which hold whatever is asked for."""
    v = Variables()
    for number in range(len(problem.classes)):
        add_choice(v, problem, number)
    for group, joins in enumerate(problem.joins()):
        if joins:
            add_sizes(v, problem, group, joins, budget)
            add_coverage(v, problem, group, joins)
    return v


def add_choice(v: Variables, problem: Problem, c: int) -> None:
    """1: all sites of a class keep their own parameters, or at least one takes an option."""
    item = problem.classes[c]
    sites, options = len(item.sites), range(len(item.options))
    whole = v.whole[c] = v.model.new_bool_var(f"all[{c}]")
    for o in options:
        v.taken[c, o] = v.count[c, o] = v.model.new_bool_var(f"y[{c},{o}]")
    v.model.add_exactly_one([whole, *(v.taken[c, o] for o in options)]).with_name(
        f"choice[{c}].one"
    )
    v.own[c] = sites * whole
    if not item.may_own:
        v.model.add(whole == 0).with_name(f"choice[{c}].menu")
    if sites == 1 or not item.may_own:
        v.count.update({(c, o): sites * v.taken[c, o] for o in options})
        return
    split = v.split[c] = v.model.new_bool_var(f"split[{c}]")
    some = v.some[c] = v.model.new_int_var(0, sites - 1, f"some[{c}]")
    v.own[c] += some
    v.model.add(some >= split).with_name(f"choice[{c}].some")
    v.model.add(some <= (sites - 1) * split).with_name(f"choice[{c}].split")
    v.model.add(split + whole <= 1).with_name(f"choice[{c}].either")
    for o in options:
        count = v.count[c, o] = v.model.new_int_var(0, sites, f"k[{c},{o}]")
        v.model.add(count >= v.taken[c, o]).with_name(f"choice[{c}].least[{o}]")
        v.model.add(count <= sites * v.taken[c, o]).with_name(f"choice[{c}].most[{o}]")
    v.model.add(v.own[c] + sum(v.count[c, o] for o in options) == sites).with_name(
        f"choice[{c}].all"
    )


def add_sizes(
    v: Variables, problem: Problem, g: int, joins: Sequence[tuple[int, int]], budget: int | None
) -> None:
    """2: the size of a bank suits every option that uses it."""
    classes = problem.classes
    most = sum(classes[c].options[o].reads * len(classes[c].sites) for c, o in joins)
    if budget is not None:
        most = max(0, min(most, budget - problem.kept))
    size = v.size[g] = v.model.new_int_var(0, most, f"m[{g}]")
    used = v.used[g] = v.model.new_bool_var(f"used[{g}]")
    v.model.add_max_equality(used, [v.taken[join] for join in joins]).with_name(f"size[{g}].used")
    v.model.add(size <= most * used).with_name(f"size[{g}].unused")
    for c in dict.fromkeys(c for c, _ in joins):
        options = [o for number, o in joins if number == c]
        need = sum(classes[c].options[o].need * v.taken[c, o] for o in options)
        v.model.add(size >= need).with_name(f"size[{g}].need[{c}]")
        if c in v.split:
            here = sum(v.taken[c, o] for o in options)
            v.model.add(size >= classes[c].size * (v.split[c] + here - 1)).with_name(
                f"size[{g}].whole[{c}]"
            )
        for o in options:
            room = classes[c].options[o].room
            if room is not None and room < most:
                v.model.add(size <= most - (most - room) * v.taken[c, o]).with_name(
                    f"size[{g}].room[{c},{o}]"
                )


def add_coverage(v: Variables, problem: Problem, g: int, joins: Sequence[tuple[int, int]]) -> None:
    """3: a bank is no larger than what its sites read."""
    reads = sum(problem.classes[c].options[o].reads * v.count[c, o] for c, o in joins)
    v.model.add(v.size[g] <= reads).with_name(f"coverage[{g}]")


def spent(v: Variables, problem: Problem) -> Any:
    """Trainable parameters, all counted."""
    total = problem.kept + sum(v.size.values())
    for c, item in enumerate(problem.classes):
        total += item.size * v.own[c]
        for o, option in enumerate(item.options):
            total += option.cost * v.count[c, o] + option.fixed * v.taken[c, o]
    return total


def add_budget(v: Variables, problem: Problem, budget: int, scale: Scale) -> None:
    """4: no more is spent than the budget, and what is spent is worth something."""
    total, factor = spent(v, problem), SPENDING * problem.resolution
    v.model.add(total <= budget).with_name("budget")
    reward = v.model.new_int_var(0, factor * budget // scale.unit, "S")
    v.model.add(scale.unit * reward <= factor * total).with_name("budget.reward")
    v.reward.append(reward)


def add_share(
    v: Variables, problem: Problem, g: int, joins: Sequence[tuple[int, int]], scale: Scale
) -> None:
    """5: the worth of a bank's size among the elements made from it."""
    weight = sum(problem.classes[c].weight * v.count[c, o] for c, o in joins)
    most = sum(item.weight * len(item.sites) for item in problem.classes)
    greatest = max(option.reads for item in problem.classes for option in item.options)
    sites = sum(len(item.sites) for item in problem.classes)
    limit = share_value(greatest * sites * problem.resolution, most) // scale.unit
    share = v.share[g] = v.model.new_int_var(0, limit, f"U[{g}]")
    for piece, (slope, intercept) in enumerate(SHARE):
        v.model.add(
            scale.unit * share <= slope * problem.resolution * v.size[g] + intercept * weight
        ).with_name(f"share[{g}].{piece}")


def add_visible(v: Variables, problem: Problem, c: int, scale: Scale) -> None:
    """6: the worth of what one site sees of its bank, for all sites of a class."""
    item = problem.classes[c]
    sites = len(item.sites)
    *pieces, (_, greatest) = VISIBLE
    limit = greatest * item.weight * sites // scale.unit
    for g in dict.fromkeys(option.group for option in item.options if option.group is not None):
        options = [o for o, option in enumerate(item.options) if option.group == g]
        seen = v.visible[c, g] = v.model.new_int_var(0, limit, f"V[{c},{g}]")
        here = sum(v.taken[c, o] for o in options)
        for piece, (slope, intercept) in enumerate(pieces):
            v.model.add(
                scale.unit * seen
                <= sites * slope * (item.weight // item.size) * v.size[g]
                + sites * intercept * item.weight * here
            ).with_name(f"visible[{c},{g}].{piece}")
        count = sum(v.count[c, o] for o in options)
        v.model.add(scale.unit * seen <= greatest * item.weight * count).with_name(
            f"visible[{c},{g}].whole"
        )


def objective_of(v: Variables, problem: Problem, scale: Scale) -> Any:
    """The objective: worth of spending, sizes, visibility and generators, less the banks' cost."""
    total = (
        v.reward[0]
        + sum(v.share.values())
        + sum(v.visible.values())
        - scale.bank * sum(v.used.values())
    )
    for c, item in enumerate(problem.classes):
        total += item.own_value // scale.unit * v.own[c]
        for o, option in enumerate(item.options):
            total += option.value // scale.unit * v.count[c, o]
            if option.group is None:
                total -= scale.bank * (v.count[c, o] if option.cost else v.taken[c, o])
    return total


def add_hint(v: Variables, problem: Problem, start: Decision, scale: Scale) -> None:
    """Gives the solver ``start``, every variable once."""
    model = v.model
    model.add_hint(v.reward[0], spending_worth(problem, start, scale))
    for c, (item, (choice, count)) in enumerate(zip(problem.classes, start.choices, strict=True)):
        model.add_hint(v.whole[c], choice is None)
        if c in v.split:
            some = 0 if choice is None else len(item.sites) - count
            model.add_hint(v.split[c], some > 0)
            model.add_hint(v.some[c], some)
        for o in range(len(item.options)):
            model.add_hint(v.taken[c, o], o == choice)
            if c in v.split:
                model.add_hint(v.count[c, o], count if o == choice else 0)
    weights = shared_weights(problem, start)
    for g, size in v.size.items():
        model.add_hint(size, start.sizes[g])
        model.add_hint(v.used[g], start.sizes[g] > 0)
        model.add_hint(v.share[g], share_worth(problem, start.sizes[g], weights[g], scale))
    for (c, g), seen in v.visible.items():
        choice = start.choices[c][0]
        here = choice is not None and problem.classes[c].options[choice].group == g
        model.add_hint(seen, visible_worth(problem, start, c, scale) if here else 0)


def decision_of(solver: cp_model.CpSolver, v: Variables, problem: Problem) -> Decision:
    """The solution that the solver holds; its status must have been checked."""
    choices: list[tuple[int | None, int]] = []
    for c, item in enumerate(problem.classes):
        chosen = [o for o in range(len(item.options)) if solver.value(v.taken[c, o])]
        count = solver.value(v.count[c, chosen[0]]) if chosen else 0
        choices.append((chosen[0] if chosen else None, count))
    sizes = (solver.value(v.size[g]) if g in v.size else 0 for g in range(len(problem.groups)))
    return Decision(tuple(choices), tuple(sizes))
