"""Emitted files: they compute what the model computes, and hold nothing but what a plan may."""

import ast
import dataclasses
import keyword
import re
import subprocess

import pytest
import torch
from ruff import find_ruff_bin
from torch import nn

import hard_models
import hard_operations  # noqa: F401  its models join the table
import hard_states  # noqa: F401  its models join the table
import planner
from planner import operations
from planner.errors import PlanFormatError
from planner.ir import (
    Buffer,
    Definition,
    Graph,
    Input,
    Instance,
    Items,
    Leaf,
    Operation,
    Parameter,
    Program,
    Ref,
    Slot,
    Special,
)
from planner.resources import template_root
from round_trips import architecture, assert_equal_outputs, dense_plan, emitted, tensors
from small_plans import small_plan


@pytest.mark.parametrize("name", list(hard_models.CASES))
def test_outputs_are_the_models_own(name):
    factory, shapes = hard_models.CASES[name]
    model = factory()
    source, built = emitted(model, tensors(shapes, 2))
    assert_equal_outputs(model, built, shapes)
    done = subprocess.run(
        [find_ruff_bin(), "format", "--isolated", "--line-length", "100", "-"],
        input=source,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == source
    assert "/work" not in source and "/home" not in source and "/tmp" not in source
    assert not re.search(r"\b20\d\d-\d\d", source)


def test_comparison_sees_a_difference():
    model, other = nn.Sequential(nn.Linear(4, 4)), nn.Sequential(nn.Linear(4, 4))
    with pytest.raises(AssertionError):
        assert_equal_outputs(model, other, [(2, 4)])


def emit_case(name):
    factory, shapes = hard_models.CASES[name]
    return planner.emit(dense_plan(factory(), tensors(shapes, 2)))


def test_emission_is_deterministic():
    torch.manual_seed(0)
    one = emit_case("StochasticDepth")
    torch.manual_seed(0)
    assert emit_case("StochasticDepth") == one


def test_modes_that_differ_in_structure_have_a_branch_each():
    source = architecture(emit_case("StochasticDepth"))
    assert "if not self.training:" in source
    assert "bernoulli_" in source
    dropout = architecture(emit_case("FunctionalDropout"))
    assert "if not self.training" not in dropout
    assert dropout.count("self.training") == 2


def test_constants_made_in_forward_stand_once():
    assert architecture(emit_case("MadeInForward")).count("nn.Buffer") == 1


class Deep(nn.Module):
    def __init__(self, depth):
        super().__init__()
        self.blocks = nn.ModuleList(hard_models.Masked() for _ in range(depth))

    def forward(self, x):
        for block in self.blocks:
            x = block(x).relu()
        return x


def test_source_does_not_grow_with_depth():
    sources = [
        planner.emit(dense_plan(Deep(depth), [torch.randn(2, 4)])).replace(f"range({depth})", "")
        for depth in (12, 24)
    ]
    classes = [re.findall(r"^class (\w+)", source, re.MULTILINE) for source in sources]
    assert classes[0] == classes[1]
    assert len({architecture(source) for source in sources}) == 1
    assert "for block in self.blocks:" in sources[0]


# --------------------------------------------------------------------------- hostile plans


def with_program(program):
    """A plan with ``program`` that was not checked when it was made."""
    plan = small_plan()
    return plan.model_copy(update={"program": program, "sites": ()})


X = Ref("x")
EVIL = "__import__('os').system('true')"


def program_of(operation=None, *, output=X, **fields):
    """A program of one class with one operation; fields replace the definition's."""
    operations = () if operation is None else (operation,)
    definition = Definition(
        "Model",
        "Module",
        children=(("fc", Leaf("Linear", (8, 8))),),
        inputs=(Input("x"),),
        train=Graph(operations, output),
    )
    definition = dataclasses.replace(definition, **fields)
    return Program((definition,), Instance(definition.name), (), ())


def refuse(program):
    with pytest.raises(PlanFormatError):
        planner.emission.emit(with_program(program))


def operation(op, target, *args, **kwargs):
    return Operation("y", op, target, args, tuple(kwargs.items()))


def test_the_harmless_program_is_emitted():
    found = with_program(program_of(operation("function", "torch.relu", X), output=Ref("y")))
    assert "torch.relu(x)" in planner.emission.emit(found)


@pytest.mark.parametrize(
    "hostile",
    [
        operation("function", "os.system", "true"),
        operation("function", "builtins.eval", EVIL),
        operation("function", "builtins.exec", EVIL),
        operation("function", "builtins.open", "f", "w"),
        operation("function", "torch.load", "f"),
        operation("function", "torch.hub.load", "f"),
        operation("function", "operator.attrgetter", "__class__"),
        operation("function", EVIL),
        operation("method", "__class__", X),
        operation("method", "__reduce__", X),
        operation("method", "apply_", X, Special("function", "torch.relu")),
        operation("method", "numpy", X),
        operation(
            "method",
            "add",
        ),
        operation("function", "builtins.getattr", X, "__globals__"),
        operation("function", "builtins.getattr", X, "data"),
        operation("function", "builtins.getattr", X),
        operation("function", "builtins.getattr", X, X),
        operation("function", "torch.relu", Special("function", "os.system")),
        operation("function", "torch.relu", Special("dtype", f"float32, {EVIL}")),
        operation("function", "torch.relu", Slot(f"x, {EVIL}")),
        operation("function", "torch.relu", X, **{f"a={EVIL}, b": 1}),
        operation("function", "torch.relu", X, **{"class": 1}),
    ],
    ids=repr,
)
def test_hostile_operations_are_refused(hostile):
    refuse(program_of(hostile, output=Ref("y")))


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "Model:\n    pass\nclass B"},
        {"name": "class"},
        {"arguments": (f"a={EVIL}",)},
        {"inputs": (Input("x"), Input(f"y={EVIL}"))},
        {"inputs": (Input("x"), Input("def"))},
        {"children": (("fc", Leaf("modules.os", (8,))),)},
        {"children": (("fc", Leaf("Module.__init__", (8,))),)},
        {"children": (("fc", Leaf("init", (8,))),)},
        {"children": (("fc", Leaf("Parameter", (8,))),)},
        {"children": (("fc", Leaf("Linear", (8, 8), ((f"bias={EVIL}, a", 1),))),)},
        {"children": (("fc", Leaf("Linear", (8, Ref("x")))),)},
        {"parameters": (Parameter("p=1;q", (1,)),)},
        {"parameters": (Parameter("p", (1,), f"float32), {EVIL}, ("),)},
        {"buffers": (Buffer("b", (1,), "float32", True, data='", ' + EVIL + ', "'),)},
        {"buffers": (Buffer("b", (1,), "float32", True),)},
        {"buffers": (Buffer('b", 0)', (1,), "float32", True, data="AA=="),)},
        {
            "buffers": (
                Buffer(
                    "b", (1,), "float32", True, expression=(operation("function", "os.getcwd"),)
                ),
            )
        },
        {
            "buffers": (
                Buffer(
                    "b", (1,), "float32", True, expression=(operation("attribute", "fc.weight"),)
                ),
            )
        },
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_hostile_definitions_are_refused(fields):
    refuse(program_of(**fields))


def test_hostile_strings_are_quoted():
    text = '\'"""\n\\' + EVIL
    program = program_of(
        operation("function", "torch.einsum", text, Items((X, text))), output=(Ref("y"), text)
    )
    source = planner.emission.emit(with_program(program))
    strings = [node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)]
    assert strings.count(text) == 3
    assert not [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Name) and node.id == "__import__"
    ]


def test_hostile_initialisers_are_refused():
    plan = small_plan()
    initial = dataclasses.replace(plan.sites[0].initial, formula=f"ones_(), {EVIL}, (")
    sites = tuple(dataclasses.replace(site, initial=initial) for site in plan.sites)
    with pytest.raises(PlanFormatError):
        planner.Plan(**{**dict(plan), "sites": sites})
    own = tuple(
        dataclasses.replace(one, generator="own", bank=None) for one in plan.allocation.placements
    )
    allocation = dataclasses.replace(plan.allocation, placements=own, banks=())
    with pytest.raises(PlanFormatError, match="initialiser"):
        planner.emission.emit(plan.model_copy(update={"sites": sites, "allocation": allocation}))


def class_called(name):
    """A model whose block has the class name ``name``."""
    block = type(name, (hard_models.Masked8,), {})
    return nn.Sequential(nn.Linear(4, 8), block(), nn.Linear(2, 2))


@pytest.mark.parametrize("name", ["Generator", "Bank", "GeneratedModel", "Tensor", "F", "build"])
def test_classes_never_hide_what_the_file_needs(name):
    model = class_called(name)
    source, built = emitted(model, [torch.randn(2, 4)])
    assert f"class Model{name}(" in source
    assert_equal_outputs(model, built, [(2, 4)])
    refuse(program_of(name=name))


def test_all_names_of_a_file_are_reserved():
    defined = re.compile(r"^(?:class |def )?([A-Za-z_]+)(?:\(|:| =)", re.MULTILINE)
    for path in template_root().glob("*.jinja"):
        for name in defined.findall(path.read_text()):
            assert operations.is_reserved(name) or keyword.iskeyword(name), (path.name, name)
    for _, module, name in planner.emission._IMPORTS:
        assert operations.is_reserved(name or module)
