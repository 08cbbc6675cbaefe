"""Mistakes in the input: exit status 1, one message that says what is wrong, nothing written."""

import json
import os
import re

import pytest

from emitted import Command
from models import ZOO

SMALL = [f"{ZOO / 'mlp.py'}:mlp", "--arg", "width=64"]

MODELS = """
import torch
from torch import nn


def broken():
    raise RuntimeError("the flux is missing")


def number():
    return 7


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(32, 32)

    def forward(self, x):
        x = self.linear(x)
        if x.sum() > 0:
            x = -x
        return x


class Outer(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(32, 32)
        self.inner = Branching()

    def forward(self, x):
        return self.inner(self.first(x))


def hooked():
    model = nn.Sequential(nn.Linear(32, 32), nn.Linear(32, 32))
    model[1].register_forward_hook(lambda module, args, output: output * 2)
    return model


def plain():
    return nn.Sequential(*(nn.Linear(32, 32) for _ in range(4)))
"""
BRANCH = 1 + MODELS.split("\n").index("        if x.sum() > 0:")

PLAIN = ["user.py:plain", "--budget", "50%"]
INPUT = ["--input", "2x32"]


@pytest.fixture(scope="module")
def npas(tmp_path_factory):
    command = Command(tmp_path_factory.mktemp("command"))
    yield command
    command.close()


@pytest.fixture(scope="module")
def plan_text(npas, tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    done = npas("plan", *SMALL, "--budget", "30%", "-o", "good.plan.json", cwd=folder)
    assert done.status == 0, done.messages
    return (folder / "good.plan.json").read_text()


@pytest.fixture
def folder(tmp_path, plan_text):
    """A user's folder: models, a good plan, and plans spoilt in several ways."""
    (tmp_path / "user.py").write_text(MODELS)
    (tmp_path / "taken").mkdir()
    os.mkfifo(tmp_path / "pipe")
    good = json.loads(plan_text)
    plans = {
        "good": plan_text,
        "cut": plan_text[: len(plan_text) // 2],
        "empty": "",
        "list": "[]",
        "foreign": '{"name": "not a plan"}',
        "unknown": json.dumps({**good, "surprise": 1}),
        "mistyped": json.dumps({**good, "seed": "zero"}),
        "siteless": json.dumps({**good, "sites": []}),
    }
    for name, text in plans.items():
        (tmp_path / f"{name}.plan.json").write_text(text)
    (tmp_path / "bytes.plan.json").write_bytes(b"\xff\xfe\x00plan")
    return tmp_path


def listing(folder):
    """Every file below ``folder`` with its content; compiled modules aside."""
    return {
        path.relative_to(folder): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
        if "__pycache__" not in path.parts
    }


@pytest.fixture
def message(npas, folder):
    """A function that gives the message of a command, which must fail as it should."""

    def run(*arguments):
        before = listing(folder)
        done = npas(*arguments, cwd=folder)
        assert done.status == 1, done.messages
        assert done.output == ""
        assert done.messages.startswith("error: ")
        assert "Traceback" not in done.messages
        assert done.messages.count("error: ") == 1
        assert listing(folder) == before
        return done.messages

    return run


WRITE = ["-o", "new.plan.json", "--module", "new.py"]


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("user.py:missing", ["missing", "user.py"]),
        ("nowhere.py:model", ["nowhere.py"]),
        ("no_such_package.models:net", ["no_such_package"]),
        ("torchvision:resnet5000", ["resnet5000"]),
        ("plain", ["plain", "package.module:callable"]),
        ("user.py:broken", ["RuntimeError", "the flux is missing", "user.py:7"]),
        ("user.py:number", ["user.py:number", "int"]),
        ("user.py:hooked", ["hook", "'1'"]),
    ],
)
def test_models_that_cannot_be_built(model, said, message):
    text = message("plan", model, "--budget", "50%", *INPUT, *WRITE)
    assert all(part in text for part in said), text


@pytest.mark.parametrize(
    "budget", ["0", "abc", "-5%", "0%", "10%%", "", "nan", "1e400", "inf%", "1e17"]
)
def test_budgets_that_cannot_be_read(budget, message):
    text = message("plan", *PLAIN[:1], f"--budget={budget}", *INPUT, *WRITE)
    assert budget in text


def test_budget_below_the_least(message, npas, folder):
    plan = ["plan", "user.py:plain", *INPUT, "--budget"]
    said = message(*plan, "100", *WRITE)
    assert "100 parameters" in said
    minimum = re.search(r"least possible for this model is (\d+)", said)[1]
    assert npas(*plan, minimum, cwd=folder).status == 0
    assert minimum in message(*plan, str(int(minimum) - 1))


@pytest.mark.parametrize(("model", "module"), [("Branching", "Branching"), ("Outer", "inner")])
def test_forwards_that_depend_on_data(model, module, message):
    text = message("plan", f"user.py:{model}", "--budget", "50%", *INPUT, *WRITE)
    assert module in text
    assert f"user.py:{BRANCH}" in text


@pytest.mark.parametrize(
    ("given", "said"),
    [([], "--input"), (["--input", "2x33"], "33"), ([*INPUT, *INPUT], "input")],
    ids=["missing", "wrong shape", "too many"],
)
def test_inputs_that_do_not_fit(given, said, message):
    assert said in message("plan", *PLAIN, *given, *WRITE)


# Root may write into read-only folders, but nobody can make a file in /proc.
@pytest.mark.parametrize(
    "place", ["missing/new.json", "taken", "pipe", "user.py/new.json", "/proc/new.json"]
)
def test_outputs_that_cannot_be_written(place, message):
    for command in (
        ["plan", *PLAIN, *INPUT, "-o", place],
        ["plan", *PLAIN, *INPUT, "--module", place],
        ["emit", "good.plan.json", "-o", place],
    ):
        assert place in message(*command)


def test_of_two_outputs_both_are_written_or_none(message):
    text = message("plan", *PLAIN, *INPUT, "-o", "new.plan.json", "--module", "missing/new.py")
    assert "missing/new.py" in text


@pytest.mark.parametrize(
    "name", ["cut", "empty", "list", "foreign", "unknown", "mistyped", "siteless", "bytes"]
)
@pytest.mark.parametrize("command", ["emit", "inspect", "check"])
def test_plans_that_cannot_be_read(command, name, message):
    assert f"{name}.plan.json" in message(command, f"{name}.plan.json")


@pytest.mark.parametrize("listed", ["magic", "own,magic", "own,,hash", ""])
def test_generators_that_do_not_exist(listed, message):
    text = message("plan", *PLAIN, *INPUT, f"--generators={listed}", *WRITE)
    assert "generator" in text
