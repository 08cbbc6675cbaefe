"""Nine models at five budgets: what each emitted module promises about its parameters.

By default a sample runs: every model at 10 % and the small ones at all budgets. ``make matrix``
runs all cases.
"""

import itertools
from dataclasses import dataclass

import pytest
import torch

import planner
from emitted import cases
from models import MODELS, SMALL

STEPS = 3


@dataclass(frozen=True, slots=True)
class Case:
    """A model, its plan and the module emitted from it, built."""

    model: object
    plan: planner.Plan
    built: torch.nn.Module


@pytest.fixture(scope="module", params=cases())
def case(request, plans):
    name, budget = request.param
    plan = plans.least(name, budget)
    torch.manual_seed(0)
    return Case(MODELS[name], plan, plans.module(plan).build())


BATCH = {"mlp": 64, "vit_b_16": 1, "transformer_lm": 8, "lstm_lm": 8}
"""Samples of a step where 4 are too few (all ids are to occur within the steps) or too slow."""


def test_budget_is_kept_and_used(case):
    unique = {id(one): one for _, one in case.built.named_parameters(remove_duplicate=False)}
    emitted = sum(one.numel() for one in unique.values() if one.requires_grad)
    budget = case.plan.budget_parameters
    assert 0.999 * budget <= emitted <= budget
    assert emitted == case.plan.parameter_count


def test_outputs_have_the_shape_of_the_originals(case):
    with torch.no_grad():
        output = case.built(*case.model.inputs())
    assert [tuple(output.shape)] == [one.shape for one in case.plan.program.example_outputs]
    assert torch.isfinite(output).all()


def test_generated_tensors_differ(case):
    dense = case.built.dense_state_dict()
    by_shape = {}
    for placement in case.plan.allocation.placements:
        if placement.generator != "own":
            made = dense[placement.site]
            by_shape.setdefault(tuple(made.shape), []).append((placement.site, made))
    equal = [
        (one, other)
        for made in by_shape.values()
        for (one, a), (other, b) in itertools.combinations(made, 2)
        if torch.equal(a, b) or torch.equal(a, -b)
    ]
    assert not equal


@torch.no_grad()
def awaken(model):
    """Let gradients through everywhere: those of a dense layer can be zero as well.

    A head that starts at zero passes none to the layers before it, nor does a ReLU that is off for
    all samples.
    """
    for one in model.parameters():
        one.add_(torch.randn_like(one), alpha=0.01)
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, torch.nn.ReLU):
                setattr(module, name, torch.nn.LeakyReLU())


def test_every_bank_parameter_gets_a_gradient(case):
    banks = dict(case.built.banks.named_parameters())
    missing = {name: torch.ones_like(one, dtype=torch.bool) for name, one in banks.items()}
    awaken(case.built)
    case.built.train()
    for step in range(STEPS):
        output = case.built(*case.model.inputs(BATCH.get(case.model.name, 4), seed=step))
        (output * torch.randn_like(output)).sum().backward()
        for name, one in banks.items():
            missing[name] &= one.grad == 0
        case.built.zero_grad()
        if not any(one.any() for one in missing.values()):
            break
    assert {name: int(one.sum()) for name, one in missing.items() if one.any()} == {}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in SMALL else pytest.mark.matrix) for name in MODELS],
)
def test_least_budget_works_and_less_does_not(name, plans):
    with pytest.raises(planner.InfeasibleBudgetError) as caught:
        plans(name, "1")
    minimum = caught.value.minimum
    assert str(minimum) in str(caught.value)
    plan = plans(name, minimum)
    built = plans.module(plan).build()
    assert sum(one.numel() for one in built.parameters()) <= minimum
    with pytest.raises(planner.InfeasibleBudgetError, match=str(minimum)):
        plans(name, minimum - 1)
