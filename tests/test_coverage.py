"""A sample of ``make coverage``, and what its verdicts rest on."""

import json
from collections import Counter, namedtuple
from dataclasses import dataclass

import pytest
import torch
from torch import nn

import planner
from benchmarks.coverage import catalogue
from benchmarks.coverage.case import Case, tensors
from benchmarks.coverage.comparison import DifferenceError, deviation
from benchmarks.coverage.examination import STEPS, Examination
from benchmarks.coverage.standalone import import_source, torch_alone
from emitted import ROOT, run

SAMPLE = (
    "torch:GRU",
    "torch:EmbeddingBag",
    "torch:hard/ManyOutputs",
    "torchvision:squeezenet1_1",
    "torchvision:mobilenet_v3_small",
    "timm:test_mambaout",
    "timm:test_nfnet",
)


def coverage(*arguments, output):
    path = f"{ROOT}:{ROOT / 'tests'}"
    options = (*arguments, "--output", output)
    return run("-m", "benchmarks.coverage", *options, PYTHONPATH=path, OMP_NUM_THREADS="1")


@pytest.mark.slow
@pytest.mark.sample
def test_a_sample_passes_and_a_run_resumes(tmp_path):
    output = tmp_path / "coverage.json"
    only = [word for name in SAMPLE for word in ("--only", name)]
    done = coverage(*only, output=output)
    assert done.status == 0, done.output + done.messages
    content = json.loads(output.read_text())
    assert {one["name"] for one in content["outcomes"]} == set(SAMPLE)
    for one in content["outcomes"]:
        assert list(one["passed"]) == list(STEPS)
        assert one["facts"]["parameters"] <= one["facts"]["budget"]
    assert content["total"] == {"cases": len(SAMPLE), **dict.fromkeys([*STEPS, "all"], len(SAMPLE))}
    again = coverage(*only, "--resume", output=output)
    assert (again.status, again.messages) == (0, "")
    assert json.loads(output.read_text()) == content


ISOLATED = """
import os, time, torch
from benchmarks.coverage.case import Case, tensors
from benchmarks.coverage.isolation import Limits, examine_all

def crash():
    os.abort()

def hang():
    time.sleep(60)

def spin():
    while True:
        pass

def flood():
    return torch.zeros(1 << 30)

def refuse():
    raise ValueError("no such model")

def fine():
    return torch.nn.Linear(3, 3)

def show(seconds, *builders):
    cases = [Case(one.__name__, "torch", "", one, tensors((3,))) for one in builders]
    for one in examine_all(cases, Limits(seconds, 3, ("runs",)), jobs=2):
        print(one.name, list(one.passed), one.failed.get("runs"))

show(1, crash, spin, flood, refuse, fine)
show(0.4, hang)
"""


def test_what_crashes_hangs_or_floods_ends_alone():
    path = f"{ROOT}:{ROOT / 'tests'}"
    done = run("-c", ISOLATED, PYTHONPATH=path, OMP_NUM_THREADS="1")
    assert done.status == 0, done.messages
    lines = dict(line.split(" ", 1) for line in done.output.splitlines())
    assert lines["crash"] == "[] the process ended with SIGABRT"
    assert lines["hang"] == "[] not done within 4 s"
    assert lines["spin"] == "[] the process ended with SIGXCPU"
    assert "allocate" in lines["flood"]
    assert lines["refuse"].startswith("[] ValueError: no such model")
    assert lines["fine"] == "['runs'] None"


def examination(build, *shapes):
    return Examination(Case("one", "torch", "", build, tensors(*shapes)))


def test_an_emitted_module_that_computes_something_else_is_found():
    one = examination(lambda: nn.Sequential(nn.Linear(3, 3), nn.ReLU()), (3,))
    one.runs()
    one.plans()
    assert one.equals()["deviation"] == 0
    assert one.source.count("nn.ReLU()") == 1
    one.source = one.source.replace("nn.ReLU()", "nn.LeakyReLU()")
    with pytest.raises(DifferenceError, match="eval, batch 2: output differs by"):
        one.equals()


def test_an_emitted_module_that_needs_the_planner_is_found():
    one = examination(lambda: nn.Linear(3, 3), (3,))
    one.runs()
    one.plans()
    one.source += "\nfrom planner import plan\n"
    with pytest.raises(ImportError):
        one.equals()


class Cut(nn.Module):
    """A model of which a part gets no gradient, nor does what is emitted from it."""

    def __init__(self):
        super().__init__()
        self.fc, self.scale = nn.Linear(64, 64), nn.Parameter(torch.ones(64))

    def forward(self, x):
        return self.fc(x).detach() * self.scale


def test_a_bank_without_a_gradient_is_found():
    one = examination(Cut, (64,))
    one.runs()
    with pytest.raises(DifferenceError, match="no gradient reaches bank"):
        one.trains()


class Forgetful(nn.Module):
    """A model whose output depends on more than its inputs and the seed."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return x + self.calls


def test_an_original_that_does_not_repeat_itself_is_found():
    with pytest.raises(DifferenceError, match="the original repeated"):
        examination(Forgetful, (3,)).runs()


Point = namedtuple("Point", "x y")  # noqa: PYI024  the untyped kind counts as well


@dataclass
class Output:
    x: torch.Tensor
    y: object = None


def test_outputs_compare_field_by_field():
    x, y = torch.tensor([1.0, -2.0]), torch.tensor([3, 4])
    near = torch.tensor([1.0, -2.00001])
    for expected, found in [
        (Output(x), {"x": near}),
        (Output(x, (y, 2)), {"x": x, "y": (y, 2)}),
        (Output(x, y), Point(x, y)),
        (Output(x, y), (x, y)),
        ({"x": [x, None]}, {"x": [x, None]}),
        (torch.tensor([1.0, -torch.inf]), torch.tensor([1.0, -torch.inf])),
    ]:
        assert deviation(expected, found) < 1e-5
    assert deviation(x, near) == pytest.approx(5e-6, rel=0.1)


@pytest.mark.parametrize(
    ("expected", "found"),
    [
        (Output(torch.ones(2)), {"x": torch.tensor([1.0, 1.001])}),
        (Output(torch.ones(2)), {"y": torch.ones(2)}),
        (Output(torch.ones(2)), {"x": torch.ones(2), "y": torch.ones(2)}),
        (Output(torch.ones(2), 2), (torch.ones(2), 3)),
        (Output(torch.ones(2)), (torch.ones(2), torch.ones(2))),
        ((torch.ones(2), torch.ones(2)), (torch.ones(2),)),
        (torch.ones(2), torch.ones(1, 2)),
        (torch.ones(2), torch.ones(2, dtype=torch.float64)),
        (torch.tensor([1, 2]), torch.tensor([1, 3])),
        (torch.tensor([torch.inf, 1.0]), torch.tensor([-torch.inf, 1.0])),
        (torch.tensor([1.0, 1.0]), torch.tensor([torch.nan, 1.0])),
        (torch.zeros(2), torch.full((2,), 1e-3)),
        (torch.ones(2), 1.0),
    ],
)
def test_differences_are_found(expected, found):
    with pytest.raises(DifferenceError):
        deviation(expected, found)


def test_torch_is_alone_for_a_while():
    with torch_alone():
        module = import_source("import torch\nimport json\nvalue = 3")
        with pytest.raises(ImportError):
            import_source("import planner.ir")
        with pytest.raises(ImportError):
            import_source("import torchvision")
    assert module.value == 3
    assert import_source("import planner.ir").planner is planner


def test_the_catalogue_has_every_library():
    cases = catalogue.find()
    names = [case.name for case in cases]
    assert len(names) == len(set(names))
    counts = Counter(case.library for case in cases)
    assert counts["timm"] >= 70 and counts["torchvision"] >= 109
    types = {
        case.build.args[0].partition("For")[0].removesuffix("Model")
        for case in cases
        if case.library == "transformers"
    }
    assert len(types) >= 45
    sample, again = ([case.name for case in catalogue.find(sample=10)] for _ in range(2))
    assert sample == again and len(sample) == 10
