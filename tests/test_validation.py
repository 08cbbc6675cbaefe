import ast
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

import planner.validation
import reading
import site_lists
from planner.allocation import allocate
from planner.errors import AllocationError
from planner.evidence import shape_evidence
from planner.ir import Allocation, Bank, Placement, Solution
from planner.validation import check, parameter_count

SOLVED = Solution("by hand", "FEASIBLE", 0, 0)


def allocation_of(banks, placements, budget=10**9):
    return Allocation(budget, tuple(banks), tuple(placements), SOLVED)


def mixed():
    """Two sites of 12 that mix 2 windows of a bank of 24, one that keeps its own, one hash."""
    sites = [site_lists.weight(name, (3, 4), 0.1) for name in "ab"]
    sites += [site_lists.weight("own", (5,), 0.1), site_lists.weight("hash", (8, 8), 0.1)]
    sites.append(site_lists.weight("other", (8, 8), 0.1))
    mix = {"bank": "x", "templates": 2, "stride": 12, "count": 2}
    placements = [
        Placement("a", "mix", "", start=0, coefficient=2, **mix),
        Placement("b", "mix", "", start=6, coefficient=0, **mix),
        Placement("own", "own", ""),
        Placement("hash", "hash", "", bank="x", start=1, stride=5, seed=9),
        Placement("other", "hash", "", bank="x", start=2, stride=1, seed=11),
    ]
    return sites, allocation_of([Bank("x", 24, 4, 0.1, 4)], placements, budget=33)


def changed(allocation, name, /, **fields):
    return replace(
        allocation,
        placements=tuple(
            replace(item, **fields) if item.site == name else item for item in allocation.placements
        ),
    )


def bank_changed(allocation, **fields):
    return replace(allocation, banks=(replace(allocation.banks[0], **fields),))


def test_a_valid_allocation_passes_and_is_counted():
    sites, allocation = mixed()
    check(sites, allocation)
    assert parameter_count(sites, allocation) == 24 + 4 + 5


CORRUPTIONS = {
    "budget": lambda a: replace(a, budget=32),
    "missing site": lambda a: replace(a, placements=a.placements[1:]),
    "site twice": lambda a: replace(a, placements=(*a.placements, a.placements[0])),
    "other order": lambda a: replace(a, placements=a.placements[::-1]),
    "unknown site": lambda a: changed(a, "a", site="c"),
    "unknown bank": lambda a: changed(a, "a", bank="y"),
    "no bank": lambda a: changed(a, "a", bank=None),
    "own with a bank": lambda a: changed(a, "own", bank="x"),
    "bank twice": lambda a: replace(a, banks=a.banks * 2),
    "idle bank": lambda a: replace(a, banks=(*a.banks, Bank("y", 1, 0, 0.1, 4))),
    "no size": lambda a: bank_changed(a, size=0),
    "no chunk": lambda a: bank_changed(a, chunk=0),
    "std of zero": lambda a: bank_changed(a, std=0.0),
    "std not a number": lambda a: bank_changed(a, std=float("nan")),
    "bank below a window": lambda a: bank_changed(a, size=11),
    "coefficients left over": lambda a: bank_changed(a, coefficients=5),
    "coefficients too few": lambda a: bank_changed(a, coefficients=3),
    "coefficients overlap": lambda a: changed(a, "a", coefficient=1),
    "coefficients with a gap": lambda a: changed(
        bank_changed(a, coefficients=5), "a", coefficient=3
    ),
    "coefficients of a hash": lambda a: changed(a, "hash", count=1),
    "count": lambda a: changed(a, "a", count=3),
    "one template": lambda a: changed(a, "a", templates=1, count=1),
    "stride of a mix": lambda a: changed(a, "a", stride=0),
    "stride of a mix once around the ring": lambda a: changed(a, "a", stride=24),
    "start beyond the ring": lambda a: changed(a, "a", start=24),
    "start below the ring": lambda a: changed(a, "a", start=-1),
    "start of a hash beyond the chunks": lambda a: changed(a, "hash", start=6),
    "stride not coprime": lambda a: changed(a, "hash", stride=3),
    "stride of a hash": lambda a: changed(a, "hash", stride=0),
    "seed": lambda a: changed(a, "hash", seed=-1),
    "scale of zero": lambda a: changed(a, "a", scale=0.0),
    "scale not a number": lambda a: changed(a, "a", scale=float("nan")),
    "mean": lambda a: changed(a, "a", mean=float("inf")),
    "step of zero": lambda a: changed(a, "a", step=0.0),
    "step above one": lambda a: changed(a, "a", step=1.5),
    "zero": lambda a: changed(a, "a", zero=True),
    "interpolate though the bank is larger": lambda a: changed(
        a, "a", generator="interpolate", rows=2, columns=2
    ),
    "repeat though the bank is larger": lambda a: changed(a, "a", generator="repeat"),
    "lowrank": lambda a: changed(a, "a", generator="lowrank", rank=1, count=0),
    "tie": lambda a: changed(a, "a", generator="tie", count=0),
    "the same hash": lambda a: changed(a, "other", start=1, stride=5, seed=9),
}


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_corrupted_allocations_are_refused(name):
    sites, allocation = mixed()
    with pytest.raises(AllocationError):
        check(sites, CORRUPTIONS[name](allocation))


@pytest.mark.parametrize("change", [{"kept": "a norm"}, {"trainable": False}, {"dtype": "float16"}])
def test_sites_that_must_not_share_are_refused(change):
    sites, allocation = mixed()
    with pytest.raises(AllocationError):
        check([replace(sites[0], **change), *sites[1:]], allocation)


def test_a_constant_tensor_needs_coefficients_that_start_at_zero():
    sites, allocation = mixed()
    zero = [site_lists.weight("a", (3, 4), 0.0), *sites[1:]]
    with pytest.raises(AllocationError):
        check(zero, allocation)
    check(zero, changed(allocation, "a", zero=True))
    with pytest.raises(AllocationError):
        check([*sites[:4], site_lists.weight("other", (8, 8), 0.0)], allocation)


def test_tied_and_low_rank_sites_have_their_banks_to_themselves():
    sites = [site_lists.weight(name, (6, 6), 0.1) for name in "ab"]
    tie = [Placement(name, "tie", "", bank="x") for name in "ab"]
    check(sites, allocation_of([Bank("x", 36, 0, 0.1, 4)], tie))
    with pytest.raises(AllocationError):
        check(sites, allocation_of([Bank("x", 37, 0, 0.1, 4)], tie))
    mix = Placement("b", "mix", "", bank="x", templates=2, stride=1, count=2)
    with pytest.raises(AllocationError):
        check(sites, allocation_of([Bank("x", 36, 2, 0.1, 4)], [tie[0], mix]))
    low = [Placement(name, "lowrank", "", bank="x", rank=1) for name in "ab"]
    check(sites[:1], allocation_of([Bank("x", 12, 0, 0.1, 4)], low[:1]))
    for banks, placements in (
        ([Bank("x", 12, 0, 0.1, 4)], low),
        ([Bank("x", 13, 0, 0.1, 4)], low[:1]),
        ([Bank("x", 36, 0, 0.1, 4)], [replace(low[0], rank=3)]),
    ):
        with pytest.raises(AllocationError):
            check(sites[: len(placements)], allocation_of(banks, placements))


def upsampled(generator, **fields):
    sites = [site_lists.weight("a", (6, 6), 0.1)]
    placement = Placement("a", generator, "", bank="x", **fields)
    check(sites, allocation_of([Bank("x", 10, placement.count, 0.1, 4)], [placement]))


def test_upsampling_needs_its_windows():
    resized = {"templates": 2, "count": 2, "rows": 2, "columns": 3}
    upsampled("interpolate", stride=4, **resized)
    upsampled("repeat", count=4)
    upsampled("mask", count=12)
    for generator, fields in (
        ("interpolate", {"stride": 3, **resized}),  # parameter 9 is not read
        ("interpolate", {"stride": 4, **resized, "rows": 7}),
        ("interpolate", {"stride": 4, **resized, "columns": 6}),
        ("interpolate", {"stride": -4, **resized}),
        ("interpolate", {"stride": 0, **resized, "columns": 5}),  # one template, twice
        ("interpolate", {"stride": 10, **resized, "columns": 5}),
        ("repeat", {"count": 3}),  # windows longer than the ring
        ("repeat", {"count": 10}),  # nine windows of 4 are enough
        ("mask", {"count": 37}),
        ("mask", {"count": 0}),
    ):
        with pytest.raises(AllocationError):
            upsampled(generator, **fields)


@settings(max_examples=300, deadline=None)
@given(
    size=st.integers(1, 60),
    chunk=st.sampled_from((1, 4, 16)),
    hashes=st.lists(
        st.tuples(st.integers(1, 40), st.integers(0, 59), st.integers(0, 99)), max_size=4
    ),
    mixes=st.lists(
        st.tuples(st.integers(1, 12), st.integers(0, 59), st.integers(1, 20), st.integers(2, 3)),
        max_size=3,
    ),
)
@example(size=33, chunk=4, hashes=[(32, 1, 0)], mixes=[(1, 1, 1, 3)])
def test_coverage_is_judged_as_element_by_element(size, chunk, hashes, mixes):
    """Whatever the checker says of unread parameters is what reading every element shows."""
    bank = Bank("x", size, 0, 0.1, chunk)
    chunks = -(-size // chunk)
    sites, placements, offset = [], [], 0
    for index, (elements, start, seed) in enumerate(hashes):
        sites.append(site_lists.weight(f"h{index}", (elements,), 0.1))
        placements.append(
            Placement(f"h{index}", "hash", "", bank="x", start=start % chunks, stride=1, seed=seed)
        )
    for index, (elements, start, stride, templates) in enumerate(mixes):
        assume(len({k * stride % size for k in range(templates)}) == templates)
        sites.append(site_lists.weight(f"m{index}", (min(elements, size),), 0.1))
        placements.append(
            Placement(
                f"m{index}",
                "mix",
                "",
                bank="x",
                start=start % size,
                stride=stride,
                templates=templates,
                coefficient=offset,
                count=templates,
            )
        )
        offset += templates
    read = {
        int(element)
        for site, placement in zip(sites, placements, strict=True)
        for where in reading.indices(site, placement, bank)
        for element in where
    }
    allocation = allocation_of([replace(bank, coefficients=offset)], placements)
    fault = ""
    try:
        check(sites, allocation)
    except AllocationError as error:
        fault = str(error)
    if "same tensor" not in fault:
        assert (len(read) < size) == bool(fault)
        assert not fault or "nothing reads" in fault or "no site reads" in fault


def test_the_checker_knows_neither_solver_nor_placement():
    tree = ast.parse(Path(planner.validation.__file__).read_text(encoding="utf-8"))
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name for name in modules if name.startswith("planner")} == {
        "planner.errors",
        "planner.ir",
    }


@pytest.mark.parametrize("percent", [5, 60, 150])
def test_any_change_to_a_solved_allocation_that_breaks_its_count_is_found(percent):
    sites = site_lists.wide_resnet()
    budget = site_lists.dense_count(sites) * percent // 100
    allocation = allocate(sites, shape_evidence(sites), budget)
    bank = allocation.banks[0]
    for fields in ({"size": bank.size * 40}, {"coefficients": bank.coefficients + 1}):
        banks = (replace(bank, **fields), *allocation.banks[1:])
        with pytest.raises(AllocationError):
            check(sites, replace(allocation, banks=banks))
