"""Constants are computed again as the model computed them."""

import functools
from dataclasses import replace

import numpy as np
import pytest
import torch

import constant_models
import planner
from constant_models import MODELS, Attributes, Copies, Frozen, Positions, Random, Windows
from planner.loading import load_model
from planner.origins import Origins
from planner.references import check_references
from planner.tracing.derivations import derive, evaluate
from runtime_rendering import load


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("origins")


def spec(model):
    return f"{constant_models.__file__}:{model.__name__}"


@functools.cache
def planned(model):
    return planner.plan(spec(model), "200%", generators=("own",))


def built(model):
    """The model as it is built for its plan, with values in its parameters."""
    found = load_model(spec(model)).model.eval()
    values = {name: torch.randn(one.shape) for name, one in found.named_parameters()}
    found.load_state_dict(values, strict=False, assign=True)
    return found


def bits(tensor):
    tensor = tensor.contiguous()
    return tensor.view(torch.uint8) if tensor.dim() else tensor


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_constants_are_the_models_to_the_bit(model, folder):
    plan = planned(model)
    original, emitted = built(model), load(planner.emit(plan), folder).build().eval()
    mine = dict(emitted.named_buffers())
    for name, tensor in original.named_buffers():
        assert (mine[name].dtype, mine[name].shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(bits(mine[name]), bits(tensor)), name
    assert [*emitted.dense_state_dict()] == [*original.state_dict()]
    emitted.load_dense_state_dict(original.state_dict())
    x = torch.randn(5, 16)
    torch.testing.assert_close(emitted(x), original(x))
    held = [one for each in plan.program.definitions for one in each.buffers]
    assert any(one.data for one in held) == (model in (Random, Copies, Attributes))
    assert planner.Plan.from_json(plan.to_json()) == plan


def test_the_emitted_file_reads_as_the_model_does():
    source = planner.emit(planned(Positions))
    for line in (
        "pe = torch.zeros(5000, 512)",
        "position = torch.arange(0, 5000, dtype=torch.float32).unsqueeze(1)",
        "pe[:, 0::2] = torch.sin(position * div_term)",
        "self.pe.copy_(pe.unsqueeze(0).transpose(0, 1))",
    ):
        assert f"        {line}\n" in source
    assert "        relative[:, :, 0] += 11\n" in planner.emit(planned(Windows))


def test_frozen_parameters_start_at_what_the_model_computed(folder):
    plan = planned(Frozen)
    source = planner.emit(plan)
    original, emitted = Frozen(), load(source, folder).build()
    for name in ("positions.weight", "window", "table"):
        mine = emitted.get_parameter(name)
        assert not mine.requires_grad
        assert torch.equal(mine, original.get_parameter(name))
    assert {one.name: one.values is not None for one in plan.sites if not one.trainable} == {
        "window": True,
        "table": True,
        "random": False,
        "positions.weight": True,
    }
    assert "self.positions.weight.copy_(torch.cat([angles.sin(), angles.cos()], dim=1))" in source
    assert "nn.init.normal_(self.random" in source
    assert planner.Plan.from_json(plan.to_json()) == plan


def test_values_of_another_tensor_are_refused():
    plan = planned(Frozen)
    sites = [
        replace(one, values=replace(one.values, shape=(8,))) if one.name == "window" else one
        for one in plan.sites
    ]
    with pytest.raises(planner.PlanFormatError, match="'window' has values of another tensor"):
        check_references(plan.program, sites, plan.allocation)


def test_a_callable_is_built_where_its_constants_are_seen():
    plan = planner.plan(Positions, "200%", generators=("own",))
    assert plan.program == planned(Positions).program
    assert plan.spec == "constant_models.Positions"
    (table,) = plan.program.definitions[-1].buffers
    assert table.expression and table.data is None


def origin(make):
    """(what ``make`` returns, the names of the functions that its origin calls)."""
    with Origins() as origins:
        tensor = make()
    return tensor, derive(tensor, origins)


def changed_later():
    base = torch.arange(4.0)
    double = base * 2
    base.add_(1)
    return double


def changed_before():
    base = torch.arange(4.0)
    base[1:].mul_(3)
    torch.randn(3)
    return base * 2


def sorted_parts():
    values, order = torch.arange(9.0).cos().sort()
    first, second, third = values.split(3)
    return torch.cat((third, first)) * order[:6] + second.repeat(2)


@pytest.mark.parametrize("make", [changed_later, changed_before, sorted_parts])
def test_an_origin_is_what_the_values_depend_on(make):
    tensor, found = origin(make)
    assert torch.equal(evaluate(found), tensor)
    assert all(one.target != "torch.randn" for one in found)
    if make is changed_later:
        assert len(found) == 2


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.from_numpy(np.arange(3.0)) + 1,
        lambda: torch.as_tensor(np.arange(3.0)),
        lambda: torch.FloatTensor([1, 2]),
        lambda: torch.tensor([0.5] * 100),
        lambda: torch.rand(3, generator=torch.Generator()),
        lambda: sum((torch.ones(2) * index for index in range(100)), torch.zeros(2)),
    ],
)
def test_what_no_source_can_say_has_no_origin(make):
    assert origin(make)[1] == ()


def test_random_numbers_are_noted_but_never_come_again():
    tensor, found = origin(lambda: torch.randn(4) * 2)
    assert [one.target for one in found] == ["torch.randn", "operator.mul"]
    before = torch.get_rng_state()
    assert not torch.equal(evaluate(found), tensor)
    assert torch.equal(torch.get_rng_state(), before)
