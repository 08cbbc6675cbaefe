"""The warm start: least-squares fits to dense tensors."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from runtime_models import (
    TWO_LINEARS,
    built,
    subset,
)
from runtime_rendering import load, render

pytest_plugins = ["runtime_models"]
torch.set_num_threads(2)


def test_a_hashed_model_is_recovered_exactly(lm: ModuleType) -> None:
    teacher, x = built(lm, seed=1)
    student, _ = built(lm, seed=2)
    errors = student.load_dense_state_dict(teacher.dense_state_dict())
    assert set(errors) == set(student._dense_shapes)
    assert max(errors.values()) < 1e-5 and errors["head.bias"] == 0.0
    torch.testing.assert_close(student.eval()(x), teacher.eval()(x), rtol=1e-3, atol=1e-4)


def test_a_mix_with_as_many_templates_as_sites_holds_any_weights(folder: Path) -> None:
    tables = (
        'BANKS: dict[str, dict[str, Any]] = {"a": {"size": 72, "std": 0.1, "coefficients": 9}}\n'
        "SITES: dict[str, Generator] = {\n"
        '    f"{name}.weight": Mix(\n'
        '        bank="a", stride=24, coefficient=3 * k, count=3, scale=k + 0.5, mean=0.1\n    )\n'
        '    for k, name in enumerate("abc")\n}\nALIASES: dict[str, str] = {}'
    )
    lines = "".join(f"        self.{name} = nn.Linear(6, 4)\n" for name in "abc")
    architecture = TWO_LINEARS.replace("        self.a = nn.Linear(6, 4)\n", lines)
    module = load(render(subset("mix"), architecture, tables), folder)
    torch.manual_seed(0)
    target = module.Net().state_dict()
    errors = module.build().load_dense_state_dict(target)
    assert max(errors.values()) < 1e-4
    model = module.build().to(torch.bfloat16)
    assert max(model.load_dense_state_dict(target).values()) < 0.05


def test_errors_are_those_of_the_fit(cnn: ModuleType) -> None:
    model, _ = built(cnn)
    torch.manual_seed(3)
    target = cnn.Net()
    nn.init.normal_(target.gain)
    nn.init.normal_(target.shift)
    state = target.state_dict()
    errors = model.load_dense_state_dict(state)
    dense = model.dense_state_dict()
    assert "bn.running_mean" not in errors and errors["bn.weight"] == 0.0
    for key, error in errors.items():
        assert error == pytest.approx(
            float((dense[key] - state[key]).norm() / state[key].norm().clamp_min(1e-12)), abs=1e-6
        )
    matrix = state["up.weight"].reshape(8, 32)
    best = torch.linalg.svdvals(matrix)
    assert errors["up.weight"] == pytest.approx(float(best[1:].norm() / best.norm()), rel=1e-4)
    assert errors["fc.weight"] < 1e-6
    assert 0.01 < errors["blocks.0.weight"] < 1.0


def test_more_rounds_fit_no_worse(cnn: ModuleType) -> None:
    torch.manual_seed(3)
    target = cnn.Net()
    nn.init.normal_(target.gain)
    state = {**target.state_dict(), "shift": torch.zeros(8)}
    shared = ["gain", "stem.weight", *(f"blocks.{k}.weight" for k in range(3))]

    def squared(rounds: int) -> float:
        errors = built(cnn)[0].load_dense_state_dict(state, rounds=rounds)
        return sum((errors[key] * float(state[key].norm())) ** 2 for key in shared)

    one, three, nine = squared(1), squared(3), squared(9)
    assert nine <= three * 1.0001 and three < one


def test_state_that_does_not_match_is_refused_whole(cnn: ModuleType) -> None:
    model, _ = built(cnn)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = {key: torch.ones_like(value) for key, value in model.dense_state_dict().items()}
    missing = {key: value for key, value in state.items() if key != "fc.weight"}
    with pytest.raises(RuntimeError, match=r'Missing key.*"fc\.weight"'):
        model.load_dense_state_dict(missing)
    with pytest.raises(RuntimeError, match=r'Unexpected key.*"extra"'):
        model.load_dense_state_dict({**state, "extra": torch.ones(1)})
    with pytest.raises(RuntimeError, match=r"size mismatch for stem\.weight"):
        model.load_dense_state_dict({**state, "stem.weight": torch.ones(8, 3, 1, 1)})
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])


def test_a_fit_keeps_the_scale_of_banks(folder: Path) -> None:
    tables = (
        'BANKS: dict[str, dict[str, Any]] = {"a": {"size": 48, "std": 0.1, "coefficients": 12}}\n'
        "SITES: dict[str, Generator] = {\n"
        '    f"{name}.weight": Mix(\n'
        '        bank="a", start=4 * k, stride=12, coefficient=2 * k, count=2, scale=1.0\n    )\n'
        '    for k, name in enumerate("abcdef")\n}\nALIASES: dict[str, str] = {}'
    )
    lines = "".join(f"        self.{name} = nn.Linear(6, 4)\n" for name in "abcdef")
    architecture = TWO_LINEARS.replace("        self.a = nn.Linear(6, 4)\n", lines)
    module = load(render(subset("mix"), architecture, tables), folder)
    torch.manual_seed(0)
    target = {key: 0.1 * torch.randn_like(one) for key, one in module.Net().state_dict().items()}
    model = module.build()
    model.load_dense_state_dict(target)
    # Learning rates are right for the deviations at which parameters are drawn.
    assert 0.3 < float(model.banks["a"].weight.detach().std()) / 0.1 < 3.0
