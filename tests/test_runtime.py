"""The generated model: its source, its state, and how it starts."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F

from runtime_models import (
    CNN,
    CNN_TABLES,
    KINDS,
    LM,
    LM_TABLES,
    TWO_LINEARS,
    built,
    cnn_runtime,
    lm_runtime,
    subset,
)
from runtime_rendering import load, render, ruff

pytest_plugins = ["runtime_models"]
torch.set_num_threads(2)


BOTH = pytest.mark.parametrize("name", ["cnn", "lm"])


ONE_OF_EACH = {
    "mix": ('Mix(bank="a", stride=24, coefficient=0, count=2)', 48, 2),
    "interpolate": (
        'Interpolate(bank="a", stride=6, coefficient=0, count=2, rows=2, columns=3)',
        12,
        2,
    ),
    "tile": ('Tile(bank="a", coefficient=0, count=3)', 10, 3),
    "hash": ('Hash(bank="a", stride=1, seed=0, chunk=4)', 10, 0),
    "lowrank": ('LowRank(bank="a", rank=1)', 10, 0),
    "tie": ('Tie(bank="a")', 24, 0),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_alone_is_clean_source_that_runs(kind: str, folder: Path) -> None:
    site, size, coefficients = ONE_OF_EACH[kind]
    spec = {"size": size, "coefficients": coefficients, "std": 0.1}
    tables = (
        f'BANKS: dict[str, dict[str, Any]] = {{"a": {spec!r}}}\n'
        f'SITES: dict[str, Generator] = {{"a.weight": {site}}}\n'
        "ALIASES: dict[str, str] = {}"
    )
    kinds = ("mix", kind) if kind == "interpolate" else (kind,)
    source = render(subset(*kinds), TWO_LINEARS, tables)
    ruff(["check", "--select", "E,F,I,UP,B,W"], source)
    module = load(source, folder)
    model = module.build()
    assert model(torch.randn(2, 6)).shape == (2, 4)
    dense = model.dense_state_dict()
    module.Net().load_state_dict(dense)
    torch.manual_seed(1)
    errors = module.build().load_dense_state_dict(dense, rounds=30)
    assert errors["a.bias"] == 0.0 and errors["a.weight"] < 1e-2


def test_source_with_every_kind_is_clean() -> None:
    for runtime, architecture, tables in (
        (cnn_runtime(), CNN, CNN_TABLES),
        (lm_runtime(), LM, LM_TABLES),
    ):
        ruff(["check", "--select", "E,F,I,UP,W"], render(runtime, architecture, tables))


@BOTH
def test_state_dict_has_banks_and_kept_tensors_each_once(name: str, module: ModuleType) -> None:
    model, _ = built(module)
    state = model.state_dict()
    assert not set(state) & (set(module.SITES) | set(module.ALIASES))
    banks = {f"banks.{bank}.weight" for bank in module.BANKS}
    banks |= {f"banks.{b}.coefficients" for b, s in module.BANKS.items() if s.get("coefficients")}
    plain = getattr(module, type(model).__bases__[0].__name__)()
    kept = set(plain.state_dict()) - set(module.SITES) - set(module.ALIASES)
    assert set(state) == banks | kept
    assert len({value.data_ptr() for value in state.values()}) == len(state)


@BOTH
def test_dense_state_dict_fits_the_plain_model_and_agrees(name: str, module: ModuleType) -> None:
    model, x = built(module)
    dense = model.dense_state_dict()
    plain = type(model).__bases__[0]()
    assert list(dense) == list(plain.state_dict())
    plain.load_state_dict(dense, strict=True)
    for training in (True, False):
        torch.testing.assert_close(model.train(training)(x), plain.train(training)(x))
    with torch.no_grad():
        torch.testing.assert_close(model(x), plain(x))
    assert not any(value.requires_grad for value in dense.values())


@BOTH
def test_gradient_reaches_every_bank_element(name: str, module: ModuleType) -> None:
    model, _ = built(module)
    total = sum(
        (
            model.get_submodule(key.rpartition(".")[0]).__getattribute__(key.rpartition(".")[2])
            * torch.randn(shape)
        ).sum()
        for key, shape in model._dense_shapes.items()
        if key in module.SITES
    )
    total.backward()
    for bank in model.banks.values():
        assert (bank.weight.grad != 0).all()
        assert bank.coefficients is None or (bank.coefficients.grad != 0).all()


@BOTH
def test_every_parameter_is_trained_by_a_forward(name: str, module: ModuleType) -> None:
    model, x = built(module)
    model(x).square().sum().backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key


STATISTICS = {
    "hash": 'Hash(bank="a", start=5, stride=7, seed=3, chunk=64, scale=0.98)',
    "mix": 'Mix(bank="a", start=0, stride=30000, coefficient=0, count=2, step=0.125, scale=0.98)',
    "tile": 'Tile(bank="a", coefficient=0, count=8, step=0.5, scale=0.98)',
    "tie": 'Tie(bank="a", scale=0.98)',
}


@pytest.mark.parametrize("kind", sorted(STATISTICS))
def test_start_has_the_planned_mean_and_deviation(kind: str, folder: Path) -> None:
    tables = (
        "BANKS: dict[str, dict[str, Any]] = "
        '{"a": {"size": 60000, "std": 0.05, "coefficients": 8}}\n'
        f'SITES: dict[str, Generator] = {{"a.weight": {STATISTICS[kind]}}}\n'
        "ALIASES: dict[str, str] = {}"
    )
    columns = 100 if kind == "mix" else 200
    architecture = TWO_LINEARS.replace("6, 4", f"{columns}, 300")
    module = load(render(subset("mix", "hash", "tile", "tie"), architecture, tables), folder)
    torch.manual_seed(0)
    model = module.build()
    made, bank = model.a.weight, model.banks["a"].weight
    assert abs(made.std().item() / 0.049 - 1) < 0.05
    assert abs(made.mean().item()) < 0.05 * 0.049
    assert abs(bank.mean().item()) < 1e-7
    assert bank.std(correction=0).item() == pytest.approx(0.05, rel=1e-5)


def test_coefficients_start_as_orthonormal_vectors_over_the_step(cnn: ModuleType) -> None:
    model, _ = built(cnn)
    mixing = model.banks["a"].coefficients.detach()
    first, second = mixing[0:2] * 0.5, mixing[2:4] * 0.5
    torch.testing.assert_close(
        torch.stack([first, second]) @ torch.stack([first, second]).T, torch.eye(2)
    )
    assert mixing[4:8].norm().item() == pytest.approx(1.0)
    assert (mixing[8:].abs() == 1).all()


def test_zero_sites_start_at_their_mean(folder: Path) -> None:
    tables = CNN_TABLES.replace("step=0.5", "step=0.5, zero=True").replace(
        "mean=1.0", "mean=1.0, zero=True"
    )
    model = load(render(cnn_runtime(), CNN, tables), folder).build()
    assert (model.blocks[0].weight == 0).all() and (model.gain == 1).all()
    assert (model.stem.weight != 0).all()


def test_initialise_restores_buffers_and_kept_parameters(cnn: ModuleType) -> None:
    model, _ = built(cnn)
    assert (model.bn.running_var == 1).all() and model.bn.num_batches_tracked == 0
    assert (model.shift == 0.5).all() and (model.stem.bias == 0).all()
    assert torch.equal(model.grid, torch.arange(8.0))
    with torch.device("meta"):
        other = cnn.install(cnn.Net())
    other.to_empty(device="cpu")
    torch.manual_seed(0)
    cnn.initialise(other)
    for key, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[key]), key


def test_ties_hold_through_building_and_loading(lm: ModuleType) -> None:
    model, _ = built(lm)
    assert model.other.weight is model.same.weight
    assert torch.equal(model.head.weight, model.embed.weight)
    state = {key: torch.randn_like(value) for key, value in model.state_dict().items()}
    model.load_state_dict(state, assign=True)
    assert model.other.weight is model.same.weight
    assert torch.equal(model.other.weight, state["same.weight"])
    assert copy.deepcopy(model).other.weight is not model.other.weight
    dense = model.dense_state_dict()
    assert dense["head.weight"] is dense["embed.weight"]


def test_parameter_groups_spare_the_coefficients(cnn: ModuleType) -> None:
    model, _ = built(cnn)
    decayed, free = model.parameter_groups(0.1)
    assert decayed["weight_decay"] == 0.1 and free["weight_decay"] == 0
    assert [id(p) for p in free["params"]] == [id(model.banks["a"].coefficients)]
    together = {id(p) for p in decayed["params"] + free["params"]}
    assert together == {id(p) for p in model.parameters()}
    assert len(decayed["params"]) + 1 == len(together)
    torch.optim.SGD(model.parameter_groups(0.1), lr=0.1)


@pytest.mark.parametrize(
    "site",
    [
        'Hash(bank="a", stride=7, seed=3, chunk=16, scale=1.1)',
        'Mix(bank="a", stride=960, coefficient=0, count=2, step=0.1, scale=0.9)',
    ],
)
def test_one_step_moves_a_weight_as_far_as_a_dense_one(site: str, folder: Path) -> None:
    size = 960 * (2 if site.startswith("Mix") else 1)
    tables = (
        "BANKS: dict[str, dict[str, Any]] = "
        f'{{"a": {{"size": {size}, "std": 0.1, "coefficients": 2}}}}\n'
        f'SITES: dict[str, Generator] = {{"a.weight": {site}}}\nALIASES: dict[str, str] = {{}}'
    )
    architecture = TWO_LINEARS.replace("6, 4", "40, 24")
    module = load(render(subset("mix", "hash"), architecture, tables), folder)
    torch.manual_seed(0)
    model = module.build()
    goal = torch.randn(24, 40)
    dense = model.a.weight.detach().clone().requires_grad_()
    start, moved = dense.detach().clone(), {}
    for name, read, parameters in (
        ("dense", lambda: dense, [dense]),
        (
            "generated",
            lambda: model.a.weight,
            [p for b in model.banks.values() for p in b.parameters()],
        ),
    ):
        optimiser = torch.optim.SGD(parameters, lr=0.01)
        F.mse_loss(read(), goal, reduction="sum").backward()
        optimiser.step()
        moved[name] = (read().detach() - start).norm().item()
    assert math.isfinite(moved["generated"]) and 0.5 <= moved["generated"] / moved["dense"] <= 2.0
