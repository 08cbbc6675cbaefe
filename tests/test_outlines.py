"""A forward that cannot be captured: its model is planned all the same, to be read."""

import pytest
import torch
from torch import nn

import planner
from planner.errors import TraceError
from test_cli import npas


class Compares(nn.Module):
    """Goes one of two ways by the values of its input."""

    def __init__(self):
        super().__init__()
        self.fc, self.gain = nn.Linear(16, 16), nn.Parameter(torch.ones(16, 16))

    def forward(self, x):
        return self.fc(x) @ self.gain if x.sum() > 0 else x


class Around(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = Compares()

    def forward(self, x):
        return self.inner(x)


def test_what_cannot_be_captured_is_planned_to_be_read():
    plan = planner.plan(Around(), "50%", (torch.randn(2, 16),), deterministic_limit=1)
    again = planner.Plan.from_json(plan.to_json())
    assert again == plan
    assert {site.name: site.kept for site in plan.sites} == {
        "inner.gain": None,
        "inner.fc.weight": None,
        "inner.fc.bias": "bias",
    }
    assert plan.parameter_count <= plan.budget_parameters == 264
    assert all(one.train is None for one in plan.program.definitions)
    obstacle = plan.program.obstacle
    assert "module 'inner' (Compares)" in obstacle and "test_outlines.py:" in obstacle
    with pytest.raises(TraceError, match="for reading alone") as caught:
        planner.emit(again)
    assert obstacle in str(caught.value)


@pytest.fixture
def compares(tmp_path):
    path = tmp_path / "compares.py"
    path.write_text(
        "from torch import nn\n\n\n"
        "class Compares(nn.Linear):\n"
        "    def forward(self, x):\n"
        "        return super().forward(x) if x.sum() > 0 else x\n\n\n"
        "def model():\n"
        "    return nn.Sequential(nn.Linear(16, 16), Compares(16, 16))\n"
    )
    return f"{path}:model"


def test_the_command_reports_what_cannot_be_captured(compares, tmp_path):
    options = ("--budget", "50%", "--input", "2x16", "-o", "plan.json")
    status, report, messages = npas("plan", compares, *options, cwd=tmp_path)
    assert (status, messages) == (0, "wrote plan.json\n")
    assert "captured   not, so that it cannot be emitted:" in report
    # Long lines, such as those with a long path, are broken.
    assert "compares.py:6" in report.replace("\n", "")
    assert npas("inspect", "plan.json", cwd=tmp_path) == (0, report, "")
    status, output, messages = npas("emit", "plan.json", "-o", "small.py", cwd=tmp_path)
    assert (status, output) == (1, "")
    assert messages.startswith("error: this plan is for reading alone")
    assert not (tmp_path / "small.py").exists()


def test_the_command_writes_nothing_that_it_cannot_emit(compares, tmp_path):
    options = ("--budget", "50%", "--input", "2x16", "-o", "plan.json", "--module", "small.py")
    status, output, messages = npas("plan", compares, *options, cwd=tmp_path)
    assert (status, output) == (1, "")
    assert messages.startswith("error: ") and "compares.py:6" in messages
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["compares.py"]
