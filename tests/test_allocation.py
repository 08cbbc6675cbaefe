import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import reading
import site_lists
from benchmarks.budgets import faults
from planner.allocation import allocate
from planner.construction import _fill
from planner.errors import AllocationError, InfeasibleBudgetError
from planner.evidence import shape_evidence, sigma
from planner.formulation import (
    BONUS,
    DISSIMILARITY,
    SHARE,
    SMALL,
    TEMPLATES,
    VISIBLE,
    formulate,
    templates_value,
)
from planner.ir import GENERATORS, MENU, Allocation, CandidateGroup, Evidence, Solution
from planner.placement import _hash, hash_reads, place
from planner.validation import check, parameter_count
from planner.valuation import BANKS, SPENDING, Decision, scale_of, worth


def allocated(sites, budget, **options):
    return allocate(sites, shape_evidence(sites), budget, **options)


def by_generator(allocation):
    return {placement.generator for placement in allocation.placements}


@st.composite
def site_list(draw, largest=24):
    sites = []
    for index in range(draw(st.integers(1, 6))):
        shape = draw(
            st.sampled_from([(8,), (1, 1, 5), ()])
            | st.tuples(st.integers(1, largest), st.integers(1, largest))
        )
        std = draw(st.sampled_from((0.0, 0.02, 0.05, 1.0)))
        dtype = draw(st.sampled_from(("float32", "float32", "float16")))
        kind = draw(st.sampled_from(("shared", "shared", "shared", "kept", "frozen")))
        site = site_lists.weight("", shape, std, depth=index, role="w", dtype=dtype)
        if kind == "kept":
            site = replace(site, kept="a bias")
        site = replace(site, trainable=kind != "frozen")
        copies = draw(st.integers(1, 4))
        sites += [replace(site, name=f"{index}.{copy}", repeat=copy) for copy in range(copies)]
    return sites


budgets = st.sampled_from((0.03, 0.1, 0.3, 0.5, 0.8, 0.95, 1.0, 1.3, 2.0, 4.0))
SOLVED = Solution("by hand", "FEASIBLE", 0, 0)
QUICK = {"deterministic_limit": 0.3}


def verify(sites, allocation):
    """The checker's word, then every element by hand."""
    check(sites, allocation)
    assert parameter_count(sites, allocation) <= allocation.budget
    for made, read in reading.banks(sites, allocation):
        assert all(tensor.size == site.size for site, _, tensor in made)
        assert read.all()
        for (a, placement, left), (b, _, right) in itertools.combinations(made, 2):
            if placement.generator != "tie" and a.size == b.size:
                assert not np.allclose(left, right)


@settings(max_examples=60, deadline=None)
@given(site_list(), budgets, st.sampled_from((MENU, GENERATORS)))
def test_solutions_hold_element_by_element(sites, share, menu):
    budget = int(share * site_lists.dense_count(sites))
    try:
        allocation = allocated(sites, budget, generators=menu, **QUICK)
    except InfeasibleBudgetError:
        return
    verify(sites, allocation)


@settings(max_examples=15, deadline=None)
@given(site_list(), st.sampled_from((*GENERATORS, "default")))
def test_the_least_budget_is_exact(sites, generator):
    menu = MENU if generator == "default" else (generator,)
    assume(any(site.trainable for site in sites))
    with pytest.raises(InfeasibleBudgetError) as caught:
        allocated(sites, 0, generators=menu, **QUICK)
    minimum = caught.value.minimum
    allocation = allocated(sites, minimum, generators=menu, **QUICK)
    assert parameter_count(sites, allocation) == minimum
    verify(sites, allocation)
    with pytest.raises(InfeasibleBudgetError) as caught:
        allocated(sites, minimum - 1, generators=menu, **QUICK)
    assert (caught.value.budget, caught.value.minimum) == (minimum - 1, minimum)


@settings(max_examples=20, deadline=None)
@given(site_list(), budgets, budgets)
def test_a_larger_budget_never_lowers_the_optimum(sites, one, other):
    dense = site_lists.dense_count(sites)
    try:
        results = [
            allocated(sites, int(share * dense), **QUICK).solution for share in sorted((one, other))
        ]
    except InfeasibleBudgetError:
        assume(False)
    assume(all(solution.status == "OPTIMAL" for solution in results))
    tolerance = scale_of(formulate(sites, shape_evidence(sites), MENU)).tolerance
    assert results[1].objective >= results[0].objective - tolerance


@settings(max_examples=15, deadline=None)
@given(site_list(), budgets)
def test_names_do_not_change_the_objective(sites, share):
    budget = int(share * site_lists.dense_count(sites))
    renamed = [replace(site, name=f"z{len(sites) - index}") for index, site in enumerate(sites)]
    try:
        first = allocated(sites, budget, **QUICK)
    except InfeasibleBudgetError:
        return
    assert allocated(renamed, budget, **QUICK).solution == first.solution


def brute_force(problem, budget):
    """The best objective over all choices, counts and sizes, from the tables themselves."""
    best = None
    spaces = []
    for item in problem.classes:
        space = [(None, 0)]
        for option in item.options:
            space += [(option, count) for count in range(1, len(item.sites) + 1)]
        spaces.append(space)
    for choices in itertools.product(*spaces):
        groups = sorted({o.group for o, _ in choices if o is not None and o.group is not None})
        spans = []
        for group in groups:
            here = [
                (item, o, k)
                for item, (o, k) in zip(problem.classes, choices, strict=True)
                if o is not None and o.group == group
            ]
            low = max(o.need for _, o, _ in here)
            low = max([low, *(item.size for item, _, k in here if k < len(item.sites))])
            high = min(sum(o.reads * k for _, o, k in here), budget)
            high = min([high, *(o.room for _, o, _ in here if o.room is not None)])
            spans.append(range(low, high + 1))
        fixed, value = problem.kept, 0
        for item, (option, count) in zip(problem.classes, choices, strict=True):
            fixed += item.size * (len(item.sites) - count)
            value += own_value(problem, item) * (len(item.sites) - count)
            if option is not None:
                fixed += option.cost * count + option.fixed
                value += option.value * count
        for sizes in itertools.product(*spans):
            spent = fixed + sum(sizes)
            if spent > budget:
                continue
            total = value + SPENDING * spent
            for group, size in zip(groups, sizes, strict=True):
                weight = 0
                for item, (option, count) in zip(problem.classes, choices, strict=True):
                    if option is not None and option.group == group:
                        weight += item.size * count
                        seen = min(
                            len(item.sites) * (slope * size + intercept * item.size)
                            for slope, intercept in VISIBLE[:-1]
                        )
                        total += min(seen, VISIBLE[-1][1] * item.size * count)
                total += min(slope * size + intercept * weight for slope, intercept in SHARE)
            total -= bank_cost(problem) * (
                len(groups)
                + sum((k if o.cost else 1) for o, k in choices if o is not None and o.group is None)
            )
            best = total if best is None else max(best, total)
    return best


def own_value(problem, item):
    whole = sum(other.size * len(other.sites) for other in problem.classes)
    worth = min(slope + intercept for slope, intercept in SHARE) + VISIBLE[-1][1]
    return item.size * worth + BONUS["own"] * max(item.size, whole // SMALL)


def bank_cost(problem):
    return sum(own_value(problem, item) * len(item.sites) for item in problem.classes) // BANKS


@pytest.mark.parametrize("seed", range(12))
def test_no_choice_beats_the_solver(seed):
    rng = np.random.default_rng(seed)
    shapes = [(int(rng.integers(4, 6)), int(rng.integers(4, 7))) for _ in range(2)]
    sites = []
    for index, shape in enumerate(shapes):
        std = 0.0 if seed % 4 == 3 and index == 0 else 0.1 * (index + 1)
        sites += [
            site_lists.weight(f"{index}.{copy}", shape, std, role="w")
            for copy in range(1 + (seed + index) % 2)
        ]
    names = tuple(site.name for site in sites)
    first = tuple(name for name in names if name.startswith("0"))
    evidence = Evidence(
        "manual",
        (
            CandidateGroup("all", names, tuple(float(x) for x in rng.uniform(0, 0.4, len(names)))),
            CandidateGroup("first", first, (0.0,) * len(first)),
        ),
    )
    menu = (("own", "hash", "mix"), MENU, GENERATORS, ("own", "mask", "repeat", "mix"))[seed % 4]
    dense = site_lists.dense_count(sites)
    budget = int(dense * (0.35, 0.6, 0.9, 1.3)[(seed // 4 + seed) % 4])
    compare(sites, evidence, budget, menu)


@pytest.mark.parametrize("budget", [40, 55, 60, 65, 70])
def test_no_choice_beats_the_solver_where_a_class_may_be_split(budget):
    sites = [site_lists.weight(f"w{copy}", (5, 5), 0.1, role="w") for copy in range(3)]
    compare(sites, shape_evidence(sites), budget, ("own", "hash"))


def compare(sites, evidence, budget, menu):
    problem = formulate(sites, evidence, menu)
    assert scale_of(problem).unit == 1
    solution = allocate(sites, evidence, budget, generators=menu).solution
    expected = brute_force(problem, budget)
    assert solution.status == "OPTIMAL"
    assert expected - scale_of(problem).tolerance <= solution.objective <= expected


def test_two_calls_give_the_same_allocation():
    sites = site_lists.wide_resnet()
    first, second = (allocated(sites, 3_000_000, seed=7) for _ in range(2))
    assert repr(first) == repr(second)
    assert repr(first) != repr(allocated(sites, 3_000_000, seed=8))


REALISTIC = {
    "wide_resnet": site_lists.wide_resnet,
    "bert": site_lists.bert,
    "dense_net": site_lists.dense_net,
}


@pytest.mark.parametrize("percent", [1, 10, 50, 99.5, 100, 101, 200, 400])
@pytest.mark.parametrize("model", REALISTIC)
def test_realistic_models_use_their_budget(model, percent):
    sites = REALISTIC[model]()
    dense = site_lists.dense_count(sites)
    budget = int(dense * percent / 100)
    allocation = allocated(sites, budget)
    count = parameter_count(sites, allocation)
    assert 0.999 * budget <= count <= budget
    solution = allocation.solution
    assert solution.gap <= 0.01
    if percent <= 100:
        # Within the cost of a bank. Above the dense count the limit may end the search before.
        cost = scale_of(formulate(sites, shape_evidence(sites), MENU)).bank
        assert solution.bound - solution.objective <= cost
    assert len(allocation.banks) <= 12
    if percent == 100:
        assert count == dense
        assert by_generator(allocation) == {"own"}


@pytest.mark.parametrize("share", [0.05, 0.1, 0.2])
def test_the_rules_size_banks_as_well_as_any_sizes(share):
    sites = [
        site_lists.weight(f"{shape}.{copy}", shape, 0.1, role="w")
        for shape, copies in {(24, 24): 1, (8, 8): 8}.items()
        for copy in range(copies)
    ]
    names = [site.name for site in sites]
    groups = [("one", names[:1]), ("rest", names[1:])]
    evidence = Evidence(
        "manual",
        tuple(CandidateGroup(name, tuple(some), (0.0,) * len(some)) for name, some in groups),
    )
    problem = formulate(sites, evidence, ("hash",))
    scale, budget = scale_of(problem), int(share * site_lists.dense_count(sites))
    choices = tuple((0, len(item.sites)) for item in problem.classes)
    found = _fill(problem, choices, budget)
    one, rest = (sum(site.size for site in some) for some in (sites[:1], sites[1:]))
    best = max(
        worth(problem, Decision(choices, (first, min(rest, budget - first))), scale)
        for first in range(16, min(one, budget - 16) + 1)
    )
    # A kink between two sizes is rounded to one of them.
    assert worth(problem, found, scale) >= 0.9999 * best


def test_a_tenth_of_a_wide_resnet_is_few_large_banks_and_small_layers_of_their_own():
    sites = site_lists.wide_resnet()
    allocation = allocated(sites, site_lists.dense_count(sites) // 10)
    placed = {placement.site: placement for placement in allocation.placements}
    assert placed["conv1"].generator == "own"
    assert len(allocation.banks) <= 4
    large = [bank.size for bank in allocation.banks if bank.size > 1_000_000]
    assert sum(large) > 0.95 * allocation.budget


@pytest.mark.parametrize("percent", [151, 190, 205, 240, 300, 405, 445, 600, 805, 845, 1500])
def test_any_surplus_can_be_used(percent):
    sites = [site_lists.weight("w", (64, 64), 0.1)]
    allocation = allocated(sites, 4096 * percent // 100)
    assert parameter_count(sites, allocation) == allocation.budget
    verify(sites, allocation)


def test_budgets_from_the_least_on_are_used_and_worth_more():
    assert faults(site_lists.bert(4), 8) == []


def test_templates_of_the_menu_leave_no_size_out():
    for below, above in itertools.pairwise(TEMPLATES):
        assert (above + 1) / 2 <= below or above - below == 1
        for between in range(below, above + 1):
            ends = TEMPLATES[below], TEMPLATES[above]
            assert min(ends) <= templates_value(between) <= max(ends)
    assert templates_value(1) + BONUS["mix"] == BONUS["hash"]


def test_embeddings_at_another_scale_keep_to_themselves():
    sites = site_lists.bert(4, embedding_std=1.0)
    allocation = allocated(sites, site_lists.dense_count(sites) // 10)
    placed = {placement.site: placement for placement in allocation.placements}
    assert placed["words"].bank != placed["0.query"].bank


def test_planning_hundreds_of_billions_does_not_overflow():
    sites = site_lists.bert(118, width=16384, words=128256)
    dense = site_lists.dense_count(sites)
    assert dense > 3.5e11
    for percent in (1, 100, 400):
        allocation = allocated(sites, dense * percent // 100)
        assert 0.999 * allocation.budget <= parameter_count(sites, allocation) <= allocation.budget


@pytest.mark.parametrize("generator", [name for name in GENERATORS if name != "own"])
def test_each_generator_can_be_asked_for(generator):
    sites = [site_lists.weight(f"w{index}", (40, 30), 0.1, role="w") for index in range(4)]
    sites.append(site_lists.weight("odd", (17, 90), 0.1))
    dense = site_lists.dense_count(sites)
    menu = ("own", "tie") if generator == "tie" else (generator,)
    allocation = allocated(sites, dense // 2 if generator != "mix" else 2 * dense, generators=menu)
    assert generator in by_generator(allocation)
    assert allocation.generators == menu
    verify(sites, allocation)


@pytest.mark.parametrize("generator", ["mix", "interpolate"])
@pytest.mark.parametrize("shape", [(1,), (2,), (3,), (2, 2), (16, 2), (1, 9), (40, 25)])
def test_templates_differ_and_read_the_whole_ring(shape, generator):
    site = site_lists.weight("w", shape, 0.1)
    evidence = shape_evidence([site])
    problem = formulate([site], evidence, (generator,))
    for number, option in enumerate(problem.classes[0].options):
        most = option.reads if option.room is None else option.room
        for size in {option.need, option.need + 1, (option.need + most) // 2, most}:
            # As the solver might decide: the only group's bank has this size.
            decision = Decision(((number, 1),), (size,))
            (bank,), (placement,) = place([site], evidence, problem, decision, seed=0)
            starts = [int(where[0]) for where in reading.indices(site, placement, bank)]
            assert len(set(starts)) == option.parameter
            read = {int(i) for where in reading.indices(site, placement, bank) for i in where}
            assert read == set(range(size))


@pytest.mark.parametrize("generator", ["repeat", "mask"])
@pytest.mark.parametrize("size", [3, 17, 100, 96_000, 96_001])
def test_every_coefficient_of_a_tile_is_read(size, generator):
    site = site_lists.weight("w", (size,), 0.0)
    evidence = shape_evidence([site])
    problem = formulate([site], evidence, (generator,))
    for number, option in enumerate(problem.classes[0].options):
        for bank_size in {option.need, option.room}:
            decision = Decision(((number, 1),), (bank_size,))
            (bank,), (placement,) = place([site], evidence, problem, decision, seed=0)
            assert bank.coefficients == option.cost
            budget = bank.size + bank.coefficients
            check([site], Allocation(budget, (bank,), (placement,), SOLVED))
            one = reading.tensor(site, placement, bank, np.ones(bank.size), np.arange(option.cost))
            assert {*one} == {*range(option.cost)}


def test_tensors_that_start_at_zero_start_at_zero():
    sites = [site_lists.weight(f"w{index}", (64, 64), 0.0, role="w") for index in range(6)]
    allocation = allocated(sites, site_lists.dense_count(sites) // 5)
    shared = [placement for placement in allocation.placements if placement.bank]
    assert shared
    for placement in shared:
        assert placement.generator in {"mix", "repeat", "mask"}
        assert placement.zero
    verify(sites, allocation)


@pytest.mark.parametrize("generator", ["mix", "hash", "repeat", "mask", "interpolate", "lowrank"])
def test_generated_tensors_have_their_sites_deviation(generator):
    sites = [site_lists.weight(f"w{index}", (90, 80), 0.05, role="w") for index in range(3)]
    sites.append(site_lists.weight("odd", (60, 150), 0.02))
    budget = site_lists.dense_count(sites) * (3 if generator == "mix" else 1) // 2
    allocation = allocated(sites, budget, generators=(generator,))
    banks = {bank.name: bank for bank in allocation.banks}
    rng = np.random.default_rng(0)
    for site, placement in zip(sites, allocation.placements, strict=True):
        assert placement.generator == generator
        bank = banks[placement.bank]
        measured = []
        for _ in range(20):
            coefficients = rng.choice((-1.0, 1.0), size=bank.coefficients)
            if generator in {"mix", "interpolate"}:
                coefficients /= math.sqrt(placement.count)
            values = bank.std * rng.normal(size=bank.size)
            made = reading.tensor(site, placement, bank, values, coefficients)
            measured.append((placement.scale * made).var())
        assert math.sqrt(np.mean(measured)) == pytest.approx(sigma(site), rel=0.05)
        assert placement.step <= 1


def test_own_sites_say_why():
    sites = [
        site_lists.vector("bias", 8),
        replace(site_lists.weight("frozen", (4, 4), 0.1), trainable=False),
        site_lists.weight("w", (40, 40), 0.1),
    ]
    allocation = allocated(sites, 1608)
    reasons = [placement.reason for placement in allocation.placements]
    assert reasons[0] == "a bias"
    assert "not trained" in reasons[1]
    assert reasons[2].startswith("the solver keeps it")
    assert parameter_count(sites, allocation) == 1608


def test_a_class_can_be_split():
    sites = [site_lists.weight(f"w{index}", (64, 64), 0.1, role="w") for index in range(10)]
    allocation = allocated(sites, site_lists.dense_count(sites) * 9 // 10)
    generators = [placement.generator for placement in allocation.placements]
    assert 0 < generators.count("own") < 10


def test_hashes_read_different_sequences_while_there_are_any():
    # With one chunk in the ring, four signs make sixteen tensors.
    site, seen = site_lists.weight("w", (4, 4), 0.1), set()
    placements = [_hash(site, index, 0, 1, 4, 0.1, 0, seen) for index in range(16)]
    sequences = {tuple(hash_reads(0, p.stride, p.seed, 1, 4)) for p in placements}
    assert len(sequences) == 16


def test_sites_that_read_a_whole_ring_see_it_from_different_places():
    sites = [site_lists.weight(f"w{index}", (64, 64), 0.1, role="w") for index in range(6)]
    allocation = allocated(sites, 3 * 4096, generators=("mix",))
    starts = [placement.start for placement in allocation.placements]
    assert len(set(starts)) == 6


def test_importance_decides_who_keeps_its_own():
    sites = [site_lists.weight(name, (64, 64), 0.1, role="w") for name in "abcd"]
    evidence = replace(shape_evidence(sites), importance=(("c", 3.0),))
    allocation = allocate(sites, evidence, site_lists.dense_count(sites) * 7 // 10)
    own = [p.site for p in allocation.placements if p.generator == "own"]
    assert "c" in own
    assert len(own) < 4


@pytest.mark.parametrize(
    ("groups", "fault"),
    [
        ([("g", ("a", "nobody"))], "nobody"),
        ([("g", ("a", "a"))], "twice"),
        ([("g", ("a", "half"))], "dtype"),
    ],
)
def test_evidence_that_does_not_fit_is_refused(groups, fault):
    sites = [
        site_lists.weight("a", (8, 8), 0.1),
        site_lists.weight("half", (8, 8), 0.1, dtype="float16"),
    ]
    evidence = Evidence(
        "manual",
        tuple(CandidateGroup(name, members, (0.0,) * len(members)) for name, members in groups),
    )
    with pytest.raises(AllocationError, match=fault):
        allocate(sites, evidence, 100)


def test_unknown_generators_are_refused():
    sites = [site_lists.weight("a", (8, 8), 0.1)]
    with pytest.raises(AllocationError, match="magic"):
        allocate(sites, shape_evidence(sites), 100, generators=("magic",))


def test_tables_are_concave_and_continuous():
    for table, kinks in ((SHARE, len(SHARE) - 1), (VISIBLE, 3)):
        slopes = [slope for slope, _ in table]
        intercepts = [intercept for _, intercept in table]
        assert slopes == sorted(slopes, reverse=True)
        assert intercepts == sorted(intercepts)
        crossings = [(b1 - b0) / (a0 - a1) for (a0, b0), (a1, b1) in itertools.pairwise(table)]
        assert crossings == sorted(crossings)
        assert len(crossings) == kinks
    whole = min(slope + intercept for slope, intercept in SHARE)
    for share in (1 / 256, 1 / 64, 1 / 16, 1 / 4, 1 / 2, 3 / 4, 1):
        value = min(slope * share + intercept for slope, intercept in SHARE)
        expected = 1000 * math.log(1 + 50 * share) / math.log(51) - 1000
        assert value - whole == pytest.approx(expected, abs=2)
    assert max(TEMPLATES.values()) + BONUS["mix"] < BONUS["own"]
    assert VISIBLE[-1][1] < DISSIMILARITY
