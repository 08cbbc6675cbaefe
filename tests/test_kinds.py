"""Every kind of parameter, from plan to emitted module: generated, kept, and compared."""

from __future__ import annotations

import functools
import itertools
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

import layer_kinds  # noqa: F401  adds cases to the table
import planner
import recorded_kinds  # noqa: F401  as well
from round_trips import flatten, import_source
from site_kinds import CASES

torch.set_num_threads(1)

# torch deprecates what is tested here, and warns of what it does not speed up.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")

GENERATED = ("mix", "interpolate", "repeat", "mask", "hash", "lowrank")

_SERVE = """
import importlib.util, sys

sys.modules.update(dict.fromkeys(("planner", "ortools", "jinja2", "networkx")))
import torch

torch.set_num_threads(1)
for line in sys.stdin:
    folder = line.strip()
    spec = importlib.util.spec_from_file_location("emitted", folder + "/emitted.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["emitted"] = module
    spec.loader.exec_module(module)
    model = module.build()
    model.load_state_dict(torch.load(folder + "/state.pt"), strict=True)
    torch.manual_seed(5)
    torch.save(model(*torch.load(folder + "/inputs.pt")), folder + "/outputs.pt")
    print("done", flush=True)
"""


@functools.cache
def planned(name, budget, generators):
    """(model, plan) of a case; where the budget is too small, at the least possible."""
    torch.manual_seed(0)
    model = CASES[name].make()
    options = {"generators": generators, "deterministic_limit": 2}
    try:
        plan = planner.plan(model, budget, CASES[name].inputs(2), **options)
    except planner.InfeasibleBudgetError as error:
        plan = planner.plan(model, error.minimum, CASES[name].inputs(2), **options)
    return model, planner.Plan.from_json(plan.to_json())


def fresh(name, state):
    """The plain model of a case with the tensors of ``state``."""
    model = CASES[name].make()
    model.load_state_dict(state, strict=True)
    return model


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Runs an emitted module in another process, where planner cannot be imported."""
    server = subprocess.Popen(
        [sys.executable, "-I", "-c", _SERVE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def run(source, state, inputs):
        folder = tmp_path_factory.mktemp("alone")
        (folder / "emitted.py").write_text(source)
        torch.save(state, folder / "state.pt")
        torch.save(inputs, folder / "inputs.pt")
        server.stdin.write(f"{folder}\n")
        server.stdin.flush()
        assert server.stdout.readline() == "done\n"
        return torch.load(folder / "outputs.pt")

    yield run
    server.stdin.close()
    server.wait()
    server.stdout.close()


def outputs(model, inputs, training, gradients=True):
    """The tensors that a model gives under one seed."""
    model.train(training)
    torch.manual_seed(5)
    with torch.set_grad_enabled(gradients):
        return flatten(model(*[tensor.clone() for tensor in inputs]))


def assert_close(found, expected):
    """Equal up to rounding, in units of the output's scale."""
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype and one.shape == other.shape
        rounding = 2e-2 if other.dtype == torch.bfloat16 else 1e-5
        torch.testing.assert_close(one, other, rtol=0, atol=rounding * float(other.abs().max()))


def assert_equal_outputs(built, model, name):
    """In both modes and on the fast paths of inference, at two batch sizes; then equal states."""
    for batch, (training, gradients) in itertools.product(
        (2, 3), ((True, True), (False, True), (False, False))
    ):
        inputs = CASES[name].inputs(batch)
        assert_close(
            outputs(built, inputs, training, gradients),
            outputs(model, inputs, training, gradients),
        )
    if CASES[name].renormed:
        return
    state = model.state_dict()
    for key, value in built.dense_state_dict().items():
        torch.testing.assert_close(value, state[key])


def assert_all_banks_learn(built, name):
    """Within a few steps on random data every parameter of every bank has a gradient."""
    parameters = list(built.banks.parameters())
    assert parameters
    touched = [torch.zeros_like(parameter, dtype=torch.bool) for parameter in parameters]
    built.train()
    for seed in range(12):
        torch.manual_seed(seed)
        made = built(*CASES[name].inputs(16))
        goals = [tensor for tensor in flatten(made) if tensor.requires_grad]
        loss = sum((goal * torch.randn_like(goal)).sum() for goal in goals)
        gradients = torch.autograd.grad(loss, parameters)
        for seen, gradient in zip(touched, gradients, strict=True):
            seen.logical_or_(gradient != 0)
        with torch.no_grad():
            torch._foreach_add_(parameters, gradients, alpha=-1e-3)
    assert all(bool(seen.all()) for seen in touched)


@pytest.mark.parametrize("name", CASES)
def test_kept_parameters_are_the_originals(name):
    model, plan = planned(name, "100%", ("own",))
    built = import_source(planner.emit(plan)).build()
    trainable = [one.numel() for one in built.parameters() if one.requires_grad]
    assert sum(trainable) == plan.dense_parameters == plan.parameter_count
    errors = built.load_dense_state_dict(model.state_dict())
    assert max(errors.values()) == 0.0
    assert_equal_outputs(built, fresh(name, model.state_dict()), name)


@pytest.mark.parametrize("budget", ["10%", "100%"])
@pytest.mark.parametrize("name", CASES)
def test_generated_parameters_are_the_originals(name, budget, alone):
    generators = ("own", *GENERATED) if budget == "10%" else ("own", "mix", "hash")
    _, plan = planned(name, budget, generators)
    made = [one for one in plan.allocation.placements if one.generator != "own"]
    assert made or budget == "100%"
    source = planner.emit(plan)
    torch.manual_seed(1)
    built = import_source(source).build()
    trainable = [one.numel() for one in built.parameters() if one.requires_grad]
    assert sum(trainable) == plan.parameter_count <= plan.budget_parameters
    dense = fresh(name, built.dense_state_dict())
    inputs = CASES[name].inputs(2)
    found = alone(source, built.state_dict(), inputs)
    assert_close(flatten(found), outputs(dense, inputs, training=True))
    dense = fresh(name, built.dense_state_dict())
    built.load_dense_state_dict(dense.state_dict())
    dense.load_state_dict(built.dense_state_dict(), strict=True)
    assert_equal_outputs(built, dense, name)
    if made:
        assert_all_banks_learn(built, name)


@pytest.mark.parametrize(
    ("name", "kernel"),
    [
        ("attention", "aten::_native_multi_head_attention"),
        ("encoder_layer", "aten::_transformer_encoder_layer_fwd"),
        ("Transformer", "aten::_transformer_encoder_layer_fwd"),
    ],
)
def test_inference_takes_torchs_fast_path(name, kernel):
    _, plan = planned(name, "10%", ("own", *GENERATED))
    built = import_source(planner.emit(plan)).build().eval()
    with torch.no_grad(), torch.profiler.profile() as profile:
        built(*CASES[name].inputs(2))
    assert kernel in {event.key for event in profile.key_averages()}


def test_frozen_layers_stay_frozen():
    model, plan = planned("Frozen", "10%", ("own", *GENERATED))
    built = import_source(planner.emit(plan)).build()
    frozen = {key for key, value in built.named_parameters() if not value.requires_grad}
    assert frozen == {"fixed", "first.weight", "first.bias"}
    assert frozen == {key for key, value in model.named_parameters() if not value.requires_grad}


def test_a_frozen_part_is_one_row_of_the_emitted_file():
    model = torch.nn.Sequential(*(torch.nn.Linear(16, 16) for _ in range(4)))
    model[:3].requires_grad_(False)
    model[2].bias.requires_grad_()
    plan = planner.plan(model, "50%", (torch.randn(2, 16),))
    source = planner.emit(plan)
    assert 'FROZEN = (\n    "0.",\n    "1.",\n    "2.weight.",\n)' in source
    built = import_source(source).build()
    frozen = [key for key, value in built.named_parameters() if not value.requires_grad]
    assert frozen == ["0.weight", "0.bias", "1.weight", "1.bias", "2.weight"]


def test_banks_have_the_dtype_of_what_they_make():
    for name, dtype in (("Precise", torch.float64), ("bfloat16", torch.bfloat16)):
        _, plan = planned(name, "10%", ("own", *GENERATED))
        built = import_source(planner.emit(plan)).build()
        assert {parameter.dtype for parameter in built.parameters()} == {dtype}
        assert built.fc.weight.dtype == dtype


def test_integer_parameters_are_refused():
    class Ordered(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.order = torch.nn.Parameter(torch.randperm(8), requires_grad=False)
            self.fc = torch.nn.Linear(8, 8)

        def forward(self, x):
            return self.fc(x)[:, self.order]

    with pytest.raises(planner.UnsupportedSiteError, match=r"'order' holds int64.*a buffer"):
        planner.plan(Ordered(), "100%", (torch.randn(2, 8),))


def test_a_bank_of_several_dtypes_is_the_widest():
    _, plan = planned("SeveralPrecisions", "10%", ("own", "hash"))
    banks = plan.allocation.banks[:1]
    placements = tuple(
        replace(one, bank=banks[0].name) if one.bank else one for one in plan.allocation.placements
    )
    shared = replace(plan.allocation, banks=banks, placements=placements)
    built = import_source(planner.emit(plan.model_copy(update={"allocation": shared}))).build()
    assert built.banks[banks[0].name].weight.dtype == torch.float32
    assert built.coarse.weight.dtype == torch.bfloat16
    assert built.fine.weight.dtype == torch.float32
    assert built(*CASES["SeveralPrecisions"].inputs(2)).dtype == torch.float32
