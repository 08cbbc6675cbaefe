"""What a recorded run captures is emitted, and does what the model does, at other sizes as well."""

from __future__ import annotations

import builtins
import functools
import re
from collections.abc import Mapping

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

import planner
import recorded_calls  # noqa: F401  adds cases to the table
import recorded_idioms
from planner.errors import TraceError
from planner.tracing import trace
from planner.tracing.calls import as_graphs
from recorded_models import CASES
from round_trips import architecture, flatten, import_source, rebuilt

GENERATED = ("own", "mix", "interpolate", "repeat", "mask", "hash", "lowrank")


@functools.cache
def planned(name):
    """(model, plan) of a case, nothing shared."""
    torch.manual_seed(0)
    case = CASES[name]
    model = case.make()
    inputs = case.inputs(2, case.sizes[0])
    return model, planner.plan(model, "100%", inputs, generators=("own",))


@functools.cache
def source_of(name):
    return planner.emit(planned(name)[1])


def run(model, inputs):
    """The output of ``model`` on a copy of ``inputs``, under one seed; dataclasses as dicts."""
    torch.manual_seed(5)
    if isinstance(inputs, Mapping):
        return as_graphs(model(**copied(inputs)))
    return as_graphs(model(*copied(inputs)))


def copied(value):
    if isinstance(value, torch.Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    return container(type(value), map(copied, value))


def container(kind, items):
    """A tuple or list of ``items``, which a named tuple takes one by one."""
    return kind(*items) if hasattr(kind, "_fields") else kind(items)


def floats(value):
    """The floating-point tensors of an output."""
    return [one for one in flatten(value) if one.is_floating_point()]


def assert_same(model, built, inputs):
    """Equal outputs, to the bit and of the same kind, and equal gradients of all parameters."""
    outputs, gradients = [], []
    for one in (model, built):
        outputs.append(run(one, inputs))
        one.zero_grad()
        sum((tensor * tensor).sum() for tensor in floats(outputs[-1])).backward()
        gradients.append({name: p.grad for name, p in one.named_parameters()})
    assert shape(outputs[0]) == shape(outputs[1])
    for expected, found in zip(*map(flatten, outputs), strict=True):
        assert torch.equal(expected, found)
        assert expected.dtype == found.dtype
        assert expected.requires_grad == found.requires_grad
    assert gradients[0].keys() == gradients[1].keys()
    for name, expected in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], expected, msg=name)


def shape(value):
    """An output with the kind of each value in place of tensors and numbers."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        items = map(shape, value)
        return list(items) if isinstance(value, list) else tuple(items)
    return type(value).__name__


# --------------------------------------------------------------------------- all cases


@pytest.mark.parametrize("name", CASES)
def test_emitted_is_the_model(name):
    model, plan = planned(name)
    _, built = rebuilt(plan, model)
    case = CASES[name]
    for training in (True, False):
        model.train(training)
        built.train(training)
        for batch in (2, 3):
            for size in case.sizes:
                assert_same(model, built, case.inputs(batch, size))
    dense, state = built.dense_state_dict(), model.state_dict()
    assert list(dense) == list(state)
    assert all(torch.equal(dense[key], state[key]) for key in state)


@pytest.mark.parametrize("name", CASES)
def test_only_what_needs_it_is_recorded(name):
    program = planned(name)[1].program
    recorded = {one.name for one in program.definitions if one.rung == "recorded"}
    assert recorded == CASES[name].recorded
    assert program.verification.reason == ""


# A tensor that no module owns becomes a buffer, which follows the parameters; a global does not.
OWNED = [name for name in CASES if name not in ("Constant", "Globals")]


@pytest.mark.parametrize("name", OWNED)
def test_what_is_recorded_runs_in_any_precision(name):
    """Data types that are the data's follow it."""
    model, plan = planned(name)
    for dtype in (torch.float64, torch.bfloat16):
        case = CASES[name]
        inputs = to(case.inputs(2, case.sizes[0]), dtype)
        fresh = case.make().eval()
        fresh.load_state_dict(model.state_dict())
        built = rebuilt(plan, model)[1].to(dtype).eval()
        expected, found = (flatten(run(one, inputs)) for one in (fresh.to(dtype), built))
        for one, other in zip(expected, found, strict=True):
            assert one.dtype == other.dtype
            assert torch.equal(one, other)


def to(value, dtype):
    """``value`` with its floating-point tensors in ``dtype``."""
    if isinstance(value, torch.Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, Mapping):
        return {key: to(item, dtype) for key, item in value.items()}
    return container(type(value), [to(item, dtype) for item in value])


@pytest.mark.parametrize("name", CASES)
def test_no_device_is_written_down(name):
    source = architecture(source_of(name))
    assert "def forward" in source
    assert not re.search(r"""["'](meta|cpu)["']|device\(""", source)


@pytest.mark.parametrize("name", CASES)
def test_generated_parameters_learn(name):
    """At half the parameters every bank gets a gradient."""
    case = CASES[name]
    torch.manual_seed(0)
    model = case.make()
    inputs = case.inputs(2, case.sizes[0])
    options = {"generators": GENERATED, "deterministic_limit": 1}
    try:
        plan = planner.plan(model, "50%", inputs, **options)
    except planner.InfeasibleBudgetError as error:
        plan = planner.plan(model, error.minimum, inputs, **options)
    built = import_source(planner.emit(plan)).build()
    assert sum(p.numel() for p in built.parameters()) == plan.parameter_count
    model.load_state_dict(built.dense_state_dict())
    for expected, found in zip(*(flatten(run(one, inputs)) for one in (model, built)), strict=True):
        torch.testing.assert_close(found, expected)
    sum(tensor.square().sum() for tensor in floats(run(built, inputs))).backward()
    assert all(p.grad is not None and p.grad.any() for p in built.banks.parameters())


# --------------------------------------------------------------------------- what is written


def line(name, text):
    """The line of a case's emitted architecture that has ``text``."""
    found = [one.strip() for one in architecture(source_of(name)).splitlines() if text in one]
    assert len(found) == 1, architecture(source_of(name))
    return found[0]


def test_sizes_are_written_as_they_were_computed():
    assert line("BranchOnShape", ".view(") == (
        "heads = self.fc(x).view(batch, length, 2, size // 2).transpose(1, 2)"
    )
    assert "F.pad(self.conv(x), (0, width % 2))" in line("Windows", "F.pad")
    assert line("Windows", "size=(").endswith("size=(height, width))")
    assert line("Maybe", "return") == "return (fc, None, 3, x.shape[0])"


def test_devices_and_data_types_are_the_datas():
    assert line("Norm", "torch.arange") == (
        "h = torch.arange(out.shape[1], dtype=x.dtype, device=x.device)"
    )
    assert line("Norm", "torch.float32") == "out = x.to(torch.float32)"
    assert "device=x.device" in line("Globals", "torch.tensor")
    assert "device=x.device" in line("Auxiliary", "torch.empty(x.shape[0]")


def test_gradients_stop_where_they_did():
    assert line("Stops", "detach") == "target = y.square().detach().mean()"


def test_numbers_that_depend_on_the_mode_do_so():
    assert "p=0.5 if self.training else 0.1" in line("Stops", "F.dropout")


def test_global_tensors_are_kept_once():
    assert architecture(source_of("Globals")).count("nn.Buffer") == 1


def test_buffers_change_by_statements():
    assert line("Averages", "steps +=") == "self.steps += 1"


def test_variable_arguments_are_named():
    assert line("CallsStar", "def forward(self, xs") == (
        "def forward(self, xs_0: Tensor, xs_1: Tensor, scale: Tensor) -> Tensor:"
    )


def test_inputs_that_nobody_reads_are_dropped():
    assert line("Forwards", "self.inner(") == "return self.inner(x)"
    assert planned("Forwards")[1].program.definitions[0].inputs[0].name == "x"
    assert len(planned("Forwards")[1].program.definitions[0].inputs) == 1


@pytest.mark.parametrize(("name", "text"), [("Foreign", "self.mix.fc("), ("Twice", "masked_fill")])
def test_what_has_no_forward_of_its_own_is_inlined(name, text):
    assert architecture(source_of(name)).count("def forward") == 1
    line(name, text)


def test_dataclasses_are_dicts_without_what_is_none():
    assert line("Fields", "return") == 'return {"last": out, "hidden": [x, fc]}'
    inner = next(one for one in planned("Nested")[1].program.definitions if one.name == "Inner")
    assert [key for key, _ in inner.train.output.dict] == ["last", "hidden"]


def test_a_module_that_is_never_called_keeps_its_parameters():
    names = [site.name for site in planned("Idle")[1].sites]
    assert names == ["fc.weight", "fc.bias", "pooler.fc.weight", "pooler.fc.bias"]


def test_loops_are_written_as_loops():
    assert line("OneLayer", "for _") == "for _ in range(5):"
    loops = [
        one.strip() for one in architecture(source_of("Parts")).splitlines() if "in self" in one
    ]
    assert loops == ["for layer in self.layers[1:5]:", "for layer in self.layers[5:]:"]


# --------------------------------------------------------------------------- what stops a recording


class Autocast(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        with torch.autocast("cpu", torch.bfloat16):
            return self.fc(x) @ x.t()


class AutocastAroundALayer(Autocast):
    def forward(self, x):
        with torch.autocast("cpu", torch.bfloat16):
            x = self.fc(x)
        return x.float()


class Compares(nn.Module):
    """Goes one of two ways by the values of its input."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        return self.fc(x) if x.sum() > 0 else x


class Around(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)


class Spread(torch.autograd.Function):
    """Has a gradient for each element that depends on those of all."""

    @staticmethod
    def forward(_, x):
        return x.round()

    @staticmethod
    def backward(_, gradient):
        return gradient.mean(0, keepdim=True).expand_as(gradient)


class Clipped(torch.autograd.Function):
    """Clips its gradients, which is nothing that small ones show."""

    @staticmethod
    def forward(_, x):
        return x.view_as(x)

    @staticmethod
    def backward(_, gradient):
        return gradient.clamp(-10, 10)


class Applies(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.fc, self.function = nn.Linear(4, 4), function

    def forward(self, x):
        return self.function.apply(self.fc(x))


class Mapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(4))

    def forward(self, x):
        return torch.vmap(lambda row: row * self.weight)(x)


@pytest.mark.parametrize(
    ("inner", "told"),
    [
        (Autocast, "switches autocast"),
        (AutocastAroundALayer, "switches autocast"),
        (lambda: Applies(Spread), "backward of Spread is neither"),
        (lambda: Applies(Clipped), "backward of Clipped is neither"),
    ],
)
def test_what_no_graph_shows_is_refused(inner, told):
    with pytest.raises(TraceError, match=told) as caught:
        trace(Around(inner()), (torch.randn(2, 4),))
    assert caught.value.module == "inner"
    assert "Move that out of the forward" in str(caught.value)
    assert caught.value.plannable


class Derived(nn.TransformerEncoder):
    """A class of the model's own, with the forward of torch's."""


@pytest.mark.parametrize("kind", [nn.TransformerEncoder, Derived])
def test_an_encoder_that_inference_would_leave_is_refused(kind):
    """Unless it never packs, or nothing is padded."""
    layer, x = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), torch.randn(2, 3, 4)
    padding = {"src_key_padding_mask": torch.tensor([[False, False, True]] * 2)}
    with pytest.raises(TraceError, match="enable_nested_tensor=False") as caught:
        trace(kind(layer, 1), (x,), padding)
    assert caught.value.plannable
    trace(kind(layer, 1, enable_nested_tensor=False), (x,), padding)
    trace(kind(layer, 1), (x,))


def test_functions_over_functions_are_refused():
    with pytest.raises(TraceError, match=r"as torch\.vmap and torch\.func do") as caught:
        trace(Around(Mapped()), (torch.randn(2, 4),))
    assert caught.value.module == "inner"


def test_the_course_of_values_is_refused():
    with pytest.raises(TraceError, match="depends on the values of a tensor") as caught:
        trace(Around(Compares()), (torch.randn(2, 4),))
    assert caught.value.module == "inner"
    assert caught.value.plannable


class DropsLayers(nn.Module):
    """Leaves a layer out by chance in training; every call of its child is as it would be."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        if not (self.training and torch.rand(1).item() <= 0.1):
            x = self.fc(x)
        return torch.dropout(x, 0.5, self.training)


def test_chance_is_refused_whatever_it_drew():
    for _ in range(5):
        with pytest.raises(TraceError, match="depends on the values of a tensor") as caught:
            trace(DropsLayers(), (torch.randn(2, 4),))
        assert caught.value.plannable


def watched():
    plain = nn.Module.__call__, builtins.len, torch.autograd.Function.__dict__["apply"]
    packing = pack_padded_sequence.__code__, pack_padded_sequence.__defaults__
    return *plain, *packing, torch.jit.ScriptFunction.__call__, recorded_idioms.positions


def test_python_is_as_it_was_after_a_recording():
    """Calls of modules and lengths of tensors are watched while a run is recorded, no longer."""
    before = watched()
    trace(CASES["Maybe"].make(), (torch.randn(2, 4),))
    with pytest.raises(TraceError):
        trace(Compares(), (torch.randn(2, 4),))
    assert watched() == before
    assert type(len(torch.zeros(2))) is int
