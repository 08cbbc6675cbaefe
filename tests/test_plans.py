import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings

import strategies
from planner import ir
from planner.errors import OutputError, PlanFormatError
from planner.files import write_text
from planner.plans import Plan, plan_schema, read_plan

INITIAL = ir.Initial("normal", 0.0, 0.02, 'kaiming_normal_(mode="fan_out", nonlinearity="relu")')
SITES = (
    ir.Site("fc.weight", ("head.weight",), "Linear", "weight", (3, 4), "float32", INITIAL, "fc"),
    ir.Site("fc.bias", (), "Linear", "bias", (3,), "float32", ir.Initial("constant", 0, 0), "b"),
)
BLOCK = ir.Definition(
    "Block",
    "Module",
    arguments=("width",),
    children=(("fc", ir.Leaf("Linear", (ir.Slot("width"), 3))),),
    inputs=(ir.Input("x"),),
    train=ir.Graph(
        (
            ir.Operation("h", "module", "fc", (ir.Ref("x"),)),
            ir.Operation("y", "function", "torch.relu", (ir.Ref("h"),), (("k", 1.0),)),
        ),
        (ir.Ref("y"), True, 1, 1.0, "1", None),
    ),
)
PROGRAM = ir.Program(
    (BLOCK,),
    ir.Container("Sequential", (("0", ir.Instance("Block", (("width", 4),))),)),
    (ir.TensorSpec((2, 4), "float32"),),
    (ir.TensorSpec((2, 3), "float32"),),
)
ALLOCATION = ir.Allocation(
    20,
    (ir.Bank("shared", 12, 0, 0.05, 4),),
    (
        ir.Placement("fc.weight", "hash", "shares", "shared", stride=1, scale=0.4),
        ir.Placement("fc.bias", "own", "a bias"),
    ),
    ir.Solution("exact", "OPTIMAL", 7, 7),
)
FIELDS = {
    "spec": "net.py:Net",
    "seed": 3,
    "evidence": "shape",
    "budget": "20",
    "budget_parameters": 20,
    "dense_parameters": 15,
    "program": PROGRAM,
    "sites": SITES,
    "allocation": ALLOCATION,
    "notes": ("a remark", "größer"),
}


def names_in(folder):
    return [path.name for path in folder.iterdir()]


def make(**changes):
    return Plan(**{**FIELDS, **changes})


def changed(change):
    """The plan's file with ``change`` applied to its data."""
    data = json.loads(make().to_json())
    change(data)
    return json.dumps(data)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(strategies.plan_fields())
def test_every_plan_survives_json(fields):
    plan = Plan(**fields)
    text = plan.to_json()
    again = Plan.from_json(text)
    assert again == plan
    # repr tells True from 1 from 1.0, which == does not.
    assert repr(again) == repr(plan)
    assert again.to_json() == text
    assert again.digest == plan.digest == json.loads(text)["digest"]


def test_types_of_values_stay_apart():
    again = Plan.from_json(make().to_json())
    output = again.program.definitions[0].train.output
    assert [type(item) for item in output] == [ir.Ref, bool, int, float, str, type(None)]


def test_an_integer_given_for_a_float_is_made_one():
    text = make().to_json()
    assert '"mean": 0.0' in text
    assert type(make().sites[1].initial.mean) is float


def test_rows_have_a_line_each_and_defaults_are_left_out():
    lines = make().to_json().splitlines()
    placements = [line for line in lines if '"site": ' in line]
    assert len(placements) == 2
    assert len([line for line in lines if '"result": ' in line]) == 2
    assert json.loads(placements[1].strip()) == {
        "generator": "own",
        "reason": "a bias",
        "site": "fc.bias",
    }
    assert len([line for line in lines if '"parameter": ' in line]) == 2
    assert make().to_json().endswith("}\n")


def test_a_change_changes_the_digest():
    assert make(seed=4).digest != make().digest
    assert make().digest == make().digest
    bank = replace(ALLOCATION, banks=(replace(ALLOCATION.banks[0], std=0.06),))
    assert make(allocation=bank).digest != make().digest


def test_layout_is_not_part_of_the_digest():
    assert Plan.from_json(changed(lambda _: None)) == make()


def set_in(*path, value):
    def change(data):
        for key in path[:-1]:
            data = data[key]
        data[path[-1]] = value

    return change


WRONG = {
    "digest": (set_in("seed", value=9), "digest differs"),
    "no digest": (lambda data: data.pop("digest"), "digest differs"),
    "version": (set_in("version", value=2), "version 2"),
    "boolean version": (set_in("version", value=True), "version True"),
    "no version": (lambda data: data.pop("version"), "version None"),
    "no planner": (lambda data: data.pop("planner"), "planner: missing"),
    "unknown field": (set_in("extra", value=1), "extra: unknown"),
    "missing field": (lambda data: data.pop("seed"), "seed: missing"),
    "unknown site field": (set_in("sites", 0, "colour", value=1), r"sites\[0\].colour: unknown"),
    "wrong type": (set_in("sites", 0, "name", value=1), r"sites\[0\].name: .*string"),
    "boolean for integer": (set_in("seed", value=True), "seed: .*integer"),
    "float for integer": (set_in("allocation", "budget", value=20.0), "allocation.budget: "),
    "string for float": (
        set_in("allocation", "banks", 0, "std", value="0.05"),
        r"allocation.banks\[0\].std: .*number",
    ),
    "generator": (
        set_in("allocation", "placements", 0, "generator", value="magic"),
        r"allocation.placements\[0\].generator",
    ),
    "strange value": (
        set_in("program", "definitions", 0, "train", "output", value={"import": "os"}),
        r"program.definitions\[0\].train.output: not one of",
    ),
    "strange node": (set_in("program", "root", value={"x": 1}), "program.root: not one of"),
    "node with more": (set_in("program", "root", "y", value=1), "program.root.y: unknown"),
    "bank": (
        set_in("allocation", "placements", 0, "bank", value="other"),
        "no bank 'other'",
    ),
    "bank of own": (
        set_in("allocation", "placements", 1, "bank", value="shared"),
        "'own' reads none",
    ),
    "site": (set_in("allocation", "placements", 0, "site", value="gone"), "'gone' is not a site"),
    "placement": (lambda data: data["allocation"]["placements"].pop(), "has no placement"),
    "twice placed": (
        set_in("allocation", "placements", 1, "site", value="fc.weight"),
        "'fc.weight' stands twice",
    ),
    "alias": (set_in("sites", 0, "aliases", value=["fc.bias"]), "'fc.bias' stands twice"),
    "site name": (set_in("sites", 0, "name", value="fc.we ight"), "not a name of letters"),
    "formula": (
        set_in("sites", 0, "initial", "formula", value="normal_(std=__import__('os'))"),
        "not a known initialiser",
    ),
    "definition": (
        set_in("program", "root", "children", 0, 1, "definition", value="Other"),
        "'Other', which is not defined",
    ),
    "argument": (
        set_in("program", "root", "children", 0, 1, "arguments", value=[["height", 4]]),
        "no argument 'height'",
    ),
    "definition name": (
        set_in("program", "definitions", 0, "name", value="A:\n import os #"),
        "not a Python name",
    ),
    "keyword": (set_in("program", "definitions", 0, "name", value="class"), "not a Python name"),
    "attribute": (
        set_in("program", "definitions", 0, "children", 0, 0, value="f'c"),
        "not a name of letters",
    ),
    "child of container": (
        set_in("program", "root", "children", 0, 0, value="a b"),
        "not a name of letters",
    ),
    "result": (
        set_in("program", "definitions", 0, "train", "operations", 0, "result", value="x;y"),
        "not a Python name",
    ),
    "target": (
        set_in("program", "definitions", 0, "train", "operations", 0, "target", value="gone"),
        "reads 'gone'",
    ),
    "function": (
        set_in("program", "definitions", 0, "train", "operations", 1, "target", value="f()"),
        "not a Python name",
    ),
    "reference": (
        set_in("program", "definitions", 0, "train", "operations", 0, "args", value=[{"ref": "y"}]),
        "reads 'y' before",
    ),
    "slot": (set_in("program", "definitions", 0, "arguments", value=[]), "'width'"),
    "special": (
        set_in(
            "program",
            "definitions",
            0,
            "train",
            "output",
            value={"special": "dtype", "text": "float32)"},
        ),
        "not a dtype",
    ),
    "two budgets": (set_in("budget_parameters", value=21), "budget is 20"),
    "surrogate": (set_in("spec", value="\ud800"), "invalid plan"),
    "large": (set_in("seed", value=1 << 63), "64 bits"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_corrupted_plan_is_refused_in_one_line(name):
    change, message = WRONG[name]
    with pytest.raises(PlanFormatError, match=message) as caught:
        Plan.from_json(changed(change))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        ("[]", "not a JSON object"),
        ("{", r"not JSON: .*line 1"),
        ('{"a": NaN}', "NaN"),
        ('{"a": -Infinity}', "Infinity"),
        ('{"a": 1e999}', "not finite"),
        ('{"a": ' + "9" * 5000 + "}", "not JSON"),
        ('{"a": 1, "a": 2}', "'a' twice"),
        ("[" * 100_000 + "]" * 100_000, "nested deeper"),
        ('{"a":' + "[" * 200 + "]" * 200 + "}", "nested deeper"),
        ('"' + "a" * 10 + '"', "not a JSON object"),
    ],
)
def test_text_that_is_no_plan_is_refused(text, message):
    with pytest.raises(PlanFormatError, match=message):
        Plan.from_json(text)


def test_python_values_are_checked_as_well():
    with pytest.raises(ValueError, match="valid tuple"):
        make(sites=list(SITES))
    with pytest.raises(ValueError, match="finite"):
        make(allocation=replace(ALLOCATION, banks=(ir.Bank("shared", 1, 0, float("nan"), 4),)))


def test_bytes_are_equal_in_another_process(tmp_path):
    make().save(tmp_path / "plan.json")
    code = (
        "import sys; from planner.plans import read_plan; "
        "sys.stdout.write(read_plan(sys.argv[1]).to_json())"
    )
    for seed in ("1", "2"):
        result = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "plan.json")],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            check=True,
        )
        assert result.stdout == (tmp_path / "plan.json").read_bytes()


def test_importing_the_planner_imports_neither_torch_nor_pydantic():
    code = "import planner, sys; print([m for m in ('torch', 'pydantic') if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, text=True
    )
    assert result.stdout == "[]\n"


def test_reading_a_plan_imports_no_torch(tmp_path):
    make().save(tmp_path / "plan.json")
    code = (
        "import sys; from planner.plans import read_plan; read_plan(sys.argv[1]); "
        "print('torch' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "plan.json")],
        capture_output=True,
        check=True,
        text=True,
    )
    assert result.stdout == "False\n"


def test_read_plan_names_the_file(tmp_path):
    with pytest.raises(PlanFormatError, match=r"gone\.json.*No such file"):
        read_plan(tmp_path / "gone.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(PlanFormatError, match=r"bad\.json: .*not JSON"):
        read_plan(tmp_path / "bad.json")
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe")
    with pytest.raises(PlanFormatError, match=r"bytes\.json cannot be read"):
        read_plan(tmp_path / "bytes.json")


def test_schema_describes_the_file():
    schema = plan_schema()
    assert {"digest", "version", "program", "sites"} <= set(schema["required"])
    assert schema["additionalProperties"] is False


def test_writing_replaces_the_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "plan.json"
    path.write_text("before")
    path.chmod(0o640)
    write_text(path, "a\nb\n")
    assert path.read_bytes() == b"a\nb\n"
    assert path.stat().st_mode & 0o777 == 0o640
    assert names_in(tmp_path) == ["plan.json"]


def test_a_failed_write_keeps_the_old_file_and_leaves_no_other(tmp_path):
    path = tmp_path / "plan.json"
    path.write_text("before")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "half \ud800")
    assert path.read_text() == "before"
    assert names_in(tmp_path) == ["plan.json"]


@pytest.mark.parametrize(
    ("name", "message"),
    [("gone/plan.json", "no folder"), (".", "is a folder"), ("x" * 300, "cannot write")],
)
def test_what_cannot_be_written_is_said(tmp_path, name, message):
    with pytest.raises(OutputError, match=message):
        write_text(tmp_path / name, "text")
    assert names_in(tmp_path) == []


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "real.json").write_text("before")
    (tmp_path / "link.json").symlink_to(tmp_path / "real.json")
    write_text(tmp_path / "link.json", "after")
    assert (tmp_path / "link.json").is_symlink()
    assert (tmp_path / "real.json").read_text() == "after"
