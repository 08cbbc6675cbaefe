"""Generated models in the hands of the rest of PyTorch."""

from __future__ import annotations

import copy
import io
import pickle
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_model, save_model
from torch import nn

from runtime_models import (
    built,
)

pytest_plugins = ["runtime_models"]
torch.set_num_threads(2)


BOTH = pytest.mark.parametrize("name", ["cnn", "lm"])


@BOTH
def test_copies_are_equal_and_independent(name: str, module: ModuleType) -> None:
    model, x = built(module)
    model.eval()
    expected = model(x)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for other in (
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
        torch.load(file, weights_only=False),
    ):
        torch.testing.assert_close(other(x), expected)
        with torch.no_grad():
            for bank in other.banks.values():
                bank.weight.mul_(2)
        assert not torch.allclose(other(x), expected)
        torch.testing.assert_close(model(x), expected)


def test_pickles_hold_nothing_of_the_dense_size(lm: ModuleType) -> None:
    model, _ = built(lm)
    numbers = sum(value.numel() for value in model.state_dict().values())
    assert len(pickle.dumps(model)) < 4 * numbers + 30_000


@BOTH
def test_state_survives_files(name: str, module: ModuleType, tmp_path: Path) -> None:
    model, x = built(module)
    model.eval()
    torch.save(model.state_dict(), tmp_path / "state.pt")
    other, _ = built(module, seed=1)
    other.eval()
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    torch.testing.assert_close(other(x), model(x))
    save_model(model, str(tmp_path / "model.safetensors"))
    other, _ = built(module, seed=2)
    other.eval()
    load_model(other, str(tmp_path / "model.safetensors"))
    torch.testing.assert_close(other(x), model(x))


@BOTH
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_generated_tensors_follow_the_banks_dtype(
    name: str, module: ModuleType, dtype: torch.dtype
) -> None:
    model, x = built(module)
    before = model.eval()(x)
    model.to(dtype)
    assert all(
        value.dtype == dtype
        for value in model.dense_state_dict().values()
        if value.is_floating_point()
    )
    after = model(x.to(dtype) if x.is_floating_point() else x)
    assert after.dtype == dtype
    torch.testing.assert_close(after.float(), before, rtol=0.1, atol=0.1)


@BOTH
def test_autocast_leaves_generated_tensors_in_the_banks_dtype(
    name: str, module: ModuleType
) -> None:
    model, x = built(module)
    plain = model.dense_state_dict()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for key, value in model.dense_state_dict().items():
            assert value.dtype == plain[key].dtype and torch.equal(value, plain[key])
        model(x).float().square().mean().backward()
    assert all(bank.weight.grad.dtype == torch.float32 for bank in model.banks.values())


def test_functional_call_replaces_banks(cnn: ModuleType) -> None:
    model, x = built(cnn)
    model.eval()
    other, _ = built(cnn, seed=1)
    other.eval()
    torch.testing.assert_close(
        torch.func.functional_call(model, other.state_dict(), (x,)), other(x)
    )


def test_conversion_by_swapping_tensors(lm: ModuleType) -> None:
    model, x = built(lm)
    model.eval()
    with torch.no_grad():
        expected = model(x)
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        model.double()
        torch.testing.assert_close(model(x).float(), expected)
        model.load_state_dict(model.state_dict())
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)
    torch.testing.assert_close(model(x).float(), expected)


def test_attention_in_eval_takes_the_fast_path_to_the_same_result(lm: ModuleType) -> None:
    model, x = built(lm)
    model.eval()
    taken = []
    original = torch._transformer_encoder_layer_fwd
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            torch,
            "_transformer_encoder_layer_fwd",
            lambda *arguments: taken.append(1) or original(*arguments),
        )
        fast = model(x)
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            slow = model(x)
        finally:
            torch.backends.mha.set_fastpath_enabled(True)
    assert len(taken) == 1
    torch.testing.assert_close(fast, slow)


def test_compiles_without_graph_breaks(cnn: ModuleType) -> None:
    model, x = built(cnn)
    for training in (True, False):
        model.train(training)
        expected = copy.deepcopy(model)
        expected(x).square().sum().backward()
        model.zero_grad()
        torch.compiler.reset()
        compiled = torch.compile(copy.deepcopy(model), fullgraph=True, backend="aot_eager")
        out = compiled(x)
        torch.testing.assert_close(out, copy.deepcopy(model)(x))
        out.square().sum().backward()
        for (key, mine), other in zip(
            compiled.named_parameters(), expected.parameters(), strict=True
        ):
            torch.testing.assert_close(mine.grad, other.grad, rtol=1e-3, atol=1e-4, msg=key)


def test_data_parallel_finds_every_parameter_used(lm: ModuleType, tmp_path: Path) -> None:
    model, x = built(lm)
    dist.init_process_group(
        "gloo", store=dist.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1
    )
    try:
        parallel = nn.parallel.DistributedDataParallel(model)
        optimiser = torch.optim.SGD(parallel.parameters(), lr=0.01)
        losses = []
        for _ in range(3):
            loss = parallel(x).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
    finally:
        dist.destroy_process_group()
    assert losses[2] < losses[1] < losses[0]
