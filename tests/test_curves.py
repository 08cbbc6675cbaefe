"""Curves and comparisons: one capture, many allocations."""

import dataclasses
import sys

import pytest

import planner
import site_lists
from models import MODELS
from planner import curves, pipeline
from planner.allocation import _solve
from planner.baselines import BASELINES
from planner.charts import curve_html
from planner.columns import comparison_text, curve_text, plain, sparkline
from planner.constraints import read_constraints
from planner.construction import construct
from planner.curves import Curve, Point
from planner.effort import Effort
from planner.errors import PlannerError
from planner.evidence import shape_evidence
from planner.formulation import formulate
from planner.ir import MENU
from planner.valuation import scale_of, worth

BUDGETS = ("0.1%", "50%", "1%", "10%", "2%", "5%", "25%", "100%", "200%", "0.1x")
MODEL = MODELS["wrn-16-4"]


@pytest.fixture(scope="module")
def curve():
    return planner.curve(
        MODEL.spec, BUDGETS, MODEL.inputs(), arguments=MODEL.arguments, verify=False
    )


def test_a_curve_never_falls(curve):
    parameters = [point.parameters for point in curve.points]
    assert parameters == sorted(set(parameters))
    assert len(curve.points) == len(BUDGETS) - 1  # 10% and 0.1x are one
    objectives = [point.objective for point in curve.points if point.objective is not None]
    assert objectives == sorted(objectives)
    for point in curve.points[1:]:
        assert 0.999 * point.parameters <= point.count <= point.parameters
        assert point.compression == pytest.approx(curve.dense / point.count, rel=1e-5)


def test_a_budget_that_is_too_small_says_the_least(curve):
    first = curve.points[0]
    assert first.objective is None
    assert first.minimum > first.parameters
    plan = MODEL.plan(first.minimum, verify=False)
    assert plan.parameter_count == first.minimum
    with pytest.raises(planner.InfeasibleBudgetError):
        MODEL.plan(first.minimum - 1, verify=False)


def test_a_point_is_no_worse_than_a_plan(curve):
    for point in curve.points:
        if point.budget in {"10%", "100%"}:
            plan = MODEL.plan(point.budget, verify=False)
            assert point.objective >= plan.allocation.solution.objective


@pytest.mark.parametrize("limit", [1e-4, 1e-2])
def test_a_search_that_is_cut_short_never_falls_either(limit):
    model = MODELS["transformer_lm"]
    percent = [f"{share}%" for share in (1, 2, 3, 4, 5, 7, 10, 15, 20, 30, 50, 80)]
    found = planner.curve(
        model.spec, percent, model.inputs(), deterministic_limit=limit, verify=False
    )
    objectives = [point.objective for point in found.points]
    assert objectives == sorted(objectives)


def test_what_was_found_before_is_not_lost():
    sites = site_lists.wide_resnet()
    problem = formulate(sites, shape_evidence(sites), MENU)
    scale, budget = scale_of(problem), site_lists.dense_count(sites) * 12 // 100
    start = construct(problem, budget, scale)
    found, _ = _solve(problem, budget, scale, start, Effort(1.0))
    # The rules alone come to less than the search did, also with a few parameters more.
    alone = construct(problem, budget + 50, scale)
    kept = construct(problem, budget + 50, scale, start=found)
    assert worth(problem, alone, scale) < worth(problem, found, scale)
    assert worth(problem, kept, scale) >= worth(problem, found, scale)


def test_a_curve_captures_once(monkeypatch):
    calls, prepare = [], pipeline.prepare

    def counted(*arguments, **options):
        calls.append(arguments)
        return prepare(*arguments, **options)

    monkeypatch.setattr(curves, "prepare", counted)
    model = MODELS["mlp"]
    found = planner.curve(model.spec, ["10%", "20%", "30%"], model.inputs())
    assert len(calls) == 1
    assert len(found.points) == 3


def test_no_budget_and_unreadable_ones_are_errors():
    model = MODELS["mlp"]
    with pytest.raises(planner.BudgetError, match="one or more"):
        planner.curve(model.spec, [], model.inputs())
    with pytest.raises(planner.BudgetError, match="a lot"):
        planner.curve(model.spec, ["10%", "a lot"], model.inputs())


def test_the_text_of_a_curve(curve):
    text = curve_text(curve)
    lines = text.splitlines()
    assert max(map(len, lines[1:])) <= 80  # but for the model's own name
    assert f"too few: at least {curve.points[0].minimum:,}" in text
    assert lines[-1] == "objective  " + sparkline(
        [point.objective for point in curve.points if point.objective is not None]
    )
    assert curve_text(curve, bars=False).isascii()
    assert plain(curve)["points"][1]["objective"] == curve.points[1].objective


def test_bars():
    assert sparkline([0, 1, 7, 7]) == "▁▂██"
    assert sparkline([5, 5]) == "██"


HOSTILE = "</script><script>alert(1)</script>\x1b[31m"


def test_names_do_not_reach_terminal_or_page_as_they_are(curve):
    named = dataclasses.replace(curve, model=HOSTILE)
    assert "\x1b" not in curve_text(named)
    page = curve_html(named)
    assert "<script>alert" not in page
    assert page == curve_html(named)


def test_a_page_stands_alone(curve):
    page = curve_html(curve)
    assert "<script src=" not in page
    assert "compression" in page


def test_a_chart_without_plotly_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "plotly", None)
    monkeypatch.setitem(sys.modules, "plotly.graph_objects", None)
    empty = Curve("net", "shape", 1, 0.0, (Point("1", 1, 0.0, minimum=2),))
    with pytest.raises(PlannerError, match="pip install 'npas-planner"):
        curve_html(empty)


@pytest.fixture(scope="module")
def comparison():
    model = MODELS["transformer_lm"]
    return planner.compare(model.spec, "20%", model.inputs(), verify=False)


def test_a_comparison_has_one_unit_and_the_solver_first(comparison):
    first, *others = comparison.entries
    assert first.allocator == "cp-sat"
    assert [one.allocator for one in others] == list(BASELINES)
    for one in comparison.entries:
        if one.minimum is not None:
            assert one.minimum > comparison.parameters
            assert one.objective is None
            continue
        assert one.objective <= first.objective
        assert one.count <= comparison.parameters
        assert one.tied + one.own + one.shared == 52
    by_name = {one.allocator: one for one in comparison.entries}
    assert by_name["uniform"].dissimilarity == 0
    assert by_name["single-group"].dissimilarity > first.dissimilarity
    assert comparison.narrow.fits
    assert comparison.narrow.count <= comparison.parameters


def test_the_text_of_a_comparison(comparison):
    text = comparison_text(comparison)
    assert max(map(len, text.splitlines()[1:])) <= 80  # but for the model's own name
    for one in comparison.entries:
        assert f"\n{one.allocator} " in text
    assert f"{comparison.narrow.count:,}" in text


def test_some_allocators_in_the_order_asked_for():
    model = MODELS["mlp"]
    made = planner.compare(
        model.spec,
        max_gradient_bytes="100KB",
        example_inputs=model.inputs(),
        allocators=("ring", "cp-sat", "ring"),
    )
    assert [one.allocator for one in made.entries] == ["ring", "cp-sat"]
    assert made.parameters == 25_000
    with pytest.raises(PlannerError, match="nothing"):
        planner.compare(model.spec, "10%", model.inputs(), allocators=("nothing",))


def test_curves_and_comparisons_keep_constraints(tmp_path):
    model, path = MODELS["mlp"], tmp_path / "rules.toml"
    path.write_text('[[generator]]\nsites = "*"\nuse = "hash"\n')
    rules = read_constraints(path)
    free = planner.curve(model.spec, ["50%"], model.inputs(), verify=False)
    bound = planner.curve(model.spec, ["50%"], model.inputs(), constraints=path, verify=False)
    made = planner.compare(
        model.spec,
        "50%",
        model.inputs(),
        constraints=rules,
        allocators=("cp-sat", "ring"),
        verify=False,
    )
    plain_ring = planner.compare(
        model.spec, "50%", model.inputs(), allocators=("ring",), verify=False
    )
    planned = model.plan("50%", constraints=rules, verify=False)
    solver, ring = made.entries
    assert planned.allocation.solution.objective == solver.objective == bound.points[0].objective
    assert solver.objective < free.points[0].objective
    assert ring.objective == plain_ring.entries[0].objective
