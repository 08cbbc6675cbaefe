"""The command: results on standard output, messages on standard error, and what exits with what."""

import ast
import io
import json
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

import cli
import planner

ROOT = Path(__file__).parents[1]
SMALL = [f"{ROOT / 'tests' / 'zoo' / 'mlp.py'}:mlp", "--arg", "width=64"]


def npas(*arguments, cwd):
    """Run the command in this process; returns (exit status, output, messages)."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(cwd)
        patch.setenv("COLUMNS", "80")
        patch.setattr(sys, "argv", ["npas", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
    return end.value.code, out.getvalue(), err.getvalue()


def npas_alone(*arguments, cwd):
    """Run the command in a process of its own, as ``python -m planner``."""
    done = subprocess.run(
        [sys.executable, "-m", "planner", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "80"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """A folder with a plan and its module, and what the command printed."""
    folder = tmp_path_factory.mktemp("planned")
    files = ["-o", "small.plan.json", "--module", "small.py"]
    options = ["--budget", "30%", *files, "--json"]
    status, output, messages = npas_alone("plan", *SMALL, *options, cwd=folder)
    assert status == 0, messages
    return folder, output, messages


def test_help_names_every_command(tmp_path):
    status, output, _ = npas("--help", cwd=tmp_path)
    assert status == 0
    for command in ("plan", "compare", "curve", "emit", "inspect", "check", "schema"):
        assert f" {command} " in output


def test_version(tmp_path):
    assert npas("--version", cwd=tmp_path) == (0, f"npas {planner.__version__}\n", "")


def test_plan_prints_json_alone_and_says_what_it_wrote(planned):
    folder, output, messages = planned
    totals = json.loads(output)["totals"]
    plan = planner.Plan.from_json((folder / "small.plan.json").read_text())
    assert totals["emitted"] == plan.parameter_count <= totals["budget"]
    assert messages == "wrote small.plan.json\nwrote small.py\n"


def test_plan_prints_the_report(tmp_path):
    status, output, messages = npas("plan", *SMALL, "--budget", "30%", cwd=tmp_path)
    assert (status, messages) == (0, "")
    assert "budget" in output
    assert max(len(line) for line in output.splitlines()) <= 80
    assert not list(tmp_path.iterdir())


def test_relative_files_modules_inputs_and_arguments(tmp_path):
    (tmp_path / "net.py").write_text(
        "from torch import nn\n\n\n"
        "def net(sizes, name):\n"
        "    assert name == 'plain text'\n"
        "    return nn.Sequential(*(nn.Linear(sizes[0], sizes[0]) for _ in range(sizes[1])))\n"
    )
    options = ["--budget", "0.5x", "--input", "3x48", "--arg", "sizes=[48, 4]"]
    options += ["--arg", "name=plain text", "--generators", "own,hash", "--seed", "7", "--json"]
    by_file = npas("plan", "net.py:net", *options, cwd=tmp_path)
    by_module = npas("plan", "net:net", *options, cwd=tmp_path)
    for status, output, messages in (by_file, by_module):
        assert status == 0, messages
        report = json.loads(output)
        assert report["totals"]["dense"] == 4 * (48 * 48 + 48)
        assert report["seed"] == 7
        assert {row["generator"] for row in report["generated"]} == {"hash"}


MISTRACED = """
from torch import nn


class Inner(nn.Module):
    def forward(self, x):
        return x if x.device.type == "cpu" else -x


def net():
    return nn.Sequential(nn.Linear(48, 48), Inner(), nn.Linear(48, 48))
"""


def test_plan_verifies_unless_told_not_to(tmp_path):
    (tmp_path / "net.py").write_text(MISTRACED)
    options = ["net.py:net", "--budget", "50%", "--input", "2x48", "-o", "net.plan.json"]
    status, output, messages = npas("plan", *options, cwd=tmp_path)
    assert (status, output) == (1, "")
    assert "module '1' (Inner) is captured wrongly" in messages
    assert f"{tmp_path / 'net.py'}:6" in messages
    assert not (tmp_path / "net.plan.json").exists()
    status, output, messages = npas("plan", *options, "--no-verify", cwd=tmp_path)
    assert status == 0, messages
    assert "verified   no: it was not asked for" in output.splitlines()
    (tmp_path / "net.py").write_text(MISTRACED.replace("-x", "x"))
    status, output, messages = npas("plan", *options, cwd=tmp_path)
    assert status == 0, messages
    assert "verified   outputs equal in train and eval at batches 2 and 3" in output.splitlines()


def test_emit_prints_what_it_would_write(planned, tmp_path):
    folder, _, _ = planned
    plan = folder / "small.plan.json"
    status, output, messages = npas("emit", plan, cwd=tmp_path)
    assert (status, messages) == (0, "")
    assert output == (folder / "small.py").read_text()
    ast.parse(output)
    assert npas("emit", plan, "-o", "again.py", cwd=tmp_path) == (0, "", "wrote again.py\n")
    assert (tmp_path / "again.py").read_text() == output


def test_inspect_reports_what_plan_reported(planned):
    folder, output, _ = planned
    assert npas("inspect", "small.plan.json", "--json", cwd=folder) == (0, output, "")


def test_inspect_lists_every_site_on_request(planned):
    folder, _, _ = planned
    plan = planner.Plan.from_json((folder / "small.plan.json").read_text())
    _, output, _ = npas("inspect", "small.plan.json", "--sites", cwd=folder)
    assert {site.name for site in plan.sites} <= set(output.split())


def test_check_accepts_fresh_files_and_shows_how_others_differ(planned, tmp_path):
    folder, _, _ = planned
    generated = tmp_path / "generated" / "inner"
    generated.mkdir(parents=True)
    for name in ("small.plan.json", "small.py"):
        (generated / name).write_text((folder / name).read_text())
    assert npas("check", "generated", cwd=tmp_path) == (0, "1 generated file up to date\n", "")

    source = generated / "small.py"
    lines = source.read_text().splitlines(keepends=True)
    source.write_text("".join([*lines[:-1], "# edited\n"]))
    status, output, messages = npas("check", "generated", cwd=tmp_path)
    assert (status, output) == (1, "")
    assert messages.startswith("error: ")
    assert "-# edited\n" in messages
    assert f"+{lines[-1]}" in messages

    source.unlink()
    status, _, messages = npas("check", generated / "small.plan.json", cwd=tmp_path)
    assert status == 1
    assert "small.py" in messages


def test_check_of_nothing_fails(tmp_path):
    status, _, messages = npas("check", ".", cwd=tmp_path)
    assert status == 1
    assert "no plan" in messages


def test_schema_is_json(tmp_path):
    status, output, _ = npas("schema", cwd=tmp_path)
    assert status == 0
    assert json.loads(output)["type"] == "object"


PLANNED = ["plan", *SMALL, "--budget", "50%"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["plan", *SMALL, "--budget", "a lot"], "a lot"),
        (["plan", *SMALL, "--budget", "10"], "least"),
        ([*PLANNED, "--generators", "magic"], "magic"),
        ([*PLANNED, "--generators", ""], "generator ''"),
        ([*PLANNED, "--input", "2xx3"], "2xx3"),
        ([*PLANNED, "--input", "complex:2x3"], "complex"),
        ([*PLANNED, "--input", "3x5"], "3x5"),
        ([*PLANNED, "--arg", "width"], "key=value"),
        ([*PLANNED, "--arg", "depth=3"], "depth"),
        ([*PLANNED, "--time-limit", "-1"], "limit"),
        ([*PLANNED, "--allocator", "magic"], "magic"),
        ([*PLANNED, "--allocator", "albert"], "least that this rule"),
        ([*PLANNED, "--allocator", "ring", "--generators", "own"], "generators out"),
        ([*PLANNED, "--target-bytes", "1MB"], "--budget and --target-bytes both say"),
        (["plan", *SMALL, "--target-bytes", "10%"], "unknown unit '%'"),
        (["compare", *SMALL, "--budget", "50%", "--allocators", "ring,rung"], "rung"),
        (["curve", *SMALL, "--budgets", "10%,,20%"], "budget ''"),
        ([*PLANNED, "--effort", "-1"], "limit"),
        ([*PLANNED, "-o", "nowhere/plan.json"], "nowhere"),
        ([*PLANNED, "-o", "one", "--module", "./one"], "two files"),
        (["plan", "nowhere.py:model", "--budget", "10%"], "nowhere.py"),
        (["emit", "nowhere.plan.json"], "nowhere.plan.json"),
        (["inspect", "nowhere.plan.json"], "nowhere.plan.json"),
        (["inspect", "broken.plan.json"], "broken.plan.json"),
        (["check", "nowhere"], "nowhere"),
    ],
    ids=lambda value: " ".join(value[-2:]) if isinstance(value, list) else "",
)
def test_what_the_user_causes_is_one_message(arguments, said, tmp_path):
    (tmp_path / "broken.plan.json").write_text("{")
    status, output, messages = npas(*arguments, cwd=tmp_path)
    assert (status, output) == (1, "")
    assert messages.startswith("error: ")
    assert said in messages
    assert "Traceback" not in messages
    assert [path.name for path in tmp_path.iterdir()] == ["broken.plan.json"]


@pytest.mark.parametrize("wrong", [["--colour"], ["--seed", "x"]])
def test_options_that_are_not_there_are_usage_errors(wrong, tmp_path):
    status, output, messages = npas(*PLANNED, *wrong, cwd=tmp_path)
    assert (status, output) == (2, "")
    assert wrong[0] in messages


def test_the_budget_is_asked_for(tmp_path):
    status, output, messages = npas("plan", *SMALL, cwd=tmp_path)
    assert (status, output) == (2, "")
    assert "--budget" in messages


@pytest.mark.parametrize("option", ["--target-bytes", "--max-gradient-bytes"])
def test_bytes_are_another_way_to_say_the_budget(option, tmp_path):
    status, output, messages = npas("plan", *SMALL, option, "40KB", "--json", cwd=tmp_path)
    assert status == 0, messages
    report = json.loads(output)
    # No buffers, nothing frozen: what is stored is what learns.
    assert report["totals"]["budget"] == 10_000
    assert 39_000 < report["totals"]["gradient_bytes"] <= 40_000
    assert report["budget"].startswith("40KB ")


def test_a_baseline_is_planned_and_emitted(tmp_path):
    options = ["--budget", "30%", "--allocator", "ring", "--module", "ring.py"]
    status, output, messages = npas("plan", *SMALL, *options, cwd=tmp_path)
    assert status == 0, messages
    assert "ring: by rule, objective " in output
    assert "Hash(" in (tmp_path / "ring.py").read_text()


def test_compare_prints_a_table_or_json(tmp_path):
    options = ["compare", *SMALL, "--budget", "30%", "--allocators", "cp-sat,ring,uniform"]
    status, output, messages = npas(*options, cwd=tmp_path)
    assert (status, messages) == (0, "")
    assert [line.split()[0] for line in output.splitlines()[4:7]] == ["cp-sat", "ring", "uniform"]
    assert "narrow: hidden widths times" in output
    status, output, _ = npas(*options, "--json", cwd=tmp_path)
    report = json.loads(output)
    solver, *rules = report["entries"]
    assert all(rule["objective"] <= solver["objective"] for rule in rules)
    assert report["narrow"]["count"] <= report["parameters"]


def test_curve_prints_a_table_or_json_and_draws(tmp_path):
    options = ["curve", *SMALL, "--budgets", "1,20%,50%"]
    status, output, messages = npas(*options, "--html", "curve.html", cwd=tmp_path)
    assert (status, messages) == (0, "wrote curve.html\n")
    assert "too few: at least " in output
    assert "<html>" in (tmp_path / "curve.html").read_text()
    status, output, _ = npas(*options, "--json", cwd=tmp_path)
    points = json.loads(output)["points"]
    assert [point["budget"] for point in points] == ["1", "20%", "50%"]
    assert points[0]["minimum"] > 1
    assert points[1]["objective"] < points[2]["objective"]


def test_what_a_model_prints_stays_off_the_output(tmp_path):
    (tmp_path / "chatty.py").write_text(
        "from torch import nn\n\nprint('hello')\n\n\n"
        "def net():\n    print('building')\n"
        "    return nn.Sequential(*(nn.Linear(32, 32) for _ in range(4)))\n"
    )
    options = ["--budget", "50%", "--input", "2x32", "--json"]
    status, output, messages = npas("plan", "chatty.py:net", *options, cwd=tmp_path)
    assert status == 0
    assert json.loads(output)["model"] == "chatty.py:net"
    assert messages.startswith("hello\nbuilding\n")


def test_a_process_of_its_own_ends_the_same(planned):
    folder, _, _ = planned
    for arguments in (["inspect", "small.plan.json"], ["emit", "nowhere.plan.json"], ["--colour"]):
        assert npas_alone(*arguments, cwd=folder) == npas(*arguments, cwd=folder)


def test_other_exceptions_keep_their_traceback(monkeypatch, planned):
    def fail(_):
        raise RuntimeError("a bug")

    folder, _, _ = planned
    monkeypatch.setattr(sys, "argv", ["npas", "emit", str(folder / "small.plan.json")])
    monkeypatch.setattr(planner, "emit", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        cli.main()


NETS = """
import torch
from torch import nn


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(8, 48)
        self.table = nn.Embedding(20, 48)

    def forward(self, x, ids):
        return self.first(x) + self.table(ids)


def inputs():
    print("made")
    return (torch.zeros(3, 8), torch.zeros(3, dtype=torch.int64))
"""


def test_inputs_of_a_callable_are_those_of_options(tmp_path):
    (tmp_path / "nets.py").write_text(NETS)
    plan = ["plan", "nets.py:Two", "--budget", "50%", "--json"]
    status, output, messages = npas(*plan, "--inputs", "nets.py:inputs", cwd=tmp_path)
    assert status == 0, messages
    assert messages == "made\n"
    same = npas(*plan, "--input", "3x8", "--input", "int64:3", cwd=tmp_path)
    assert json.loads(output) == json.loads(same[1])


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        (["--inputs", "nets.py:inputs", "--input", "3x8"], "use one of them"),
        (["--inputs", "nets.py:gone"], "gone"),
        (["--inputs", "nets.py:Two"], "input"),
        (["--input", "x=3x8", "--input", "x=None"], "given twice"),
        (["--input", "x=3y8"], "3y8"),
    ],
)
def test_inputs_that_cannot_be_read(inputs, said, tmp_path):
    (tmp_path / "nets.py").write_text(NETS)
    status, output, messages = npas("plan", "nets.py:Two", "--budget", "50%", *inputs, cwd=tmp_path)
    assert (status, output) == (1, "")
    assert messages.startswith("error: ")
    assert messages.count("\n") == 1
    assert said in messages
