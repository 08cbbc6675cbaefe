"""Capture: names and hierarchy survive, arguments are what callers pass, failures are located."""

import copy
import inspect
import math

import pytest
import torch
from torch import nn

import hard_models
import hard_operations  # noqa: F401  its models join the table
import hard_states  # noqa: F401  its models join the table
from planner.errors import TraceError
from planner.ir import Container, Instance, Leaf, Ref, Shared, Training
from planner.tracing import trace
from round_trips import tensors


def program_of(name):
    factory, shapes = hard_models.CASES[name]
    return trace(factory(), tensors(shapes, 2))


def definition(program, name):
    return next(one for one in program.definitions if one.name == name)


def targets(graph):
    return [operation.target for operation in graph.operations]


def test_names_and_hierarchy_are_the_models():
    program = program_of("with_mask")
    assert program.root == Instance("Caller")
    assert [one.name for one in program.definitions] == ["Masked", "Masked2", "Caller"]
    caller = definition(program, "Caller")
    assert [name for name, _ in caller.children] == ["first", "second"]
    assert caller.inputs[0].name == "x"
    assert definition(program, "Masked").children == (("fc", Leaf("Linear", (4, 4))),)


def test_children_are_leaves():
    program = program_of("CalledTwice")
    assert targets(definition(program, "CalledTwice").train) == [
        "fc",
        "torch.tanh",
        "fc",
        "head",
        "head",
    ]


def test_arguments_are_inputs_or_constants():
    with_mask, without = program_of("with_mask"), program_of("without_mask")
    assert [one.name for one in definition(with_mask, "Masked").inputs] == ["x", "mask"]
    assert "masked_fill" in targets(definition(with_mask, "Masked").train)
    assert [one.name for one in definition(without, "Masked").inputs] == ["x"]
    assert "masked_fill" not in targets(definition(without, "Masked").train)
    calls = [one for one in definition(without, "Caller").train.operations if one.op == "module"]
    assert [(one.args, one.kwargs) for one in calls] == [
        ((Ref("x"),), ()),
        ((Ref("first"),), ()),
    ]


def test_modes():
    depth = definition(program_of("StochasticDepth"), "DropRows2")
    assert depth.eval.operations == ()
    assert "bernoulli_" in targets(depth.train)
    dropout = definition(program_of("FunctionalDropout"), "FunctionalDropout")
    assert dropout.eval is None
    flags = [
        value
        for operation in dropout.train.operations
        for value in (*operation.args, *dict(operation.kwargs).values())
        if isinstance(value, Training)
    ]
    assert flags == [Training(True), Training(True)]


def test_a_module_under_two_names_stands_once():
    children = dict(definition(program_of("TwoNames"), "TwoNames").children)
    assert children["second"] == Shared("first")
    assert children["third"] == Shared("layers.1")
    assert isinstance(children["layers"], Container)


def test_a_layer_of_torch_can_be_the_root():
    program = program_of("leaf_root")
    model = definition(program, "Model")
    assert [one.name for one in model.parameters] == ["weight", "bias"]
    assert targets(model.train)[-1] == "torch.nn.functional.linear"


def test_changes_in_place_are_recorded():
    found = targets(definition(program_of("InPlace"), "InPlace").train)
    assert found.count("operator.iadd") == 2
    assert found.count("operator.setitem") == 2


def test_results_do_not_depend_on_what_was_traced_before():
    """fx patches math while it traces; the table of names must not be made from that."""
    from planner import operations

    for cached in (operations._names, operations._by_identity):
        cached.cache_clear()
    program_of("Sizes")
    assert operations.public_name(math.sqrt) == "math.sqrt"


@pytest.mark.parametrize("name", list(hard_models.CASES))
def test_the_model_is_left_as_it_was(name):
    factory, shapes = hard_models.CASES[name]
    model = factory().train()
    next(iter(model.children()), model).eval()
    modes = [module.training for module in model.modules()]
    identities = [id(tensor) for tensor in (*model.parameters(), *model.buffers())]
    state = copy.deepcopy(model.state_dict())
    attributes = [sorted(module.__dict__) for module in model.modules()]
    trace(model, tensors(shapes, 2))
    assert [module.training for module in model.modules()] == modes
    assert [id(tensor) for tensor in (*model.parameters(), *model.buffers())] == identities
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())
    assert [sorted(module.__dict__) for module in model.modules()] == attributes


# --------------------------------------------------------------------------- names and calls


@pytest.mark.parametrize("name", ["conv-1", "0a", "class", "0"])
def test_names_that_python_cannot_write_are_kept(name):
    model = Wrapped(nn.Linear(4, 4))
    model.add_module(name, nn.Linear(4, 4))
    children = dict(definition(trace(model, [torch.randn(2, 4)]), "Wrapped").children)
    assert children[name] == Leaf("Linear", (4, 4))


def test_a_list_of_parameters_is_a_block():
    model = Wrapped(nn.Linear(4, 4))
    model.scales = nn.ParameterList([nn.Parameter(torch.ones(4))])
    block = definition(trace(model, [torch.randn(2, 4)]), "ParameterList")
    assert [(one.name, one.shape) for one in block.parameters] == [("0", (4,))]
    assert block.train is None


class Star(nn.Module):
    def forward(self, *xs, **more):
        return xs[0] * more["scale"]


class CallsStar(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = Star()

    def forward(self, x):
        return self.inner(x, x + 1, scale=x.exp())


def test_variable_arguments_have_names():
    program = trace(CallsStar(), [torch.randn(2, 4)])
    assert [one.name for one in definition(program, "Star").inputs] == ["xs_0", "scale"]
    call = definition(program, "CallsStar").train.operations[-1]
    assert (call.args, call.kwargs) == ((Ref("x"),), (("scale", Ref("exp")),))


class MaskedOnce(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = hard_models.Masked()

    def forward(self, x):
        return self.inner(self.inner(x), x > 0)


class Flags(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = hard_models.Masked()

    def forward(self, x):
        return self.inner(self.inner(x, flip=True))


@pytest.mark.parametrize(
    ("model", "target"), [(MaskedOnce(), "masked_fill"), (Flags(), "operator.neg")]
)
def test_one_module_called_in_two_ways_is_written_into_its_caller(model, target):
    program = trace(model, [torch.randn(2, 4)])
    caller = definition(program, type(model).__name__)
    called = targets(caller.train)
    assert called.count("inner.fc") == 2
    assert called.count(target) == 1
    assert caller.rung == "recorded"
    assert definition(program, "Masked").train is None


# --------------------------------------------------------------------------- refusals


class Wrapped(nn.Module):
    """A child that cannot be traced, two levels down."""

    def __init__(self, inner):
        super().__init__()
        self.blocks = nn.ModuleList([nn.ModuleDict({"inner": inner})])

    def forward(self, x):
        return self.blocks[0].inner(x)


class Branch(nn.Module):
    def forward(self, x):
        y = x * 2
        if y.sum() > 0:
            return x
        return y


class FunctionalBranch(nn.Module):
    def forward(self, x):
        return self.helper(x)

    def helper(self, x):
        return x[: int(x.argmax())]


def line_of(function, text):
    lines, first = inspect.getsourcelines(function)
    return first + next(index for index, line in enumerate(lines) if text in line)


@pytest.mark.parametrize(
    ("inner", "function", "text"),
    [(Branch, Branch.forward, "if y.sum"), (FunctionalBranch, FunctionalBranch.helper, "argmax")],
)
def test_control_flow_is_located(inner, function, text):
    with pytest.raises(TraceError) as caught:
        trace(Wrapped(inner()), [torch.randn(2, 4)])
    assert caught.value.module == "blocks.0.inner"
    assert caught.value.location == f"{__file__}:{line_of(function, text)}"
    assert caught.value.location in str(caught.value)
    assert "blocks.0.inner" in str(caught.value)


def test_hooks_are_refused():
    model = Wrapped(nn.Linear(4, 4))
    handle = model.blocks[0].inner.register_forward_hook(lambda *_: None)
    with pytest.raises(TraceError, match="forward hooks") as caught:
        trace(model, [torch.randn(2, 4)])
    assert caught.value.module == "blocks.0.inner"
    handle.remove()
    trace(model, [torch.randn(2, 4)])


@pytest.mark.parametrize("name", ["it's", "a b", "x:y", "a\\nb"])
def test_names_that_a_plan_cannot_hold_are_refused(name):
    model = Wrapped(nn.Linear(4, 4))
    model.blocks.add_module(name, nn.Linear(4, 4))
    with pytest.raises(TraceError, match="letters, digits") as caught:
        trace(model, [torch.randn(2, 4)])
    assert caught.value.module == "blocks"


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("traced", [True, False])
def test_torchscript_is_refused(traced):
    layer, x = nn.Linear(4, 4), torch.randn(2, 4)
    compiled = torch.jit.trace(layer, x) if traced else torch.jit.script(layer)
    with pytest.raises(TraceError, match=r"TorchScript.*compiled from") as caught:
        trace(Wrapped(compiled), [x])
    assert caught.value.module == "blocks.0.inner"


def test_buffers_shared_between_blocks_are_refused():
    norm = nn.BatchNorm1d(4)
    model = nn.Sequential(hard_models.Holder(norm), hard_models.Holder(norm))
    with pytest.raises(TraceError, match="keeps buffers"):
        trace(model, [torch.randn(2, 4)])


def test_wrong_inputs_are_named():
    with pytest.raises(TraceError, match="2x5"):
        trace(nn.Sequential(nn.Linear(4, 4)), [torch.randn(2, 5)])
    with pytest.raises(TraceError, match="does not take the example inputs"):
        trace(Branch(), [torch.randn(2, 5), torch.randn(2, 5)])


def test_meta_parameters_need_no_data():
    with torch.device("meta"):
        model = hard_models.CASES["TiedWeights"][0]()
    trace(model, [torch.zeros(2, 5, dtype=torch.int64)])
    assert model.embed.weight.is_meta
