"""Captured graphs are compared with the model in numbers; a silent mistrace names its module."""

import copy
import inspect
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import hard_models
import hard_operations  # noqa: F401  its models join the table
import hard_states  # noqa: F401  its models join the table
from planner.errors import TraceError
from planner.ir import Verification
from planner.tracing import trace
from round_trips import tensors

EVERYWHERE = Verification((2, 3), (2, 3))


def at_batches(verification):
    """``verification`` without the sizes that are free."""
    return replace(verification, free=())


def is_tensor(x):
    """What a symbolic trace does not see."""
    return isinstance(x, torch.Tensor)


def has_data(x):
    """What neither a symbolic trace nor a recorded run sees."""
    return isinstance(x, torch.Tensor) and not x.is_meta


class Outer(nn.Module):
    """``inner`` two levels down, among layers that are right."""

    def __init__(self, inner, sees=is_tensor):
        super().__init__()
        self.sees = sees
        self.before = hard_models.Holder(nn.Linear(4, 4))
        self.blocks = nn.ModuleList([nn.ModuleDict({"inner": hard_models.Holder(inner)})])
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x):
        x = self.blocks[0].inner(self.norm(self.before(x)))
        return F.relu(x, inplace=True) if self.sees(x) else x


def verified(model, inputs=None):
    return trace(model, [torch.randn(2, 4)] if inputs is None else inputs).verification


# --------------------------------------------------------------------------- models that are right


@pytest.mark.parametrize("name", list(hard_models.CASES))
def test_hard_models_are_captured_right(name):
    factory, shapes = hard_models.CASES[name]
    assert at_batches(verified(factory(), tensors(shapes, 2))) == EVERYWHERE


class AlwaysDropout(nn.Module):
    def forward(self, x):
        return F.dropout(x, 0.5, training=True) + torch.rand_like(x)


class ViewOfInput(nn.Module):
    def forward(self, x):
        return x.view(-1)


class ChangesWhatItGot(nn.Module):
    """What the child returns is its input's memory."""

    def __init__(self):
        super().__init__()
        self.view, self.fc = ViewOfInput(), nn.Linear(4, 4)

    def forward(self, x):
        x = x * 1
        self.view(x).add_(1)
        return self.fc(x)


class CallsForward(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = hard_models.Masked()

    def forward(self, x):
        return self.inner.forward(x)


class Tracked(nn.Module):
    """Batch norm twice, by one module, and a look at what it counted."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x):
        return self.norm(self.norm(x).relu_()) + self.norm.num_batches_tracked


@pytest.mark.parametrize("inner", [AlwaysDropout, ChangesWhatItGot, CallsForward, Tracked])
def test_effects_of_a_forward_are_no_differences(inner):
    assert at_batches(verified(inner())) == EVERYWHERE


def test_parameters_need_no_data():
    with torch.device("meta"):
        model = hard_models.CASES["TiedWeights"][0]()
    for device in ("cpu", "meta"):
        ids = torch.zeros(2, 5, dtype=torch.int64, device=device)
        assert at_batches(verified(model, [ids])) == EVERYWHERE
    assert model.head.weight is model.embed.weight
    assert model.embed.weight.is_meta


# --------------------------------------------------------------------------- silent mistraces


class Seeing(nn.Module):
    """Its forward goes one way where ``sees`` is true, and another where it is captured."""

    def __init__(self, sees=has_data):
        super().__init__()
        self.sees = sees


class OtherBranch(Seeing):
    def forward(self, x):
        return x * 2 if self.sees(x) else x * 3


class OtherNumber(Seeing):
    def forward(self, x):
        return x * 2, 2 if self.sees(x) else 3


class OtherBuffer(Seeing):
    def __init__(self, sees=has_data):
        super().__init__(sees)
        self.register_buffer("calls", torch.tensor(0))

    def forward(self, x):
        if self.sees(x):
            self.calls.add_(1)
        return x * 2


class OtherEffect(Seeing):
    """A child that is run for what it counts alone."""

    def __init__(self, sees=has_data):
        super().__init__(sees)
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x):
        if self.sees(x):
            self.norm(x)
        return x * 2


class OtherInput(Seeing):
    def forward(self, x):
        y = x * 2
        if self.sees(x):
            x.add_(1)
        return y


class OtherDraw(Seeing):
    def forward(self, x):
        if self.sees(x):
            torch.rand(1)
        return x * 2


class OutOfRange(Seeing):
    """Shapes do not tell."""

    def forward(self, x):
        first = 0 if self.sees(x) else 1000
        index = torch.zeros_like(x, dtype=torch.int64)
        return torch.gather(x, 1, index + first)


class DrawnOnce(nn.Module):
    def forward(self, x):
        return x * torch.rand(4)


class DrawnByPython(nn.Module):
    def forward(self, x):
        return x * random.random()


class HiddenByZero(Seeing):
    """As it is initialised, both branches give the same."""

    def __init__(self, sees=has_data):
        super().__init__(sees)
        self.gain = nn.Parameter(torch.zeros(4))
        self.project = nn.Linear(4, 4)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def forward(self, x):
        y = self.project(x)
        return x + self.gain * (y if self.sees(x) else -y)


class InTrainingAlone(Seeing):
    def forward(self, x):
        return x * 2 if self.sees(x) or not self.training else x


class OtherChild(Seeing):
    def __init__(self, sees=has_data):
        super().__init__(sees)
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        return self.one(x) if self.sees(x) else self.two(x)


@pytest.mark.parametrize(
    ("inner", "told"),
    [
        (OtherBranch, "gives other values"),
        (OtherNumber, "gives 3 instead of 2"),
        (OtherBuffer, "leaves other buffers"),
        (OtherEffect, "leaves other buffers"),
        (OtherInput, "changes its inputs otherwise"),
        (OtherDraw, "draws other random numbers"),
        (OutOfRange, "raises RuntimeError"),
        (DrawnByPython, "gives other values"),
        (HiddenByZero, "gives other values"),
        (OtherChild, "gives other values"),
    ],
)
def test_a_silent_mistrace_names_the_innermost_module(inner, told):
    model = Outer(inner())
    model.blocks[0].inner = model.blocks[0].inner.layer
    if inner is OtherNumber:
        model = Pair(model.blocks[0].inner)
    path = "inner" if inner is OtherNumber else "blocks.0.inner"
    with pytest.raises(TraceError, match=told) as caught:
        verified(model)
    assert caught.value.module == path
    line = inspect.getsourcelines(inner.forward)[1]
    assert caught.value.location == f"{__file__}:{line}"
    for part in (path, inner.__name__, "in training, at batch 2", caught.value.location):
        assert part in str(caught.value)
    assert trace(model, [torch.randn(2, 4)], verify=False).verification.reason


class Pair(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)


@pytest.mark.parametrize(
    "inner",
    [OtherBranch, OtherBuffer, OtherEffect, OtherInput, OtherDraw, OutOfRange, HiddenByZero],
)
def test_what_a_symbolic_trace_alone_gets_wrong_is_recorded(inner):
    program = trace(Pair(inner(is_tensor)), [torch.randn(2, 4)])
    rungs = {one.name: one.rung for one in program.definitions}
    assert rungs == {inner.__name__: "recorded", "Pair": "symbolic"}
    assert at_batches(program.verification) == EVERYWHERE


def test_what_is_drawn_in_a_forward_is_drawn_anew():
    program = trace(Pair(DrawnOnce()), [torch.randn(2, 4)])
    assert at_batches(program.verification) == EVERYWHERE
    assert program.definitions[0].train.operations[0].target == "torch.rand"


def test_a_mistrace_above_its_children_is_theirs_no_longer():
    assert at_batches(verified(Outer(nn.Linear(4, 4), is_tensor))) == EVERYWHERE
    model = Outer(nn.Linear(4, 4), has_data)
    with pytest.raises(TraceError, match="root module") as caught:
        verified(model)
    assert caught.value.module == ""


def test_the_mode_of_a_mistrace_is_told():
    model = nn.Sequential(nn.Linear(4, 4), InTrainingAlone())
    with pytest.raises(TraceError, match="in training, at batch 2"):
        verified(model)


class Watched(nn.Module):
    """Notes its runs on values, but not those of a trace."""

    seen = ()

    def forward(self, x):
        if isinstance(x, torch.Tensor) and not x.is_meta:
            run = (self.training, len(x), torch.is_grad_enabled())
            type(self).seen = (*self.seen, run)
        return F.dropout(x, 0.5, self.training) * 2


class AroundWatched(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.act = nn.BatchNorm1d(4), nn.ReLU(inplace=True)
        self.watched, self.drop = Watched(), nn.Dropout()

    def forward(self, x):
        x = self.norm(x)
        self.act(x)
        x = F.dropout(self.watched(x), 0.5, self.training)
        x += self.norm.running_mean
        return self.act(self.drop(x))


def test_every_mode_and_size_is_run_once():
    """Checking a module runs none of its children again."""
    Watched.seen = ()
    assert at_batches(verified(AroundWatched())) == EVERYWHERE
    assert Watched.seen == tuple((mode, size, False) for size in (2, 3) for mode in (True, False))


# --------------------------------------------------------------------------- what is not verified


class FixedBatch(nn.Module):
    def forward(self, x):
        return x.view(2, 4)


class FixedInTraining(nn.Module):
    def forward(self, x):
        return x.view(2, 4) if self.training else x * 2


@pytest.mark.parametrize(
    ("model", "batch", "expected"),
    [
        (FixedBatch(), 2, ((2,), (2,), "the model itself raises RuntimeError in evaluation at")),
        (
            FixedInTraining(),
            2,
            ((2,), (2, 3), "the model itself raises RuntimeError in training at"),
        ),
        (OtherBranch(), 9, None),
        (hard_models.Masked(), 1, ((2, 3), (2, 3), "")),
        (hard_models.Masked(), 4, ((4, 5), (4, 5), "")),
        (hard_models.Masked(), 9, ((2, 3), (2, 3), "")),
    ],
)
def test_sizes_that_the_model_takes(model, batch, expected):
    if expected is None:
        with pytest.raises(TraceError, match="at batch 2"):
            verified(model, [torch.randn(batch, 4)])
        return
    found = verified(model, [torch.randn(batch, 4)])
    assert (found.train, found.eval) == expected[:2]
    assert found.reason.startswith(expected[2])
    assert bool(found.reason) == bool(expected[2])


def test_a_batch_that_the_model_insists_on_is_tried_last():
    class Eight(nn.Module):
        def forward(self, x):
            return x.view(8, 4) * 2

    found = verified(Eight(), [torch.randn(8, 4)])
    assert (found.train, found.eval) == ((8,), (8,))
    assert "at batch 3" in found.reason


def test_a_model_that_does_not_run_is_not_verified():
    with torch.device("meta"):
        model = nn.Embedding(1, 4)
    found = verified(nn.Sequential(model), [torch.full((2, 3), 1)])
    assert (found.train, found.eval) == ((), ())
    assert "IndexError" in found.reason


def test_giants_are_not_run():
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(30_000, 30_000, bias=False))
    found = verified(model, [torch.zeros(2, 30_000, device="meta")])
    assert found == Verification(reason="900,000,000 parameters are more than 500,000,000")


# --------------------------------------------------------------------------- nothing is left behind


def test_the_model_and_the_random_generators_are_left_as_they_were():
    model = nn.Sequential(Counted(), nn.Dropout(), nn.BatchNorm1d(4), AlwaysDropout())
    model[2].eval()
    state = copy.deepcopy(model.state_dict())
    attributes = {path: dict(module.__dict__) for path, module in model.named_modules()}
    modes = [module.training for module in model.modules()]
    numpy = np.random.mtrand  # the generator that old code shares
    numpy.seed(1234)
    inputs = torch.randn(2, 4)
    given, before = inputs.clone(), (torch.get_rng_state(), random.getstate())
    numbers = numpy.get_state()[1].copy()
    assert at_batches(verified(model, [inputs])) == EVERYWHERE
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert (numpy.get_state()[1] == numbers).all()
    assert torch.equal(inputs, given)
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    for path, module in model.named_modules():
        assert module.__dict__.keys() == attributes[path].keys()
        for key, value in module.__dict__.items():
            assert value is attributes[path][key] or value == attributes[path][key]


class Counted(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.register_buffer("calls", torch.tensor(0))

    def forward(self, x):
        self.calls.add_(1)
        return self.norm(x) * self.calls


class RescaledInEvaluation(nn.Module):
    """Changes its weights when it is first evaluated, as what is kept in half precision does."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.rescaled = False

    def forward(self, x):
        if not self.training and not self.rescaled:
            with torch.no_grad():
                self.linear.weight.div_(2)
            self.rescaled = True
        return self.linear(x)


class RescaledData(RescaledInEvaluation):
    def forward(self, x):
        self.linear.weight.data[0].mul_(0.5)
        return self.linear(x)


class WantsTargets(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x, targets=None):
        if self.training and targets is None:
            raise ValueError("targets are wanted in training")
        return self.linear(x) if is_tensor(x) else x


@pytest.mark.parametrize("verify", [True, False])
def test_a_mode_that_cannot_be_recorded_is_not_taken_to_be_the_other(verify):
    for made in (RescaledInEvaluation, RescaledData):
        with pytest.raises(TraceError, match=r"parameter .*in place") as caught:
            trace(made(), [torch.randn(2, 4)], verify=verify)
        assert caught.value.plannable
    assert trace(WantsTargets(), [torch.randn(2, 4)], verify=verify).definitions


class Encoder(nn.Module):
    """Where padding lies, torch's shortcut leaves zeros."""

    def __init__(self, padded):
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2)
        self.padded = padded

    def forward(self, x):
        padding = (torch.arange(6, device=x.device) > 3).expand(x.shape[0], 6)
        return self.layers(x, src_key_padding_mask=padding if self.padded else None)


@pytest.mark.parametrize("padded", [True, False])
def test_what_torch_does_otherwise_where_nobody_watches_is_told(padded):
    reason = verified(Encoder(padded), [torch.randn(2, 6, 8)]).reason
    assert ("takes a shortcut" in reason) is padded
