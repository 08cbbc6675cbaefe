"""Values as source: precedence is kept, and no text gets in that is not a name or a literal."""

import ast
import operator
import types
import unicodedata

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from planner import ir
from planner.emission.expressions import (
    Expression,
    Scope,
    access,
    call,
    change,
    expression,
    identifier,
    literal,
)
from planner.errors import PlanFormatError
from planner.ir import (
    Container,
    Definition,
    Items,
    Leaf,
    Mapping,
    Operation,
    Ref,
    Slice,
    Special,
    Switch,
)

DOTS = Special("ellipsis", "...")
BINARY = "add sub mul floordiv mod and_ or_ xor lshift rshift lt le gt ge eq ne".split()
UNARY = "neg pos invert not_".split()


def function(target, *args):
    return Operation("y", "function", target, args)


@st.composite
def trees(draw, depth=4):
    """(operations by name, name of the root): a tree of operators over small integers."""
    known = {}

    def grow(level):
        kind = draw(st.sampled_from(["leaf", "binary", "binary", "unary"])) if level else "leaf"
        if kind == "leaf":
            return draw(st.integers(-4, 9))
        if kind == "unary":
            target, args = draw(st.sampled_from(UNARY)), (grow(level - 1),)
        elif draw(st.integers(0, 5)) == 0:
            target, args = "pow", (grow(level - 1), draw(st.integers(0, 3)))
        else:
            target, args = draw(st.sampled_from(BINARY)), (grow(level - 1), grow(level - 1))
        name = f"v{len(known)}"
        known[name] = function(f"operator.{target}", *args)
        return Ref(name)

    root = grow(depth)
    return known, root


def value_of(known, value):
    if isinstance(value, Ref):
        operation = known[value.ref]
        implementation = getattr(operator, operation.target.rpartition(".")[2])
        return implementation(*(value_of(known, item) for item in operation.args))
    return value


def inlining(known):
    scope = Scope(lambda name: call(known[name], scope, str), str)
    return scope


@given(trees())
def test_precedence_is_kept(tree):
    known, root = tree
    try:
        expected = value_of(known, root)
    except (ZeroDivisionError, ValueError, OverflowError):
        return
    if isinstance(expected, int) and abs(expected) > 1 << 64:
        return
    text = expression(root, inlining(known)).text
    found = eval(f"({text}, None)", {"__builtins__": {}})[0]
    assert (found, type(found)) == (expected, type(expected)), text


@pytest.mark.parametrize(
    ("operation", "text"),
    [
        (function("operator.sub", 1, Ref("sum")), "1 - (a + b)"),
        (function("operator.sub", Ref("sum"), 1), "a + b - 1"),
        (function("operator.pow", Ref("minus"), 2), "(-a) ** 2"),
        (function("operator.pow", 2, Ref("minus")), "2 ** (-a)"),
        (function("operator.pow", -0.0, 2), "(-0.0) ** 2"),
        (function("operator.neg", Ref("power")), "-a ** b"),
        (function("operator.getitem", Ref("sum"), 0), "(a + b)[0]"),
        (function("builtins.getattr", Ref("sum"), "shape"), "(a + b).shape"),
        (function("builtins.getattr", 5, "real"), "(5).real"),
        (function("operator.abs", Ref("a")), None),
        (function("builtins.abs", Ref("a")), "abs(a)"),
        (function("torch.nn.functional.relu", Ref("a")), "F.relu(a)"),
        (function("operator.contains", Ref("a"), Ref("b")), "b in a"),
        (function("operator.getitem", Ref("a"), (Slice((None, -1, None)), DOTS)), "a[:-1, ...]"),
        (function("operator.getitem", Ref("a"), (Slice((1, None, 2)),)), "a[1::2,]"),
        (function("operator.getitem", Ref("a"), ()), "a[()]"),
        (Operation("y", "method", "view", (Ref("sum"), -1), (("dtype", None),)),
         "(a + b).view(-1, dtype=None)"),
    ],
)  # fmt: skip
def test_operations_read_as_python(operation, text):
    known = {
        "sum": function("operator.add", Ref("a"), Ref("b")),
        "minus": function("operator.neg", Ref("a")),
        "power": function("operator.pow", Ref("a"), Ref("b")),
    }
    scope = Scope(
        lambda name: call(known[name], scope, str) if name in known else Expression(name), str
    )
    if text is None:
        with pytest.raises(PlanFormatError):
            call(operation, scope, str)
    else:
        assert call(operation, scope, str).text == text


def test_changes_are_statements():
    scope = Scope(Expression, str)
    write = function("operator.setitem", Ref("x"), (0, Slice((None, 2, None))), Ref("y"))
    assert change(write, None, scope) == "x[0, :2] = y"
    plus = function("operator.iadd", Ref("x"), Ref("y"))
    assert change(plus, "x", scope) == "x += y"
    assert change(plus, None, scope) is None
    assert change(function("operator.add", Ref("x"), Ref("y")), "x", scope) is None


# --------------------------------------------------------------------------- literals

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner) | st.tuples(inner, inner)
    | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=8,
)  # fmt: skip


def as_value(item):
    if isinstance(item, list):
        return Items(tuple(map(as_value, item)))
    if isinstance(item, tuple):
        return tuple(map(as_value, item))
    if isinstance(item, dict):
        return Mapping(tuple((key, as_value(one)) for key, one in item.items()))
    return item


@given(plain)
def test_literals_are_what_python_reads(item):
    assert repr(eval(literal(as_value(item)), {"__builtins__": {}})) == repr(item)


@pytest.mark.parametrize(
    ("special", "value"),
    [
        (Special("dtype", "float16"), torch.float16),
        (Special("device", "cuda:1"), torch.device("cuda:1")),
        (Special("memory_format", "channels_last"), torch.channels_last),
        (Special("float", "-inf"), float("-inf")),
        (Special("complex", "(1e-07-2j)"), 1e-7 - 2j),
        (Special("function", "torch.nn.functional.gelu"), torch.nn.functional.gelu),
    ],
)
def test_special_values(special, value):
    names = {"torch": torch, "F": torch.nn.functional, "float": float}
    assert eval(literal(special), names) == value


@given(st.text() | st.from_regex(r"[^\d\W]\w*", fullmatch=True))
def test_identifiers_are_one_name(text):
    try:
        name = identifier(text)
    except PlanFormatError:
        return
    (function,) = ast.parse(f"def f({name}): pass").body
    assert [ast.unparse(argument) for argument in function.args.args] == [
        unicodedata.normalize("NFKC", text)
    ]


HOSTILE = ["x y", "x)", "import os", "class", "None", "x=1", "é e", "", "a.b", "x\n", "'", '"', "0"]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_are_refused(text):
    scope = Scope(Expression, str)
    with pytest.raises(PlanFormatError):
        identifier(text)
    with pytest.raises(PlanFormatError):
        literal(ir.Slot(text))
    with pytest.raises(PlanFormatError):
        literal(Special("dtype", text))
    with pytest.raises(PlanFormatError):
        literal(Special("function", text))
    with pytest.raises(PlanFormatError):
        call(Operation("y", "function", "torch.relu", (), ((text, 1),)), scope, str)
    for op in ("function", "method"):
        with pytest.raises(PlanFormatError):
            call(Operation("y", op, text, (1,)), scope, str)
    assert repr(text) in literal(Special("device", text))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Switch(0.5, 0.1), "0.5 if self.training else 0.1"),
        (Switch(-1, None), "-1 if self.training else None"),
        (Switch("a", (1, 2)), "'a' if self.training else (1, 2)"),
        (Switch(Switch(1, 2), 3), "(1 if self.training else 2) if self.training else 3"),
        ((Switch(1, 2), 3), "(1 if self.training else 2, 3)"),
    ],
)
def test_switches_follow_the_mode(value, text):
    assert literal(value) == text


@given(st.integers(-3, 3), st.integers(-3, 3), st.booleans())
def test_switches_are_operands(ours, theirs, training):
    """Wherever one stands, it is one value."""
    scope = Scope(Expression, str)
    switch, self = Switch(ours, theirs), types.SimpleNamespace(training=training)
    value = ours if training else theirs
    for name in ("sub", "mul", "lt"):
        text = call(function(f"operator.{name}", switch, switch), scope, str).text
        assert eval(text, {"self": self}) == getattr(operator, name)(value, value), text
    text = call(function("operator.neg", switch), scope, str).text
    assert eval(text, {"self": self}) == -value, text
    text = call(
        function("operator.getitem", Ref("x"), (switch, Slice((switch, None, None)))), scope, str
    ).text
    assert eval(text, {"self": self, "x": Keys(), "slice": slice}) == (
        value,
        slice(value, None, None),
    ), text


class Keys:
    def __getitem__(self, key):
        return key


def test_literals_have_no_references():
    with pytest.raises(PlanFormatError):
        literal((1, Items((Ref("x"),))))


# --------------------------------------------------------------------------- paths

LAYER = Leaf("Linear", (1, 1))
LIST = Container("ModuleList", (("0", LAYER), ("1", LAYER)))
ODD = Container("Sequential", (("1", LAYER), ("0", LAYER)))
NAMES = Container("ModuleDict", (("0", LIST), ("up", ODD)))
OWNER = Definition("M", "Module", children=(("list", LIST), ("odd", ODD), ("names", NAMES)))


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("list.1.weight", "self.list[1].weight"),
        ("odd.1", "getattr(self.odd, '1')"),
        ("names.up.0", "getattr(self.names.up, '0')"),
        ("names.0.1", "getattr(self.names, '0')[1]"),
        ("conv-1.class.x", "getattr(getattr(self, 'conv-1'), 'class').x"),
        ("list.0.layers.2.weight", "self.list[0].layers[2].weight"),
        ("unknown.3", "getattr(self.unknown, '3')"),
    ],
)
def test_paths(path, text):
    assert access("self", path, OWNER) == text


@pytest.mark.parametrize("path", ["it's.x", "a b", "list.0.x)"])
def test_hostile_paths_are_refused(path):
    with pytest.raises(PlanFormatError):
        access("self", path, OWNER)
