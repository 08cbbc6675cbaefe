"""Repeated stretches become loops only where the loop does what the stretch did."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.emission.loops import ITEM, Loop, roll
from planner.ir import Graph, Items, Mapping, Operation, Ref, Switch, references


def module(result, target, *args, **kwargs):
    return Operation(
        result, "module", target, tuple(map(as_ref, args)), tuple(kwargs.items()), tensor=True
    )


def add(result, *args):
    return Operation(result, "function", "operator.add", tuple(map(as_ref, args)))


def as_ref(value):
    return Ref(value) if isinstance(value, str) else value


def concrete(value, values):
    if isinstance(value, Ref):
        return values[value.ref]
    if isinstance(value, Items):
        return tuple(concrete(item, values) for item in value.list)
    if isinstance(value, Mapping):
        return tuple((key, concrete(item, values)) for key, item in value.dict)
    if isinstance(value, tuple):
        return tuple(concrete(item, values) for item in value)
    return value


def apply(operation, target, values):
    """A term that tells every call and its operands apart: equal terms, equal computations."""
    args = tuple(concrete(item, values) for item in operation.args)
    kwargs = tuple((key, concrete(item, values)) for key, item in operation.kwargs)
    return (operation.op, target, args, kwargs)


def run(steps, output, inputs=("x", "mask")):
    """(value of the output, calls in order)."""
    values = {name: name for name in inputs}
    calls = []

    def step(operation, target, known):
        known[operation.result] = apply(operation, target, known)
        calls.append(known[operation.result])

    for item in steps:
        if isinstance(item, Operation):
            step(item, item.target, values)
            continue
        carried = values.pop(item.initial)  # the loop takes its place
        for index in range(item.start, item.start + item.count):
            inner = {**values, item.initial: carried}
            for operation in item.body:
                step(operation, operation.target.replace(ITEM, str(index)), inner)
            carried = inner[item.result]
        values[item.final] = carried
    return concrete(output, values), calls


def check(operations, output, sizes, *, loops):
    graph = Graph(tuple(operations), as_ref(output))
    steps = roll(graph, sizes)
    assert sum(isinstance(step, Loop) for step in steps) == loops
    assert run(steps, graph.output) == run(graph.operations, graph.output)
    return steps


def chain(count, container="layers", start="x"):
    """x = layer(x) for all layers of a container."""
    names = [start, *(f"{container}{index}" for index in range(count))]
    return [module(names[i + 1], f"{container}.{i}", names[i]) for i in range(count)], names[-1]


def test_a_chain_is_a_loop():
    operations, last = chain(4)
    (loop,) = check(operations, last, {"layers": 4}, loops=1)
    assert (loop.container, loop.count, loop.initial, loop.final) == ("layers", 4, "x", "layers3")
    assert loop.body[0].target == "layers.*"


def test_operations_around_a_call_belong_to_the_loop():
    operations = []
    previous = "x"
    for i in range(3):
        operations += [
            add(f"scaled{i}", previous, 1),
            module(f"y{i}", f"layers.{i}", f"scaled{i}", mask=Ref("mask")),
            add(f"sum{i}", previous, f"y{i}"),
        ]
        previous = f"sum{i}"
    (loop,) = check(operations, previous, {"layers": 3}, loops=1)
    assert len(loop.body) == 3


def test_children_of_items_are_called():
    operations = []
    previous = "x"
    for i in range(3):
        operations += [
            module(f"a{i}", f"layers.{i}.attention", previous),
            module(f"b{i}", f"layers.{i}", f"a{i}"),
        ]
        previous = f"b{i}"
    (loop,) = check(operations, previous, {"layers": 3}, loops=1)
    assert [operation.target for operation in loop.body] == ["layers.*.attention", "layers.*"]


def test_loops_follow_each_other():
    first, last = chain(3)
    between = add("between", last, "mask")
    second, last = chain(2, "tail", "between")
    steps = check([*first, between, *second], last, {"layers": 3, "tail": 2}, loops=2)
    assert len(steps) == 3


def test_one_container_may_be_run_twice():
    first, last = chain(3)
    again = [module(f"again{i}", f"layers.{i}", f"again{i - 1}" if i else last) for i in range(3)]
    check([*first, *again], "again2", {"layers": 3}, loops=2)


def part(start, stop, value="x"):
    """x = layer(x) for some layers of a container."""
    operations = []
    for index in range(start, stop):
        operations.append(module(f"p{index}", f"layers.{index}", value))
        value = f"p{index}"
    return operations, value


@pytest.mark.parametrize(
    ("start", "stop", "whole"), [(0, 3, False), (1, 4, False), (3, 6, True), (0, 6, True)]
)
def test_a_part_of_a_container_is_a_loop(start, stop, whole):
    operations, last = part(start, stop)
    (loop,) = check(operations, last, {"layers": 6}, loops=1)
    assert (loop.start, loop.count, loop.whole) == (start, stop - start, whole)


def test_parts_before_and_after_something_else_are_loops():
    before, middle = part(0, 3)
    after, last = part(3, 6, "between")
    operations = [*before, add("between", middle, "mask"), *after]
    steps = check(operations, last, {"layers": 6}, loops=2)
    assert [step.start for step in steps if isinstance(step, Loop)] == [0, 3]


def test_two_of_many_are_no_loop():
    for start in (0, 2, 4):
        operations, last = part(start, start + 2)
        check(operations, last, {"layers": 6}, loops=0)
    operations, last = part(0, 2)
    check(operations, last, {"layers": 2}, loops=1)


def again(count, target="block", value="x"):
    """x = block(x) + mask, over and over."""
    operations = []
    for turn in range(count):
        operations.append(module(f"b{turn}", target, value, "mask"))
        operations.append(add(f"s{turn}", f"b{turn}", "mask"))
        value = f"s{turn}"
    return operations, value


@pytest.mark.parametrize(("count", "loops"), [(1, 0), (2, 0), (3, 1), (12, 1)])
def test_one_module_again_and_again_is_a_loop(count, loops):
    operations, last = again(count)
    steps = check(operations, last, {}, loops=loops)
    if loops:
        (loop,) = steps
        assert (loop.container, loop.count, len(loop.body)) == (None, count, 2)
        assert loop.body[0].target == "block"


def test_one_item_of_a_container_again_and_again_is_no_loop_over_it():
    operations, last = again(4, "layers.0")
    steps = roll(Graph(tuple(operations), Ref(last)), {"layers": 4})
    assert run(steps, Ref(last)) == run(operations, Ref(last))
    assert all(step.container is None for step in steps if isinstance(step, Loop))


def test_modes_that_switch_alike_are_the_same_in_every_turn():
    def turns(values):
        operations, value = [], "x"
        for turn, drop in enumerate(values):
            operations.append(module(f"b{turn}", "block", value, drop=drop))
            value = f"b{turn}"
        return operations, value

    operations, last = turns([Switch(0.5, 0.1)] * 3)
    check(operations, last, {}, loops=1)
    for other in (Switch(0.5, 0.2), Switch(0.5, False), 0.5):
        operations, last = turns([Switch(0.5, 0), other, Switch(0.5, 0)])
        check(operations, last, {}, loops=0)


REFUSED = {
    "an inner value is read after it": [*chain(3)[0], add("end", "layers2", "layers1")],
    "the initial value is read after it": [*chain(3)[0], add("end", "layers2", "x")],
    "an index is left out": [
        module("a", "layers.0", "x"),
        module("b", "layers.2", "a"),
        module("end", "layers.1", "b"),
    ],
    "only some are called": chain(2)[0] + [add("end", "layers1", 0)],
    "the order is another": [
        module("a", "layers.2", "x"),
        module("b", "layers.1", "a"),
        module("end", "layers.0", "b"),
    ],
    "a number differs": [
        module("a", "layers.0", "x", 1),
        module("b", "layers.1", "a", 2),
        module("end", "layers.2", "b", 1),
    ],
    "a keyword differs": [
        module("a", "layers.0", "x", size=1),
        module("b", "layers.1", "a", length=1),
        module("end", "layers.2", "b", size=1),
    ],
    "nothing is handed on": [
        module("a", "layers.0", "x"),
        module("b", "layers.1", "x"),
        module("end", "layers.2", "x"),
    ],
    "two values are handed on": [
        module("a", "layers.0", "x", "mask"),
        module("b", "layers.1", "a", "x"),
        module("end", "layers.2", "b", "a"),
    ],
    "the first turn differs": [
        module("a", "layers.0", "x", "mask"),
        module("b", "layers.1", "a", "a"),
        module("end", "layers.2", "b", "b"),
    ],
    "the initial value is an operand of every turn": [
        module("a", "layers.0", "x", "x"),
        module("b", "layers.1", "a", "x"),
        module("end", "layers.2", "b", "x"),
    ],
    "the last turn reads the first one's inner value": [
        *(
            item
            for i, x in enumerate(["x", "b0"])
            for item in (module(f"a{i}", f"layers.{i}", x), module(f"b{i}", f"layers.{i}", f"a{i}"))
        ),
        module("a2", "layers.2", "b1"),
        module("b2", "layers.2", "a0"),
    ],
    "True is not 1": [
        module("a", "layers.0", "x", True),
        module("b", "layers.1", "a", 1),
        module("end", "layers.2", "b", True),
    ],
}


@pytest.mark.parametrize("why", list(REFUSED))
def test_what_is_no_loop_stays(why):
    operations = REFUSED[why]
    check(operations, operations[-1].result, {"layers": 3}, loops=0)


def test_outputs_keep_what_they_read():
    operations, last = chain(3)
    for output in [(Ref(last), Ref("layers0")), (Ref(last), Ref("x"))]:
        graph = Graph(tuple(operations), output)
        assert not any(isinstance(step, Loop) for step in roll(graph, {"layers": 3}))


@st.composite
def graphs(draw):
    """Nearly regular graphs: mutated unrollings of loops."""
    count = draw(st.integers(2, 4))
    names = ["x", "mask"]
    operations = []
    shape = draw(st.lists(st.sampled_from(["module", "add"]), min_size=1, max_size=3))
    for turn in range(count):
        for position, kind in enumerate(shape):
            result = f"v{turn}_{position}"
            regular = f"v{turn - 1}_{len(shape) - 1}" if turn and not position else None
            regular = regular or (f"v{turn}_{position - 1}" if position else "x")
            source = regular if draw(st.integers(0, 9)) else draw(st.sampled_from(names))
            other = "mask" if draw(st.integers(0, 9)) else draw(st.sampled_from(names))
            index = turn if draw(st.integers(0, 14)) else draw(st.integers(0, count - 1))
            if kind == "module":
                operations.append(module(result, f"layers.{index}", source, other))
            else:
                operations.append(add(result, source, other))
            names.append(result)
    output = tuple(Ref(name) for name in draw(st.lists(st.sampled_from(names), max_size=1)))
    return Graph(tuple(operations), (Ref(names[-1]), *output)), {"layers": count}


@given(graphs())
def test_rolling_never_changes_what_is_computed(case):
    graph, sizes = case
    steps = roll(graph, sizes)
    assert run(steps, graph.output) == run(graph.operations, graph.output)
    assert set(references(graph.output)) <= {"x", "mask"} | {op.result for op in graph.operations}
