"""Sizes that remember how they were computed: plain integers to Python, nodes to a graph."""

import math
import operator

import pytest
import torch
import torch.fx
from hypothesis import given
from hypothesis import strategies as st

from planner.tracing.arithmetic import remembering
from planner.tracing.extents import Extent, Extents, Ratio, plain, shape_of, watching

BINARY = (
    operator.add,
    operator.sub,
    operator.mul,
    operator.floordiv,
    operator.truediv,
    operator.mod,
)
UNARY = (operator.neg, math.ceil, math.floor, round)


def sizes(*shape):
    """(a tensor of that shape, its sizes)."""
    tensor = torch.empty(shape, device="meta")
    return tensor, tuple(shape_of(tensor, tensor.shape))


def recorded(tensor, value):
    """``value`` as a function of ``tensor``, by way of a graph."""
    graph = torch.fx.Graph()
    given = graph.placeholder("x")
    extents = Extents(graph, lambda one: given if one is tensor else None)
    graph.output(extents.value(value))
    return torch.fx.GraphModule(torch.nn.Module(), graph)


@st.composite
def formulas(draw):
    """A function of two sizes, with numbers among them."""
    steps = draw(st.lists(st.tuples(st.sampled_from(BINARY), st.integers(1, 5), st.integers(0, 3))))
    last = draw(st.sampled_from([None, *UNARY]))

    def compute(rows, columns):
        value = rows
        for function, number, which in steps:
            other = columns if which == 3 else number
            value = function(other, value) if which == 2 else function(value, other)
        return value if last is None else last(value)

    return compute


@given(formulas(), st.integers(1, 9), st.integers(1, 9))
def test_arithmetic_is_pythons_and_is_recorded(formula, rows, columns):
    tensor, (first, second) = sizes(3, 4)
    try:
        wanted = formula(rows, columns)
        expected = formula(3, 4)
        value = formula(first, second)
    except (OverflowError, ZeroDivisionError):
        return
    assert value == expected
    assert type(plain(value)) is type(expected)
    assert isinstance(value, (Extent, Ratio))
    found = recorded(tensor, value)(torch.empty(rows, columns))
    assert (found, type(found)) == (wanted, type(wanted))


def test_sizes_are_integers():
    tensor, (rows, columns) = sizes(3, 4)
    assert (rows, columns) == (3, 4)
    assert rows < columns and rows in (3, 5) and list(range(rows)) == [0, 1, 2]
    assert {rows: 1}[3] == 1 and f"{rows}" == "3" and isinstance(rows, int)
    assert torch.empty(rows, columns).shape == (3, 4)
    assert isinstance(tensor.shape, torch.Size)


def test_parts_are_computed_once():
    tensor, (rows, columns) = sizes(3, 4)
    graph = torch.fx.Graph()
    given = graph.placeholder("x")
    extents = Extents(graph, lambda one: given if one is tensor else None)
    half = columns // 2
    first, second = extents.value(half * rows), extents.value(half + rows)
    targets = [getattr(node.target, "__name__", "") for node in graph.nodes]
    assert targets.count("floordiv") == 1
    assert extents.value(half * rows) is first is not second


def test_sizes_of_unknown_tensors_are_numbers():
    _, (rows, columns) = sizes(3, 4)
    graph = torch.fx.Graph()
    value = Extents(graph, lambda _: None).value(rows * columns // 2)
    assert type(value) is int and value == 6
    assert not list(graph.nodes)


@pytest.mark.parametrize("kind", [tuple, list])
def test_plain_reaches_what_is_nested(kind):
    _, (rows, columns) = sizes(3, 4)
    value = kind([rows, {"a": (rows / 2, [columns])}, slice(rows, None, columns), "x"])
    found = plain(value)
    assert found == kind([3, {"a": (1.5, [4])}, slice(3, None, 4), "x"])
    assert type(found[0]) is int and type(found[1]["a"][0]) is float
    assert type(found[2].start) is int


def test_no_size_is_equal_to_text():
    _, (rows, _) = sizes(3, 4)
    with pytest.raises(TypeError):
        rows + "x"
    with pytest.raises(TypeError):
        "x" + rows
    assert rows * "x" == "xxx"


# --------------------------------------------------------------------------- decisions


def decisions(decide):
    """What ``decide`` finds out about sizes, by (function, numbers, outcome)."""
    found = []
    with watching(lambda one: found.append(one) or one.outcome):
        decide()
    return [(one.function, tuple(map(plain, one.args)), one.outcome) for one in found]


def test_comparisons_and_truth_are_heard_of():
    _, (rows, columns) = sizes(3, 4)
    assert decisions(lambda: rows < 5) == [(operator.lt, (3, 5), True)]
    assert decisions(lambda: rows == columns) == [(operator.eq, (3, 4), False)]
    assert decisions(lambda: bool(columns % 4)) == [(operator.ne, (0, 0), False)]
    assert decisions(lambda: (rows, columns)[:1] == (3,)) == [(operator.eq, (3, 3), True)]
    assert decisions(lambda: [0] * rows) == [(operator.eq, (3, 3), True)]


def test_what_is_the_same_at_all_sizes_is_no_decision():
    tensor, (rows, _) = sizes(3, 4)
    again = shape_of(tensor, tensor.shape)[0]
    assert decisions(lambda: (rows == again, rows + 0 - again > 0, again // 1 <= rows)) == []
    assert rows - again == 0 and type(rows - again) is int


def test_a_watcher_may_turn_an_outcome():
    _, (rows, _) = sizes(3, 4)
    with watching(lambda one: not one.outcome):
        outcomes = rows == 3, rows > 5
    assert outcomes == (False, True)
    assert rows == 3


# --------------------------------------------------------------------------- Python's own functions


class Counts(torch.nn.Module):
    def forward(self, rows, columns):
        return {
            "int": int(rows * 0.5),
            "float": float(rows),
            "sqrt": math.sqrt(rows * columns),
            "max": max(rows, columns, 2),
            "min": min([rows, columns]),
            "ceil": math.ceil(columns / 3),
            "round": round(rows / 4),
            "abs": abs(rows - columns),
        }


def test_pythons_functions_keep_where_a_size_is_from():
    tensor, (rows, columns) = sizes(3, 4)
    before = math.sqrt, dict(globals())
    with remembering(Counts()):
        found = Counts()(rows, columns)
    assert (math.sqrt, dict(globals())) == before
    expected, other = Counts()(3, 4), Counts()(8, 2)
    for name, value in found.items():
        assert plain(value) == expected[name]
        assert recorded(tensor, value)(torch.empty(8, 2)) == other[name], name


def test_types_stay_types_and_ranges_are_heard_of():
    _, (rows, _) = sizes(3, 4)

    class Kinds(torch.nn.Module):
        def forward(self, value):
            counted = list(range(value))
            kinds = isinstance(value, int), isinstance(0.5, (int, float)), issubclass(bool, int)
            return counted, kinds, int("7"), float("inf"), int.from_bytes(b"\x01", "big")

    with remembering(Kinds()):
        heard = decisions(lambda: Kinds()(rows))
        found = Kinds()(rows)
    assert found == ([0, 1, 2], (True, True, True), 7, math.inf, 1)
    assert heard == [(operator.eq, (3, 3), True)]
