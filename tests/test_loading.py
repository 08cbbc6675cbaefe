import math
import random
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

from planner.errors import ModelSourceError, PlannerError
from planner.ir import Initial, significant
from planner.loading import load_inputs, load_model, parse_arguments

torch.set_num_threads(1)

HEADER = """
import torch
from torch import nn
"""


@pytest.fixture
def write(tmp_path):
    """Write a model's file; returns its path."""

    def write_file(code, name="net.py"):
        path = tmp_path / name
        path.write_text(HEADER + textwrap.dedent(code))
        return path

    return write_file


def shapes(example):
    return [tuple(tensor.shape) for tensor in example.leaves()]


NET = """
class Net(nn.Module):
    def __init__(self, width=4, *, deep=False):
        super().__init__()
        self.fc = nn.Linear(width, 3)
        self.noise = nn.Buffer(torch.randn(5))
        self.deep = deep

    def forward(self, x):
        return self.fc(x)


def wide(width):
    return Net(width)


class Family:
    @staticmethod
    def small():
        return Net(2)


number = 3
ready = Net(7)


def example_inputs():
    return "2x4"
"""


def test_a_class_a_factory_a_path_and_a_module(write):
    path = write(NET)
    loaded = load_model(f"{path}:Net", {"width": 6, "deep": True})
    assert loaded.model.fc.weight.shape == (3, 6)
    assert loaded.model.deep is True
    assert loaded.spec == f"{path}:Net"
    assert not loaded.weights
    assert loaded.model.fc.weight.is_meta
    assert not loaded.model.noise.is_meta
    assert loaded.initials["fc.weight"].formula == "kaiming_uniform_(a=math.sqrt(5))"
    assert load_model(f"{path}:wide", {"width": 8}).model.fc.in_features == 8
    assert load_model(f"{path}:Family.small").model.fc.in_features == 2
    ready = load_model(f"{path}:ready")
    assert ready.model.fc.in_features == 7
    assert ready.weights


def test_a_module_of_a_package_in_the_current_folder(write, tmp_path, monkeypatch):
    (tmp_path / "zoo_for_test").mkdir()
    write(NET, "zoo_for_test/nets.py")
    monkeypatch.chdir(tmp_path)
    assert load_model("zoo_for_test.nets:Net").model.fc.in_features == 4
    assert str(tmp_path) not in sys.path


def test_siblings_of_a_file_are_importable_and_paths_are_put_back(write, tmp_path):
    write("def width():\n    return 9\n", "sibling_for_test.py")
    path = write(
        """
        from sibling_for_test import width

        def build():
            import sibling_for_test
            return nn.Linear(sibling_for_test.width(), 2)
        """
    )
    before = list(sys.path)
    assert load_model(f"{path}:build").model.in_features == 9
    assert sys.path == before


def test_files_of_one_name_stay_apart(write, tmp_path):
    (tmp_path / "other").mkdir()
    first = write("Net = nn.Linear(2, 3)\n")
    second = write("Net = nn.Linear(4, 5)\n", "other/net.py")
    assert load_model(f"{first}:Net").model.in_features == 2
    assert load_model(f"{second}:Net").model.in_features == 4
    assert load_model(f"{first}:Net").model.in_features == 2


def numpy_state():
    # The legacy generator is the global one, which models use.
    return np.random.get_state()[1].tolist()  # noqa: NPY002


def test_the_seed_decides_and_nothing_else_is_disturbed(write):
    path = write(
        """
        import random
        import numpy

        def build():
            torch.set_default_dtype(torch.float64)
            torch.set_grad_enabled(False)
            net = nn.Linear(2, 2)
            net.noise = nn.Buffer(torch.randn(3))
            net.other = (random.random(), numpy.random.rand())
            return net
        """
    )
    states = torch.get_rng_state(), random.getstate(), numpy_state()
    first, same, other = (load_model(f"{path}:build", seed=seed).model for seed in (1, 1, 2))
    assert torch.equal(first.noise, same.noise)
    assert first.other == same.other
    assert not torch.equal(first.noise, other.noise)
    assert first.other != other.other
    assert first.weight.dtype == torch.float64
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert numpy_state() == states[2]
    assert torch.get_default_dtype() == torch.float32
    assert torch.is_grad_enabled()


def test_a_model_that_reads_its_parameters_is_built_with_values(write):
    path = write(
        """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.fc = nn.Linear(100, 100)
                nn.init.kaiming_normal_(self.fc.weight)
                self.norm = self.fc.weight.norm().item()

        class Shadow(nn.Module):
            def __init__(self):
                super().__init__()
                self.fc = nn.Linear(100, 100)
                self.register_buffer("shadow", self.fc.weight.detach().clone())
        """
    )
    loaded = load_model(f"{path}:Net")
    assert loaded.weights
    assert loaded.model.norm > 0
    assert loaded.initials["fc.weight"].formula == 'kaiming_normal_(nonlinearity="relu")'
    shadow = load_model(f"{path}:Shadow")
    assert shadow.weights
    assert torch.equal(shadow.model.shadow, shadow.model.fc.weight)
    # Seen in the first build, not measured in the second.
    assert shadow.initials["fc.bias"].std == significant(0.1 / math.sqrt(3))


def test_what_no_operation_tells_is_measured(write):
    path = write(
        """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.fc = nn.Linear(300, 300)
                with torch.no_grad():
                    self.fc.weight.normal_().tanh_()
                self.g = nn.utils.parametrizations.weight_norm(nn.Linear(30, 3))
        """
    )
    loaded = load_model(f"{path}:Net")
    assert not loaded.weights
    found = loaded.initials["fc.weight"]
    # Of tanh of a standard normal.
    assert found.std == pytest.approx(0.6279, rel=0.01)
    norms = loaded.initials["g.parametrizations.weight.original0"]
    assert norms.mean == pytest.approx(0.577, rel=0.1)


FAILURES = {
    "Nett": "has no 'Nett'; did you mean Net",
    "number": "is a int: name a module class or a factory",
    "wide": "missing a required argument: 'width'",
    "raises": r"ValueError: bad width 3 \(.*net.py:\d+\)",
    "text": "returned a str, not a torch.nn.Module",
    "empty": "has no parameters",
    "lazy": "the shape of weight is known only after a forward",
    "hooked": "module '1' has forward pre hooks",
    "leave": "SystemExit: 3",
}


@pytest.mark.parametrize("name", FAILURES)
def test_failures_say_what_is_wrong(write, name):
    path = write(
        NET
        + """
def inner(width):
    raise ValueError(f"bad width\\n{width}")


def raises():
    return inner(3)


def text():
    return "Net"


def empty():
    return nn.ReLU()


def lazy():
    return nn.LazyLinear(3)


def hooked():
    net = nn.Sequential(nn.ReLU(), nn.Linear(2, 2))
    net[1].register_forward_pre_hook(lambda *_: None)
    return net


def leave():
    raise SystemExit(3)
"""
    )
    with pytest.raises(ModelSourceError, match=FAILURES[name]) as caught:
        load_model(f"{path}:{name}")
    assert "\n" not in str(caught.value)
    if name in ("raises", "leave", "wide"):
        assert caught.value.__cause__ is not None


def test_the_line_of_a_failure_is_the_users(write):
    path = write("def build():\n    return nn.Linear(-1, 2)\n")
    line = path.read_text().splitlines().index("    return nn.Linear(-1, 2)") + 1
    with pytest.raises(ModelSourceError, match=rf"net\.py:{line}\)$"):
        load_model(f"{path}:build")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import nothing_of_this_name\n", r"ModuleNotFoundError: .*nothing_of_this_name.*net.py:"),
        ("def build(:\n", r"SyntaxError: .*net.py:4\)"),
        ("1 / 0\n", r"ZeroDivisionError: division by zero \(.*net.py:4\)"),
    ],
)
def test_a_file_that_cannot_be_imported(write, code, message):
    with pytest.raises(ModelSourceError, match=message):
        load_model(f"{write(code)}:build")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("resnet50", "is not a specification: write package.module:callable"),
        ("gone_for_test.nets:Net", "there is no module 'gone_for_test'"),
        ("gone.py:Net", "there is no file gone.py"),
        ("no/such thing:Net", "neither a module nor a .py file"),
        ("torch.nn:Lineer", "did you mean Linear"),
        ("torchvision:resnet5O", r"no model 'resnet5O'; did you mean .*resnet50"),
        ("hf:gone.json", "configuration gone.json cannot be read"),
        ("", "is not a specification"),
        (":", "is not a specification"),
    ],
)
def test_specifications_that_name_nothing(spec, message):
    with pytest.raises(ModelSourceError, match=message):
        load_model(spec)


def test_a_missing_library_names_its_extra():
    # In a process of its own, where the library can't be imported whether it is there or not.
    code = (
        "import sys; sys.modules['timm'] = None\n"
        "from planner.loading import load_model\n"
        "load_model('timm:resnet18')\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert "pip install npas-planner[timm]" in result.stderr.splitlines()[-1]


def test_torchvision_needs_no_download():
    loaded = load_model("torchvision:resnet18", {"num_classes": 7})
    assert loaded.model.fc.out_features == 7
    assert shapes(loaded.example) == [(2, 3, 224, 224)]
    assert loaded.initials["bn1.weight"] == Initial("constant", 1.0, 0.0)


def test_example_inputs_of_models_and_their_files(write):
    path = write(NET)
    loaded = load_model(f"{path}:Net")
    assert shapes(loaded.example) == [(2, 4)]
    other = write(
        """
        class Net(nn.Linear):
            example_inputs = (torch.ones(2, 3), "int64:2x5")

            def __init__(self):
                super().__init__(3, 3)

        class Wrong(Net):
            example_inputs = 3

        class Silent(nn.Linear):
            def __init__(self):
                super().__init__(3, 3)
        """,
        "other.py",
    )
    values, indices = load_model(f"{other}:Net").example.args
    assert values.tolist() == [[1.0] * 3] * 2
    assert (indices.shape, indices.dtype) == ((2, 5), torch.int64)
    assert load_model(f"{other}:Silent").example is None
    with pytest.raises(PlannerError, match="example inputs are a int"):
        load_model(f"{other}:Wrong")
    assert load_model("torch.nn:Linear", {"in_features": 2, "out_features": 2}).example is None


def test_inputs_of_a_file_or_a_module(write, tmp_path, monkeypatch):
    path = write(
        """
        import random

        def both():
            import late_for_test

            assert late_for_test.ready
            return {"x": torch.rand(2, 3), "sizes": [random.random(), None]}

        ready = ("2x3", "int64:2x5")
        wrong = 3

        def raises():
            raise ValueError("no data")
        """,
        "inputs_for_test.py",
    )
    write("ready = True\n", "late_for_test.py")
    state = torch.get_rng_state(), random.getstate()
    first, same, other = (load_inputs(f"{path}:both", seed=seed) for seed in (1, 1, 2))
    assert [name for name, _ in first.kwargs] == ["x", "sizes"]
    assert torch.equal(first.leaves()[0], same.leaves()[0])
    assert first.leaves()[1] == same.leaves()[1] != other.leaves()[1]
    assert torch.equal(torch.get_rng_state(), state[0])
    assert random.getstate() == state[1]
    monkeypatch.chdir(tmp_path)
    assert shapes(load_inputs("inputs_for_test:ready")) == [(2, 3), (2, 5)]
    for spec, said in {
        f"{path}:wrong": "example inputs are a int",
        f"{path}:raises": r"raises cannot be made: ValueError: no data \(inputs_for_test.py:17\)",
        f"{path}:gone": "has no 'gone'",
        "gone.py:inputs": "there is no file gone.py",
        "inputs": "is not a specification: write package.module:callable",
    }.items():
        with pytest.raises(PlannerError, match=said):
            load_inputs(spec)


def test_arguments_are_json_or_text():
    texts = ["a=28", "b=1.5", "c=true", "d=False", "e=None", "f=[1, 2]", "g=relu", "h=", "i=a=b"]
    assert parse_arguments([*texts, "j=NaN", 'k="3"']) == {
        "a": 28,
        "b": 1.5,
        "c": True,
        "d": False,
        "e": None,
        "f": [1, 2],
        "g": "relu",
        "h": "",
        "i": "a=b",
        "j": "NaN",
        "k": "3",
    }
    for wrong in (["a"], ["=3"], ["a b=3"], ["a=1", "a=2"]):
        with pytest.raises(ModelSourceError, match="argument"):
            parse_arguments(wrong)


def test_specifications_of_paths_with_folders(write, tmp_path, monkeypatch):
    (tmp_path / "sub").mkdir()
    write("def build():\n    raise KeyError('k')\n", "sub/net.py")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelSourceError, match=rf"\({Path('sub/net.py')}:5\)"):
        load_model("sub/net.py:build")
