"""Forwards as statements: they compute what the graph says, whatever names its values get."""

import builtins
import operator
import types

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.emission.forward import statements
from planner.ir import Container, Definition, Graph, Input, Items, Leaf, Operation, Ref, Training

LAYERS = 3


def op(result, target, *args, tensor=True, kind="function", **kwargs):
    return Operation(result, kind, target, args, tuple(kwargs.items()), tensor)


def definition(inputs):
    leaf = Leaf("Linear", (4, 4))
    layers = Container("ModuleList", tuple((str(i), leaf) for i in range(LAYERS)))
    return Definition(
        "Model",
        "Module",
        children=(("layers", layers), ("act", Leaf("ReLU"))),
        inputs=tuple(Input(name) for name in inputs),
    )


def owner():
    torch.manual_seed(0)
    layers = torch.nn.ModuleList(torch.nn.Linear(4, 4) for _ in range(LAYERS)).double()
    weight = torch.randn(4, 4, dtype=torch.float64)
    return types.SimpleNamespace(
        layers=layers, act=torch.nn.ReLU(inplace=True), weight=weight, training=True
    )


def interpret(graph, inputs, self):
    """What the operations give, run one by one."""
    values = dict(inputs)

    def concrete(value):
        if isinstance(value, Ref):
            return values[value.ref]
        if isinstance(value, Training):
            return self.training == value.training
        if isinstance(value, tuple):
            return tuple(map(concrete, value))
        if isinstance(value, Items):
            return list(map(concrete, value.list))
        return value

    for one in graph.operations:
        args = [concrete(value) for value in one.args]
        kwargs = {key: concrete(value) for key, value in one.kwargs}
        if one.op == "module":
            part = self
            for name in one.target.split("."):
                part = part[int(name)] if name.isdigit() else getattr(part, name)
            values[one.result] = part(*args, **kwargs)
        elif one.op == "attribute":
            values[one.result] = getattr(self, one.target)
        elif one.op == "method":
            values[one.result] = getattr(args[0], one.target)(*args[1:], **kwargs)
        else:
            spaces = {"operator": operator, "builtins": builtins, "torch": torch}
            space, _, name = one.target.rpartition(".")
            values[one.result] = getattr(spaces[space], name)(*args, **kwargs)
    return concrete(graph.output)


def written(graph, inputs):
    lines = statements(definition(inputs), graph, {"layers": LAYERS})
    body = "\n    ".join(lines)
    return f"def forward(self, {', '.join(inputs)}):\n    {body}\n"


def execute(source, inputs, self):
    names = {"torch": torch, "operator": operator}
    exec(source, names)
    return names["forward"](self, **inputs)


def same(one, other):
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def check(graph, inputs=("x", "y")):
    source = written(graph, inputs)
    torch.manual_seed(1)
    tensors = {name: torch.randn(4, 4, dtype=torch.float64) for name in inputs}
    copies = {name: tensor.clone() for name, tensor in tensors.items()}
    with torch.no_grad():
        expected = interpret(graph, tensors, owner())
        found = execute(source, copies, owner())
    assert same(expected, found), source
    assert all(torch.equal(tensors[name], copies[name]) for name in inputs), source
    return source


names = st.sampled_from(
    "out out_1 h x_1 size self_1 layer layers_1 item lambda_ relu torch_1 getitem".split()
)


class Growth:
    """A random forward in the making: new values, changes in place, sizes, parts, layers, loops."""

    def __init__(self, draw, inputs):
        self.draw, self.inputs = draw, set(inputs)
        self.operations = []
        self.tensors, self.numbers, self.tuples = list(inputs), [], []

    def emit(self, pool, target, *args, **fields):
        name, taken = self.draw(names), {one.result for one in self.operations} | self.inputs
        while name in taken:
            name += "_"
        self.operations.append(op(name, target, *args, tensor=pool is self.tensors, **fields))
        if pool is not None:
            pool.append(name)

    def tensor(self):
        return Ref(self.draw(st.sampled_from(self.tensors)))

    def binary(self):
        target = self.draw(st.sampled_from(["add", "mul", "iadd", "isub"]))
        self.emit(self.tensors, f"operator.{target}", self.tensor(), self.tensor())

    def unary(self):
        target = self.draw(st.sampled_from(["tanh", "neg_", "tanh_"]))
        self.emit(self.tensors, target, self.tensor(), kind="method")

    def size(self):
        self.emit(self.numbers, "size", self.tensor(), 0, kind="method")

    def shape(self):
        self.emit(self.tuples, "builtins.getattr", self.tensor(), "shape")
        self.emit(self.numbers, "operator.getitem", Ref(self.tuples.pop()), 1)

    def number(self):
        if self.numbers:
            number = Ref(self.draw(st.sampled_from(self.numbers)))
            target = self.draw(st.sampled_from(["add", "iadd"]))
            self.emit(self.numbers, f"operator.{target}", number, 1)
            self.emit(self.tensors, "operator.mul", self.tensor(), number)

    def pair(self):
        self.emit(self.tuples, "torch.cummax", self.tensor(), 1)

    def part(self):
        if self.tuples:
            part = Ref(self.draw(st.sampled_from(self.tuples)))
            self.emit(self.tensors, "operator.getitem", part, 0)

    def layer(self):
        target = self.draw(st.sampled_from(["act", "layers.1"]))
        self.emit(self.tensors, target, self.tensor(), kind="module")

    def weight(self):
        self.emit(self.tensors, "weight", kind="attribute")

    def write(self):
        self.emit(None, "operator.setitem", self.tensor(), 0, 2.5)

    def loop(self):
        target = self.draw(st.sampled_from(["operator.add", "operator.iadd"]))
        for index in range(LAYERS):
            value = Ref(self.tensors[-1])
            self.emit(self.tensors, f"layers.{index}", value, kind="module")
            self.emit(self.tensors, target, value, Ref(self.tensors[-1]))


STEPS = "binary unary size shape number pair part layer weight write loop".split()


@st.composite
def graphs(draw, inputs):
    growth = Growth(draw, inputs)
    for step in draw(st.lists(st.sampled_from(STEPS), min_size=1, max_size=12)):
        getattr(growth, step)()
    values = st.sampled_from([*growth.tensors, *growth.numbers])
    output = tuple(map(Ref, draw(st.lists(values, max_size=2))))
    return Graph(tuple(growth.operations), (Ref(growth.tensors[-1]), *output))


@settings(max_examples=200, deadline=None)
@given(graphs(("x", "ids")))
def test_statements_compute_what_the_graph_says(graph):
    check(graph, ("x", "ids"))


X, Y = Ref("x"), Ref("y")


def chain(count, start):
    names = [start, *(f"a{index}" for index in range(count))]
    steps = [op(names[i + 1], "torch.tanh", Ref(names[i])) for i in range(count)]
    return Graph(tuple(steps), Ref(names[-1]))


def test_what_the_next_line_alone_reads_stands_in_it():
    assert "return torch.tanh(torch.tanh(x))\n" in check(chain(2, "x"))


def test_an_item_does_not_carry_its_function_past_a_change_in_place():
    act = Operation("c", "module", "act", (X,))
    steps = (
        op("a", "torch.cummax", X, 1, tensor=False),
        op("b", "operator.getitem", Ref("a"), 0, tensor=False),
        act,
        op("d", "torch.tanh", Ref("b")),
    )
    check(Graph(steps, Ref("d")))


def test_chains_reuse_the_name_and_nest_three_at_most():
    source = check(chain(7, "x"))
    assert source.count("x = torch.tanh(torch.tanh(torch.tanh(x)))") == 2
    assert source.endswith("return torch.tanh(x)\n")


def test_values_that_live_on_keep_their_name():
    graph = Graph(
        (op("a", "torch.relu", X), op("b", "operator.add", Ref("a"), X)), (Ref("a"), Ref("b"))
    )
    assert "out = torch.relu(x)" in check(graph)


def test_telling_names_are_not_reused():
    graph = Graph((op("a", "torch.relu", Ref("mask")),), (Ref("a"), Ref("a")))
    assert "x = torch.relu(mask)" in check(graph, ("mask",))


def test_results_that_are_numbers_get_a_name():
    parts = tuple(op(f"_{index}", "torch.split", X, 1, tensor=False) for index in range(2))
    graph = Graph(parts, (Ref("_0"), Ref("_1"), Ref("_0")))
    check(graph)


def test_methods_of_a_result_follow_it():
    graph = Graph(
        (
            op("a", "torch.cat", Items((X, X)), dim=0),
            op("b", "reshape", Ref("a"), 2, -1, kind="method"),
            op("c", "sum", Ref("b"), 0, kind="method"),
        ),
        Ref("c"),
    )
    assert "return torch.cat([x, x], dim=0).reshape(2, -1).sum(0)" in check(graph)


def test_what_changes_in_place_stays_a_line():
    graph = Graph((op("a", "torch.tanh", X), op("b", "neg_", Ref("a"), kind="method")), Ref("b"))
    assert "x = torch.tanh(x)\n" in check(graph)


def test_changes_are_statements():
    graph = Graph(
        (
            op("a", "torch.tanh", X),
            op("b", "operator.iadd", Ref("a"), Y),
            op("c", "operator.setitem", Ref("b"), 0, 1.0, tensor=False),
        ),
        Ref("b"),
    )
    source = check(graph)
    assert "x += y" in source and "x[0] = 1.0" in source


def test_a_changed_tensor_keeps_its_name_where_both_are_read():
    graph = Graph(
        (op("a", "torch.tanh", X), op("b", "operator.iadd", Ref("a"), Y)), (Ref("a"), Ref("b"))
    )
    assert "return (x, x)" in check(graph)


def test_a_size_that_is_read_twice_does_not_change():
    graph = Graph(
        (
            op("n", "size", X, 0, kind="method", tensor=False),
            op("m", "operator.iadd", Ref("n"), 1, tensor=False),
        ),
        (Ref("n"), Ref("m")),
    )
    check(graph)


def test_what_is_not_a_size_is_not_moved_over_a_change():
    graph = Graph(
        (
            op("top", "torch.max", X, 0, tensor=False),
            op("n", "size", X, 0, kind="method", tensor=False),
            op("c", "neg_", X, kind="method"),
            op("a", "operator.getitem", Ref("top"), 0),
            op("b", "operator.mul", Ref("a"), Ref("n")),
        ),
        Ref("b"),
    )
    source = check(graph)
    assert source.index("torch.max") < source.index("neg_") < source.index("x.size(0)")


@pytest.mark.parametrize("change", ["add", "iadd"])
def test_loops(change):
    operations, value = [], X
    for index in range(LAYERS):
        operations.append(op(f"l{index}", f"layers.{index}", value, kind="module"))
        operations.append(op(f"s{index}", f"operator.{change}", value, Ref(f"l{index}")))
        value = Ref(f"s{index}")
    source = check(Graph(tuple(operations), value))
    assert "for layer in self.layers:" in source
    assert ("x += " in source) == (change == "iadd")


def test_flags_follow_the_mode():
    graph = Graph((op("a", "torch.dropout", X, 0.0, Training(True)),), Ref("a"))
    assert "torch.dropout(x, 0.0, self.training)" in check(graph)
