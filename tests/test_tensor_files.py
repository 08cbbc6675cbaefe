"""Constants too large for a source stand in a safetensors file beside it."""

import base64
import importlib.util
import sys
import zlib
from dataclasses import replace

import pytest
import safetensors.torch
import torch

import constant_models
import planner
from emitted import run
from planner.emission.tensors import beside, tensors
from planner.ir import LITERAL_LIMIT, Buffer
from planner.loading import load_model

SPEC = f"{constant_models.__file__}:Random"


@pytest.fixture(scope="module")
def plan():
    return planner.plan(SPEC, "200%", generators=("own",))


@pytest.fixture
def written(plan, tmp_path):
    planner.write(planner.emit(plan), tmp_path / "net.py")
    return tmp_path / "net.py"


def build(path):
    spec = importlib.util.spec_from_file_location(f"emitted_{path.stem}", path)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.build()


def test_the_file_is_a_safetensors_file(plan, written):
    original = load_model(SPEC).model
    found = safetensors.torch.load_file(beside(written))
    assert [*sorted(found)] == sorted(f"Random.{name}" for name, _ in original.named_buffers())
    for name, tensor in original.named_buffers():
        mine = found[f"Random.{name}"]
        mine = torch.view_as_complex(mine) if tensor.is_complex() else mine
        assert mine.dtype is tensor.dtype and torch.equal(mine, tensor)
    assert beside(written).read_bytes() == planner.emit(plan).tensors
    assert len(written.read_text()) < LITERAL_LIMIT


def test_both_files_make_the_model_wherever_they_are(plan, written):
    moved = written.with_name("renamed.py")
    beside(written).rename(beside(moved))
    written.rename(moved)
    original = load_model(SPEC).model
    for name, tensor in build(moved).named_buffers():
        assert torch.equal(tensor, original.get_buffer(name))


def test_a_missing_or_changed_file_is_named(written):
    content = beside(written).read_bytes()
    beside(written).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ValueError, match=r"Random\.flags in .* is not what was written"):
        build(written)
    beside(written).unlink()
    with pytest.raises(FileNotFoundError, match=r"net\.constants\.safetensors is missing"):
        build(written)


def test_the_command_writes_and_checks_both(plan, tmp_path):
    planner.write(plan.to_json(), tmp_path / "net.plan.json")
    done = run("-m", "planner", "emit", "net.plan.json", cwd=tmp_path)
    assert (done.status, done.output) == (1, "") and "-o" in done.messages
    assert run("-m", "planner", "emit", "net.plan.json", "-o", "net.py", cwd=tmp_path).status == 0
    assert run("-m", "planner", "check", ".", cwd=tmp_path).status == 0
    constants = beside(tmp_path / "net.py")
    constants.write_bytes(constants.read_bytes() + b"\0")
    done = run("-m", "planner", "check", ".", cwd=tmp_path)
    assert done.status == 1 and "net.constants.safetensors" in done.messages
    constants.unlink()
    assert run("-m", "planner", "check", ".", cwd=tmp_path).status == 1


def test_neither_is_written_where_one_cannot_be(plan, tmp_path):
    beside(tmp_path / "net.py").mkdir()
    with pytest.raises(planner.OutputError, match="is a folder"):
        planner.write(planner.emit(plan), tmp_path / "net.py")
    assert not (tmp_path / "net.py").exists()


def test_a_source_without_large_constants_has_no_file(plan, tmp_path):
    small = planner.plan(torch.nn.Sequential(torch.nn.Linear(4, 4)), "100%", torch.zeros(2, 4))
    planner.write(planner.emit(small), tmp_path / "net.py")
    assert [path.name for path in tmp_path.iterdir()] == ["net.py"]


def data(raw):
    return base64.b64encode(zlib.compress(raw, 0)).decode()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": (100_000, 2)}, "of another size"),
        ({"shape": (10,)}, "of another size"),
        ({"shape": (1 << 40,)}, "too large"),
        ({"shape": (-1, 5)}, "too large"),
        ({"dtype": "qint8"}, "no file can hold"),
        ({"data": "A" * (LITERAL_LIMIT + 4)}, "no readable data"),
    ],
)
def test_data_that_are_no_tensor_are_refused(plan, change, message):
    given = {"shape": (50_000,), "dtype": "int16", "data": data(bytes(100_000)), **change}
    buffer = Buffer("table", persistent=True, **given)
    *others, root = plan.program.definitions
    program = replace(plan.program, definitions=(*others, replace(root, buffers=(buffer,))))
    with pytest.raises(planner.PlanFormatError, match=message):
        tensors(program)
