"""The solver's objective is the optimum: against enumeration of everything that is allowed.

Written from the mathematics in the docstring of ``planner.allocation``: all options, all counts of
sites, all sizes of all banks. Forty instances run by default, ``make optimal`` runs all.
"""

import itertools

import numpy as np
import pytest

import site_lists
from planner.allocation import allocate
from planner.errors import InfeasibleBudgetError
from planner.formulation import BONUS, SHARE, SMALL, VISIBLE, formulate
from planner.ir import GENERATORS, MENU, CandidateGroup, Evidence
from planner.prices import bound_of
from planner.valuation import BANKS, SPENDING, Decision, scale_of

INSTANCES, SAMPLE = 320, 40
CHOICES = 4000
MENUS = (
    ("own", "hash"),
    ("own", "mix"),
    ("hash", "lowrank"),
    ("own", "hash", "tie"),
    ("own", "interpolate", "lowrank"),
    ("own", "repeat"),
    ("mask", "mix"),
    MENU,
    GENERATORS,
)


def instance(seed):
    """Sites, evidence, budget and menu, small enough to try everything."""
    rng = np.random.default_rng(seed)
    while True:
        sites, names = [], []
        for number in range(int(rng.integers(2, 6))):
            shape = (int(rng.integers(3, 6)), int(rng.integers(4, 7)))
            std = (0.0, 0.1, 0.1, 0.2)[int(rng.integers(4))]
            copies = int(rng.integers(1, 4))
            role = f"r{number}"
            made = [f"{number}.{copy}" for copy in range(copies)]
            sites += [site_lists.weight(name, shape, std, role=role) for name in made]
            names.append(made)
        groups = []
        for number in range(int(rng.integers(1, 4))):
            inside = [made for made in names if number == 0 or rng.random() < 0.6]
            members = [name for made in inside for name in made]
            unlike = [u for made in inside for u in [float(rng.uniform(0, 0.4))] * len(made)]
            if members:
                groups.append(CandidateGroup(f"g{number}", tuple(members), tuple(unlike)))
        evidence = Evidence("manual", tuple(groups))
        menu = MENUS[int(rng.integers(len(MENUS)))]
        budget = int(site_lists.dense_count(sites) * rng.uniform(0.2, 1.6))
        problem = formulate(sites, evidence, menu)
        spaces = [possible(item) for item in problem.classes]
        if np.prod([float(len(space)) for space in spaces]) <= CHOICES:
            return sites, evidence, budget, menu


def possible(item):
    space = [(None, 0)] if item.may_own else []
    for option in item.options:
        least = 1 if item.may_own else len(item.sites)
        space += [(option, count) for count in range(least, len(item.sites) + 1)]
    return space


def optimum(problem, budget, spaces=None):
    """The greatest objective, or None where nothing is within the budget."""
    classes = problem.classes
    spaces = [possible(item) for item in classes] if spaces is None else spaces
    whole = sum(item.size * len(item.sites) for item in classes)
    each = min(a + b for a, b in SHARE) + VISIBLE[-1][1]
    own = [item.size * each + BONUS["own"] * max(item.size, whole // SMALL) for item in classes]
    bank = sum(value * len(item.sites) for value, item in zip(own, classes, strict=True)) // BANKS
    best = None
    for choices in itertools.product(*spaces):
        spent, value = problem.kept, 0
        members = {}
        for item, keeps, (option, count) in zip(classes, own, choices, strict=True):
            spent += item.size * (len(item.sites) - count)
            value += keeps * (len(item.sites) - count)
            if option is None:
                continue
            spent += option.cost * count + option.fixed
            value += option.value * count
            if option.group is None:
                value -= bank * (count if option.cost else 1)
            else:
                members.setdefault(option.group, []).append((item, option, count))
        # by[s]: the most that banks of s parameters together are worth.
        room = budget - spent
        if room < 0:
            continue
        by = np.full(room + 1, -np.inf)
        by[0] = 0
        for here in members.values():
            sizes, worths = bank_of(here, room)
            joined = np.full(room + 1, -np.inf)
            for size, one in zip(sizes, worths, strict=True):
                np.maximum(joined[size:], by[: room + 1 - size] + one - bank, out=joined[size:])
            by = joined
        total = (by + value + SPENDING * (spent + np.arange(room + 1))).max()
        if np.isfinite(total):
            best = int(total) if best is None else max(best, int(total))
    return best


def bank_of(here, room):
    """Sizes that a bank may have, and what each is worth to those that read it."""
    low = max(option.need for _, option, _ in here)
    low = max([low, *(item.size for item, _, count in here if count < len(item.sites))])
    high = min(sum(option.reads * count for _, option, count in here), room)
    high = min([high, *(option.room for _, option, _ in here if option.room is not None)])
    sizes = np.arange(low, high + 1)
    weight = sum(item.size * count for item, _, count in here)
    worths = np.min([a * sizes + b * weight for a, b in SHARE], axis=0)
    for item, _, count in here:
        seen = np.min([len(item.sites) * (a * sizes + b * item.size) for a, b in VISIBLE[:-1]], 0)
        worths = worths + np.minimum(seen, VISIBLE[-1][1] * item.size * count)
    return sizes, worths


@pytest.mark.parametrize(
    "seed",
    [
        pytest.param(seed, marks=() if seed < SAMPLE else (pytest.mark.slow, pytest.mark.optimal))
        for seed in range(INSTANCES)
    ],
)
def test_no_allocation_is_worth_more(seed):
    sites, evidence, budget, menu = instance(seed)
    problem = formulate(sites, evidence, menu)
    scale = scale_of(problem)
    assert scale.unit == 1
    expected = optimum(problem, budget)
    try:
        solution = allocate(sites, evidence, budget, generators=menu).solution
    except InfeasibleBudgetError:
        assert expected is None
        return
    assert solution.status == "OPTIMAL"
    assert solution.bound >= expected
    assert expected - scale.tolerance <= solution.objective <= expected


@pytest.mark.parametrize("seed", range(SAMPLE))
def test_prices_bound_the_optimum_from_any_start(seed):
    sites, evidence, budget, menu = instance(seed)
    problem = formulate(sites, evidence, menu)
    expected = optimum(problem, budget)
    if expected is None:
        return
    for start in starts(problem):
        bound = bound_of(problem, budget, scale_of(problem), start)
        if bound is not None:
            assert bound.value >= expected
            assert max(bound.forced.values()) <= bound.value


def starts(problem):
    """All that can share shares, in the first or the last of its options, at some size."""
    for place in (0, -1):
        for size in (5, 20, 60):
            choices = tuple(
                (place % len(item.options), len(item.sites)) if item.options else (None, 0)
                for item in problem.classes
            )
            used = {
                item.options[choice].group
                for item, (choice, _) in zip(problem.classes, choices, strict=True)
                if choice is not None
            }
            sizes = tuple(size * (group in used) for group in range(len(problem.groups)))
            yield Decision(choices, sizes)


@pytest.mark.parametrize("seed", range(0, SAMPLE, 2))
def test_what_is_left_out_is_worth_less(seed):
    """Prices of an optimal allocation: with a pair forced, no more than the bound for it."""
    sites, evidence, budget, menu = instance(seed)
    problem = formulate(sites, evidence, menu)
    if optimum(problem, budget) is None:
        return
    for start in starts(problem):
        bound = bound_of(problem, budget, scale_of(problem), start)
        if bound is None:
            continue
        for c, group in list(bound.forced)[:3]:
            found = forced(problem, c, group, budget)
            assert found is None or bound.forced[c, group] >= found
        break


def forced(problem, c, group, budget):
    """The optimum among allocations in which sites of class c read the bank of a group."""
    spaces = [possible(item) for item in problem.classes]
    spaces[c] = [one for one in spaces[c] if one[0] is not None and one[0].group == group]
    return optimum(problem, budget, spaces)
