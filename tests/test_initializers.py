import copy
import math
import subprocess
import sys

import pytest
import torch
import torchvision
from torch import nn
from torch.nn.init import dirac_, eye_, orthogonal_, sparse_, trunc_normal_

from planner import ir
from planner.distributions import constant, mixture, normal, truncated_normal, uniform
from planner.initializers import initials, recording, unknown

torch.set_num_threads(1)


def record(build):
    """(model, initials) of a recorded build."""
    with recording() as seen:
        model = build()
    return model, initials(model, seen)


def of(make):
    """The initial of the one parameter that ``make`` returns, registered in a module."""

    class Holder(nn.Module):
        def __init__(self):
            super().__init__()
            self.p = make()

    model, found = record(Holder)
    assert model.p.is_meta
    return found["p"]


def registered(shape, *steps):
    """The initial of an empty parameter that ``steps`` are done to after it is registered."""

    class Holder(nn.Module):
        def __init__(self):
            super().__init__()
            self.p = nn.Parameter(torch.empty(shape))
            with torch.no_grad():
                for step in steps:
                    step(self.p)

    model, found = record(Holder)
    assert model.p.is_meta
    return found["p"]


@pytest.mark.parametrize("name", ["resnet50", "densenet121", "vit_b_16", "efficientnet_b0"])
def test_recorded_initials_agree_with_a_built_model(name):
    def build():
        return torchvision.models.get_model(name, weights=None)

    torch.manual_seed(0)
    real = build()
    with recording() as seen:
        model = build()
    assert unknown(model, seen) == []
    assert all(parameter.is_meta for parameter in model.parameters())
    found = initials(model, seen)
    parameters = dict(real.named_parameters())
    assert list(found) == list(parameters)
    for key, parameter in parameters.items():
        initial, count = found[key], parameter.numel()
        values = parameter.detach().double()
        if initial.family == "constant":
            assert bool((values == torch.tensor(initial.mean).float()).all()), key
            continue
        # Five standard errors: among a few hundred tensors none may fall outside by chance.
        assert abs(values.mean() - initial.mean) <= 5 * initial.std / math.sqrt(count), key
        assert abs(values.std(correction=0) / initial.std - 1) <= 5 / math.sqrt(2 * count), key
        if initial.family == "uniform":
            assert values.abs().max() <= math.sqrt(3) * initial.std * (1 + 1e-5), key
        elif count > 1000:
            assert values.abs().max() > 2 * initial.std, key


def test_resnet_has_one_formula_for_all_convolutions():
    _, found = record(torchvision.models.resnet50)
    convolutions = {
        initial.formula
        for name, initial in found.items()
        if "conv" in name or "downsample.0" in name
    }
    assert convolutions == {'kaiming_normal_(mode="fan_out", nonlinearity="relu")'}
    assert found["fc.weight"].formula == "kaiming_uniform_(a=math.sqrt(5))"
    assert found["fc.bias"].formula is None


SCHEMES = {
    "xavier_normal_()": nn.init.xavier_normal_,
    "xavier_uniform_()": nn.init.xavier_uniform_,
    'kaiming_normal_(nonlinearity="relu")': nn.init.kaiming_normal_,
    'kaiming_uniform_(nonlinearity="relu")': nn.init.kaiming_uniform_,
    'kaiming_uniform_(mode="fan_out", nonlinearity="relu")': lambda p: nn.init.kaiming_uniform_(
        p, mode="fan_out", nonlinearity="relu"
    ),
    'kaiming_normal_(nonlinearity="linear")': lambda p: nn.init.kaiming_normal_(
        p, nonlinearity="linear"
    ),
    "kaiming_uniform_(a=math.sqrt(5))": lambda p: nn.init.kaiming_uniform_(p, a=math.sqrt(5)),
}


@pytest.mark.parametrize("formula", SCHEMES)
@pytest.mark.parametrize("shape", [(6, 10), (6, 10, 3, 3)])
def test_a_formula_gives_back_the_distribution(formula, shape):
    initial = registered(shape, SCHEMES[formula])
    assert initial.formula == formula
    # The text is a call: what it does is what was recorded.
    function, _, keywords = formula.partition("(")
    call = eval(f"lambda p: nn.init.{function}(p, {keywords}", {"nn": nn, "math": math})
    assert registered(shape, call) == initial


def test_a_formula_is_recognised_in_measured_values():
    torch.manual_seed(0)
    layer = nn.Linear(200, 300, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out")
    found = initials(layer)["weight"]
    assert found.formula == 'kaiming_normal_(mode="fan_out", nonlinearity="relu")'
    assert found.std == ir.significant(math.sqrt(2 / 300))


def test_a_fixed_standard_deviation_is_no_formula():
    # 0.02 is 1/sqrt(2500), so the first layer alone would pass for a scheme.
    def build():
        model = nn.Sequential(nn.Linear(2500, 10), nn.Linear(10, 70))
        for layer in model:
            nn.init.normal_(layer.weight, std=0.02)
        return model

    _, found = record(build)
    assert found["0.weight"] == found["1.weight"] == ir.Initial("normal", 0.0, 0.02)


def test_square_layers_take_the_scheme_of_the_others():
    def build(*shapes):
        model = nn.Sequential(*(nn.Linear(*shape, bias=False) for shape in shapes))
        for layer in model:
            nn.init.kaiming_normal_(layer.weight, mode="fan_out")
        return model

    expected = 'kaiming_normal_(mode="fan_out", nonlinearity="relu")'
    _, found = record(lambda: build((64, 64), (64, 30), (30, 31)))
    assert {one.formula for one in found.values()} == {expected}


DIRECT = {
    "scaled randn": (lambda: torch.randn(3, 4) * 0.02, ("normal", 0.0, 0.02)),
    "scaling on the left": (lambda: 0.02 * torch.randn(3, 4), ("normal", 0.0, 0.02)),
    "divided": (lambda: torch.randn(4) / 5.0, ("normal", 0.0, 0.2)),
    "shifted": (lambda: 1 - torch.randn(4) * 0.1, ("normal", 1.0, 0.1)),
    "scalar tensor": (lambda: torch.randn(4) * torch.tensor(0.5), ("normal", 0.0, 0.5)),
    "layer scale": (lambda: 1e-6 * torch.ones(5), ("constant", 1e-6, 0.0)),
    "full": (lambda: torch.full((5,), 1e-6), ("constant", 1e-6, 0.0)),
    "rand": (lambda: (torch.rand(9) - 0.5) * 2, ("uniform", 0.0, 0.57735)),
    "legacy empty": (lambda: torch.Tensor(3, 4).uniform_(-1, 3), ("uniform", 1.0, 1.1547)),
    "normal": (lambda: torch.normal(1.0, 2.0, size=(3,)), ("normal", 1.0, 2.0)),
    "half": (lambda: torch.randn(4).half().float(), ("normal", 0.0, 1.0)),
    "joined": (lambda: torch.cat([torch.randn(2), torch.randn(3)]), ("normal", 0.0, 1.0)),
    "like": (lambda: torch.zeros_like(torch.empty(3)), ("constant", 0.0, 0.0)),
    "data": (lambda: torch.tensor([2.0, 2.0]), ("constant", 2.0, 0.0)),
    "measured": (lambda: torch.tensor([1.0, 3.0]).sqrt() ** 2, ("uniform", 2.0, 1.0)),
}


@pytest.mark.parametrize("name", DIRECT)
def test_operations_before_registration(name):
    make, expected = DIRECT[name]
    found = of(lambda: nn.Parameter(make()))
    assert found.family == expected[0]
    assert (found.mean, found.std) == pytest.approx(expected[1:], rel=1e-5)


def test_orthogonal_dirac_and_identity_are_known_by_any_name():
    assert registered((8, 4, 3), orthogonal_) == ir.Initial(
        "normal", 0.0, ir.significant(1 / math.sqrt(12)), "orthogonal_()"
    )
    assert registered((8, 4), lambda p: orthogonal_(p, gain=2.0)).formula is None
    assert registered((8, 4), lambda p: orthogonal_(p, gain=2.0)).std == pytest.approx(
        2 / math.sqrt(8), rel=1e-5
    )
    assert registered((4, 4, 3), dirac_).formula == "dirac_()"
    assert registered((4, 6), eye_).formula == "eye_()"
    for step, shape in ((dirac_, (4, 6, 3)), (eye_, (4, 6)), (orthogonal_, (400, 300))):
        found, real = registered(shape, step), step(torch.empty(shape)).double()
        assert found.mean == pytest.approx(float(real.mean()), abs=5e-3)
        assert found.std == pytest.approx(float(real.std(correction=0)), rel=5e-3)
    assert registered((100, 4), lambda p: sparse_(p, 0.36, std=0.5)).std == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("std", "low", "high"), [(1.0, -2.0, 2.0), (0.5, 0.1, 3.0), (1.0, 1.5, 4.0)]
)
def test_truncated_normals_have_their_own_moments(std, low, high):
    torch.manual_seed(0)
    real = trunc_normal_(torch.empty(200_000), 0.0, std, low, high).double()
    found = registered((50, 40), lambda p: trunc_normal_(p, 0.0, std, low, high))
    assert found.family == "normal"
    assert found.mean == pytest.approx(float(real.mean()), abs=5e-3)
    assert found.std == pytest.approx(float(real.std()), rel=1e-2)


def test_truncation_by_inverse_error_function():
    low, high = math.erf(-2 / math.sqrt(2)), math.erf(2 / math.sqrt(2))
    found = registered(
        (5, 5),
        lambda p: p.uniform_(low, high),
        lambda p: p.erfinv_(),
        lambda p: p.mul_(0.02 * math.sqrt(2)),
        lambda p: p.add_(0.01),
        lambda p: p.clamp_(min=-0.03, max=0.05),
    )
    expected = truncated_normal(0.01, 0.02, -0.03, 0.05)
    assert found.mean == pytest.approx(0.01)
    assert found.std == pytest.approx(expected.std, rel=1e-5)
    assert found.std == pytest.approx(0.02 * 0.879626, rel=1e-5)


def test_bounds_far_away_cut_nothing_off():
    found = registered(
        (5, 5),
        lambda p: p.uniform_(-1.0, 1.0),
        lambda p: p.erfinv_(),
        lambda p: p.mul_(0.02 * math.sqrt(2)),
        lambda p: p.clamp_(min=-2.0, max=2.0),
    )
    assert found == ir.Initial("normal", 0.0, 0.02)


def test_what_is_cut_off_otherwise_is_unknown():
    with recording() as seen:
        layer = nn.Linear(3, 3)
        with torch.no_grad():
            layer.weight.normal_().clamp_(-0.5, 0.5)
            layer.bias.sin_()
    assert unknown(layer, seen) == ["weight", "bias"]
    assert seen.initial(layer.weight) is None


def test_a_part_leaves_the_distribution_of_the_whole():
    _, found = record(lambda: nn.Embedding(50, 8, padding_idx=0))
    assert found["weight"] == ir.Initial("normal", 0.0, 1.0)


def test_parts_that_cover_the_whole_make_it():
    same = registered((6, 4), *(lambda p, i=i: p[2 * i : 2 * i + 2].normal_() for i in range(3)))
    assert same == ir.Initial("normal", 0.0, 1.0)
    mixed = registered((4, 4), lambda p: p[:2].fill_(1.0), lambda p: p[2:].fill_(3.0))
    assert (mixed.mean, mixed.std) == (2.0, 1.0)


def test_copies_and_deepcopies_keep_the_distribution():
    def build():
        first = nn.Linear(4, 6)
        nn.init.normal_(first.weight, std=0.7)
        other = nn.Linear(4, 6)
        other.weight.data.copy_(first.weight)
        other.bias.data.copy_(torch.arange(6.0))
        return nn.ModuleList([first, copy.deepcopy(first), other])

    _, found = record(build)
    assert {found[f"{i}.weight"] for i in range(3)} == {ir.Initial("normal", 0.0, 0.7)}
    assert found["2.bias"].mean == 2.5


def test_apply_overrides_the_layers_own_initialiser():
    def build():
        def init(module):
            if isinstance(module, nn.Linear):
                module.weight.data.normal_(0.0, 0.02)
                module.bias.data.zero_()

        return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 8)).apply(init)

    _, found = record(build)
    assert found["2.weight"] == ir.Initial("normal", 0.0, 0.02)
    assert found["2.bias"] == ir.Initial("constant", 0.0, 0.0)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        shared = nn.Parameter(torch.randn(4))
        self.first, self.second = shared, shared
        # Changed under its own name, after it was registered under two others.
        with torch.no_grad():
            shared.mul_(3.0)
        self.embed = nn.Embedding(9, 4)
        self.head = nn.Linear(4, 9, bias=False)
        self.head.weight = self.embed.weight
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)
        self.frozen.mark = "kept"
        self.items = nn.ParameterList([torch.zeros(3), nn.Parameter(torch.ones(2).double())])
        self.register_buffer("table", torch.linspace(0, 1, 5))
        self.rates = [step.item() for step in torch.linspace(0, 0.2, 3)]


def test_ties_attributes_and_buffers_survive():
    model, found = record(Tied)
    assert model.first is model.second
    assert model.head.weight is model.embed.weight
    assert list(found) == ["first", "frozen", "embed.weight", "items.0", "items.1"]
    assert found["first"] == ir.Initial("normal", 0.0, 3.0)
    assert not model.frozen.requires_grad
    assert model.frozen.mark == "kept"
    assert model.items[1].dtype == torch.float64
    assert model.table.tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert model.rates == pytest.approx([0.0, 0.1, 0.2])


def test_attributes_of_parameters_survive():
    class Weight(nn.Parameter):
        pass

    def make():
        parameter = Weight(torch.zeros(2, 3).to(memory_format=torch.contiguous_format))
        parameter.decay = False
        return parameter

    class Holder(nn.Module):
        def __init__(self):
            super().__init__()
            self.p = make()

    model, _ = record(Holder)
    assert type(model.p) is Weight
    assert model.p.decay is False
    assert model.p.is_meta


def test_lstm_and_attention_hold_the_registered_parameters():
    lstm, found = record(lambda: nn.LSTM(4, 5, 2, bidirectional=True))
    assert [id(weight) for weight in lstm._flat_weights] == [
        id(getattr(lstm, name)) for name in lstm._flat_weights_names
    ]
    assert {(one.family, one.std, one.formula) for one in found.values()} == {
        ("uniform", ir.significant(1 / math.sqrt(15)), None)
    }
    attention, found = record(lambda: nn.MultiheadAttention(8, 2))
    assert attention.in_proj_weight.is_meta
    assert found["in_proj_weight"].formula == "xavier_uniform_()"
    assert found["out_proj.bias"] == ir.Initial("constant", 0.0, 0.0)


def test_lazy_parameters_pass():
    with recording() as seen:
        model = nn.LazyLinear(3)
    assert seen.initial(model.weight) is None
    assert isinstance(model.weight, nn.UninitializedParameter)


def test_default_dtypes_are_kept():
    def build():
        torch.set_default_dtype(torch.float64)
        try:
            return nn.Linear(3, 4)
        finally:
            torch.set_default_dtype(torch.float32)

    model, _ = record(build)
    assert model.weight.dtype == torch.float64


def test_meta_without_a_record_asks_the_owners():
    with torch.device("meta"):
        model = nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.MultiheadAttention(8, 2))
    found = initials(model)
    assert found["0.weight"].formula == "kaiming_uniform_(a=math.sqrt(5))"
    assert found["1.weight"] == ir.Initial("constant", 1.0, 0.0)
    assert found["2.in_proj_weight"].formula == "xavier_uniform_()"


def test_the_default_is_a_normal_by_fan_in():
    class Bare(nn.Module):
        def __init__(self):
            super().__init__()
            self.p = nn.Parameter(torch.empty(5, 4, device="meta"))
            self.q = nn.Parameter(torch.empty(25, device="meta"))

    found = initials(Bare())
    assert (found["p"].family, found["p"].mean, found["p"].std) == ("normal", 0.0, 0.5)
    assert found["q"] == ir.Initial("normal", 0.0, 0.2)


def test_real_values_are_measured():
    torch.manual_seed(0)
    model = nn.Linear(100, 100)
    with torch.no_grad():
        model.weight.normal_(3.0, 2.0)
        model.bias.fill_(7.0)
    found = initials(model)
    assert found["bias"] == ir.Initial("constant", 7.0, 0.0)
    assert found["weight"].family == "normal"
    assert found["weight"].std == pytest.approx(2.0, rel=0.03)


def test_hooks_and_modes_are_gone_after_a_failure():
    with pytest.raises(KeyError), recording():
        raise KeyError
    assert not nn.Linear(2, 2).weight.is_meta


def test_ten_billion_parameters_need_little_memory():
    code = (
        "from torch import nn\n"
        "from planner.initializers import initials, recording\n"
        "with recording() as record:\n"
        "    model = nn.Sequential(*(nn.Linear(10_000, 10_000) for _ in range(100)),\n"
        "                          nn.Linear(1 << 20, 1 << 21))\n"
        "found = initials(model, record)\n"
        "assert found['100.weight'].family == 'uniform', found['100.weight']\n"
        "print(sum(p.numel() for p in model.parameters()) > 10_000_000_000)\n"
        "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, text=True
    )
    large, kibibytes = result.stdout.split()
    assert large == "True"
    assert int(kibibytes) < 1 << 20


def test_moments_of_mixtures_and_scaled_distributions():
    assert uniform(-1.0, 3.0).affine(-2.0, 1.0) == uniform(-5.0, 3.0)
    assert mixture([(1, constant(0.0)), (3, constant(4.0))]).mean == 3.0
    assert mixture([(2, normal(0.0, 3.0)), (5, normal(0.0, 3.0))]) == normal(0.0, 3.0)
    assert normal(1.0, 0.0) == constant(1.0)
    assert normal(1.0, 2.0).affine(0.0, 5.0) == constant(5.0)
