"""Rules as allocators: valid, within budget, emitted, trained, and no better than the solver."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import planner
import reading
import site_lists
from models import MODELS
from planner.allocation import allocate
from planner.baselines import ALLOCATORS, BASELINES, allocate_by
from planner.baselines.groups import by_evidence, by_lot, repeated
from planner.errors import AllocationError, InfeasibleBudgetError, PlannerError
from planner.evidence import STD_WINDOW, grouped_evidence, shape_evidence, sigma
from planner.formulation import formulate
from planner.ir import MENU, Allocation, Bank, Placement, Solution
from planner.validation import check, parameter_count
from planner.valuation import scale_of

PERCENT = (1, 5, 10, 25, 50, 100, 200)
LISTS = {
    "wide_resnet": site_lists.wide_resnet,
    "bert": lambda: site_lists.bert(4, embedding_std=1.0),
}
FIXED = {"albert", "perceiver"}


def by_name(allocation):
    return {placement.site: placement for placement in allocation.placements}


def verify(sites, allocation):
    """The checker's word, then every element by hand: banks are read, no two sites are equal."""
    check(sites, allocation)
    for made, read in reading.banks(sites, allocation):
        assert read.all()
        scaled = [
            # A factor alone tells no two tensors apart.
            (site, one, tensor / np.linalg.norm(tensor) if one.count == 1 else tensor)
            for site, one, tensor in made
        ]
        for (a, placement, left), (b, _, right) in itertools.combinations(scaled, 2):
            # A tensor of one element is parallel to every other.
            if placement.generator != "tie" and a.size == b.size > 1:
                assert not np.allclose(left, right)
                assert not np.allclose(left, -right)


@pytest.fixture(scope="module", params=LISTS)
def listed(request):
    sites = LISTS[request.param]()
    return sites, shape_evidence(sites), site_lists.dense_count(sites)


@pytest.mark.parametrize("percent", PERCENT)
def test_every_rule_keeps_its_budget_and_the_solver_is_no_worse(listed, percent):
    sites, evidence, dense = listed
    budget = dense * percent // 100
    best = allocate(sites, evidence, budget).solution.objective
    for name in BASELINES:
        try:
            allocation = allocate_by(name, sites, evidence, budget)
        except InfeasibleBudgetError:
            assert name in FIXED
            continue
        check(sites, allocation)
        count = parameter_count(sites, allocation)
        assert count <= budget
        # Tying is of one size, and a ring is no larger than what reads it.
        if name not in FIXED and not (name == "ring" and percent > 100):
            assert count >= 0.999 * budget
        assert (allocation.solution.allocator, allocation.solution.status) == (name, "RULE")
        assert allocation.solution.objective <= best


@st.composite
def small_sites(draw):
    sites = []
    for index in range(draw(st.integers(1, 5))):
        shape = draw(st.tuples(st.integers(1, 20), st.integers(1, 20)))
        std = draw(st.sampled_from((0.0, 0.02, 0.05, 1.0)))
        dtype = draw(st.sampled_from(("float32", "float32", "float16")))
        owner = draw(st.sampled_from(("Linear", "Embedding")))
        role = f"Block.{draw(st.integers(0, 2))}"
        site = site_lists.weight("", shape, std, depth=index, role=role, dtype=dtype, owner=owner)
        site = replace(site, kept=draw(st.sampled_from((None, None, None, "a bias"))))
        sites += [
            replace(site, name=f"{index}.{copy}", repeat=copy)
            for copy in range(draw(st.integers(1, 5)))
        ]
    return sites


@settings(max_examples=60, deadline=None)
@given(
    small_sites(),
    st.sampled_from((0.03, 0.1, 0.4, 0.8, 1.0, 1.4, 2.0, 5.0)),
    st.sampled_from(BASELINES),
    st.integers(0, 3),
)
def test_rules_hold_element_by_element(sites, share, name, seed):
    budget = int(share * site_lists.dense_count(sites))
    evidence = shape_evidence(sites)
    try:
        allocation = allocate_by(name, sites, evidence, budget, seed=seed)
    except InfeasibleBudgetError as error:
        minimum = error.minimum
    else:
        verify(sites, allocation)
        assert parameter_count(sites, allocation) <= budget
        return
    assert minimum > budget
    least = allocate_by(name, sites, evidence, minimum, seed=seed)
    verify(sites, least)
    assert parameter_count(sites, least) == minimum
    with pytest.raises(InfeasibleBudgetError):
        allocate_by(name, sites, evidence, minimum - 1, seed=seed)


def test_one_template_is_told_apart_by_where_it_starts():
    sites = [site_lists.weight(name, (4, 3), 0.1) for name in "ab"]
    bank = Bank("x", 18, 2, 0.1, 4)
    single = {"bank": "x", "templates": 1, "count": 1, "stride": 12}
    apart = [Placement("a", "mix", "", **single)]
    apart.append(Placement("b", "mix", "", start=6, coefficient=1, **single))
    solved = Solution("by hand", "FEASIBLE", 0, 0)
    check(sites, Allocation(99, (bank,), tuple(apart), solved))
    same = (apart[0], replace(apart[1], start=0))
    with pytest.raises(AllocationError, match="the same tensor"):
        check(sites, Allocation(99, (replace(bank, size=12),), same, solved))


def test_a_tape_that_comes_back_starts_elsewhere():
    # Windows of 600 in a ring of 900 start at 0, 600, 300 and then at 0 again.
    sites = [site_lists.weight(f"w{index}", (20, 30), 0.1, role="w") for index in range(8)]
    allocation = allocate_by("single-group", sites, shape_evidence(sites), 900 + 8)
    assert {placement.templates for placement in allocation.placements} == {1}
    assert len({placement.start for placement in allocation.placements}) == 8
    verify(sites, allocation)


def test_templates_are_as_many_as_the_bank_holds_up_to_eight():
    sizes = {"a": (10, 10), "b": (20, 20), "c": (50, 60), "d": (90, 100)}
    sites = [site_lists.weight(name, shape, 0.1) for name, shape in sizes.items()]
    allocation = allocate_by("single-group", sites, shape_evidence(sites), 4000)
    (bank,) = allocation.banks
    placed = by_name(allocation)
    for name in "abc":
        site = next(site for site in sites if site.name == name)
        assert placed[name].generator == "mix"
        assert placed[name].templates == min(bank.size // site.size, 8)
    assert placed["d"].generator == "interpolate"


def test_uniform_gives_every_site_the_same_share():
    sites = site_lists.wide_resnet()
    for percent in (10, 300):
        budget = site_lists.dense_count(sites) * percent // 100
        allocation = allocate_by("uniform", sites, shape_evidence(sites), budget)
        placed, sizes = by_name(allocation), {bank.name: bank.size for bank in allocation.banks}
        shares = [
            sizes[placed[site.name].bank] / site.size for site in sites if placed[site.name].bank
        ]
        assert len(shares) == len(allocation.banks) == 29
        large = [share for share, bank in zip(shares, sizes, strict=True) if sizes[bank] > 10_000]
        assert max(large) / min(large) < 1.001


def test_a_ring_is_one_bank_and_hashed():
    sites = site_lists.bert(4)
    allocation = allocate_by("ring", sites, shape_evidence(sites), 5_000_000)
    assert len(allocation.banks) == 1
    assert {p.generator for p in allocation.placements} == {"own", "hash"}


def test_random_groups_are_drawn_by_the_seed():
    sites = site_lists.bert(4)
    evidence = shape_evidence(sites)
    assert by_lot(sites, evidence, 1) == by_lot(sites, evidence, 1) != by_lot(sites, evidence, 2)
    assert {len(group) for group in by_lot(sites, evidence, 1)} <= {6, 7}


def test_groups_of_the_evidence_are_few_and_apart():
    sites = site_lists.bert(4, embedding_std=1.0)
    groups = by_evidence(sites, shape_evidence(sites), 0)
    names = [name for group in groups for name in group]
    assert len(names) == len(set(names)) == 4 * 6 + 2
    assert sorted(len(group) for group in groups) == [2, 24]


def test_repeated_blocks_are_tied_and_embeddings_factorised():
    sites = site_lists.bert(6)
    dense, words = site_lists.dense_count(sites), next(s for s in sites if s.name == "words")
    evidence = shape_evidence(sites)
    albert = allocate_by("albert", sites, evidence, dense // 5)
    placed = by_name(albert)
    assert {placed[f"{block}.query"].bank for block in range(6)} == {placed["0.query"].bank}
    assert placed["0.query"].bank != placed["0.key"].bank
    rank = placed["words"].rank
    assert rank == placed["positions"].rank
    # One more would be too many.
    step = sum(words.matrix) + 512 + 1024
    assert parameter_count(sites, albert) <= dense // 5 < parameter_count(sites, albert) + step
    with pytest.raises(InfeasibleBudgetError) as caught:
        allocate_by("albert", sites, evidence, 1000)
    exact = allocate_by("albert", sites, evidence, caught.value.minimum)
    assert parameter_count(sites, exact) == caught.value.minimum
    assert by_name(exact)["words"].rank == 1

    perceiver = by_name(allocate_by("perceiver", sites, evidence, dense))
    assert perceiver["0.query"].generator == "own"
    assert len({perceiver[f"{block}.query"].bank for block in range(1, 6)}) == 1
    assert perceiver["words"].generator == "own"


def test_roles_that_no_block_names_repeat_by_their_places():
    root = [
        site_lists.weight(f"layers.{i}.{part}", (8, 8), 0.1, role=f"layers.{i}.{part}")
        for i in range(3)
        for part in ("up", "down")
    ]
    block = [site_lists.weight(f"b.mlp.{i}", (8, 8), 0.1, role=f"Block.mlp.{i}") for i in (0, 2)]
    groups = repeated([*root, *block])
    assert groups == [[f"layers.{i}.{part}" for i in range(3)] for part in ("up", "down")]


def test_importance_does_not_untie():
    sites = site_lists.bert(4)
    uneven = tuple((f"{block}.query", 1.0 + block) for block in range(4))
    evidence = replace(shape_evidence(sites), importance=uneven)
    placed = by_name(allocate_by("albert", sites, evidence, site_lists.dense_count(sites) // 2))
    assert {placed[f"{block}.query"].bank for block in range(4)} == {placed["0.query"].bank}


def test_groups_are_priced_as_shape_evidence_prices_them():
    for make in LISTS.values():
        sites = make()
        evidence = shape_evidence(sites)
        priced = grouped_evidence(sites, [group.members for group in evidence.groups], evidence)
        for one, other in zip(evidence.groups, priced.groups, strict=True):
            assert one.members == other.members
            assert one.dissimilarity == pytest.approx(other.dissimilarity, abs=1e-3)


def test_what_lies_outside_the_window_has_the_greatest_price():
    sites = [site_lists.weight(f"w{i}", (8, 8), std) for i, std in enumerate((0.1, 0.15, 0.3, 1.0))]
    (pair,) = grouped_evidence(sites, [["w0", "w1"]], shape_evidence(sites)).groups
    assert max(pair.dissimilarity) < 0.2
    (whole,) = grouped_evidence(sites, [["w0", "w1", "w2", "w3"]], shape_evidence(sites)).groups
    middle = (0.1 * 1.0) ** 0.5
    for site, unlike in zip(sites, whole.dissimilarity, strict=True):
        ratio = max(sigma(site) / middle, middle / sigma(site))
        assert (unlike == 1.0) == (ratio > STD_WINDOW**0.5)


def test_objectives_have_one_unit():
    sites = site_lists.dense_net()
    evidence = shape_evidence(sites)
    scale = scale_of(formulate(sites, evidence, MENU))
    for groups in ([[site.name for site in sites if site.kept is None]],):
        priced = grouped_evidence(sites, groups, evidence)
        assert scale_of(formulate(sites, priced, ("own", "mix"))) == scale


@pytest.mark.parametrize("name", BASELINES)
def test_what_a_rule_plans_is_emitted_and_trains(name, plans):
    budget = "60%" if name in FIXED else "10%"
    model = MODELS["transformer_lm"]
    plan = plans("transformer_lm", budget, allocator=name, verify=False)
    assert plan.allocation.solution.allocator == name
    assert planner.Plan.from_json(plan.to_json()) == plan
    built = plans.module(plan).build()
    emitted = sum(one.numel() for one in built.parameters())
    assert emitted == plan.parameter_count <= plan.budget_parameters
    torch.manual_seed(0)
    optimiser = torch.optim.AdamW(built.parameter_groups(0.01), lr=1e-3)
    missing = {n: torch.ones_like(p, dtype=torch.bool) for n, p in built.banks.named_parameters()}
    losses = []
    (ids,) = model.inputs(8)
    for _ in range(3):
        loss = torch.nn.functional.cross_entropy(built(ids).flatten(0, 1), ids.flatten())
        optimiser.zero_grad()
        loss.backward()
        for n, p in built.banks.named_parameters():
            missing[n] &= p.grad == 0
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    # Rows of words that do not occur get no gradient in the dense model either.
    looked_up = {p.bank for p in plan.allocation.placements if p.site == "tokens.weight" and p.bank}
    left = {n for n, one in missing.items() if one.any()}
    assert {n.split(".")[0] for n in left} <= looked_up
    dense = built.dense_state_dict()
    model.original().load_state_dict(dense)


def test_a_rule_has_a_menu_of_its_own_and_keeps_no_constraints():
    pin = (planner.constraints.Pin("1.weight", "own"),)
    with pytest.raises(PlannerError, match="keeps no constraints"):
        MODELS["mlp"].plan("50%", allocator="ring", constraints=pin)
    with pytest.raises(PlannerError, match="leave generators out"):
        MODELS["mlp"].plan("50%", allocator="ring", generators=("hash",))
    with pytest.raises(PlannerError, match="'rings' is not one of cp-sat, uniform"):
        MODELS["mlp"].plan("50%", allocator="rings")
    assert ("cp-sat", *BASELINES) == ALLOCATORS
