"""Example inputs, from texts and from Python values."""

from collections import OrderedDict
from typing import NamedTuple

import pytest
import torch

from planner.errors import PlannerError
from planner.examples import Example, make_example, parse_input, parse_inputs
from planner.ir import TensorSpec


class Point(NamedTuple):
    x: object
    y: object


def test_a_text_is_a_shape_with_a_dtype():
    assert parse_input("1x3x224x224") == TensorSpec((1, 3, 224, 224), "float32")
    assert parse_input("int64:2x128") == parse_input("2x128:int64") == TensorSpec((2, 128), "int64")
    assert parse_input("long:7") == TensorSpec((7,), "int64")


@pytest.mark.parametrize(
    ("text", "value"),
    [("None", None), ("True", True), ("False", False), ("-0.5", -0.5), ("'fast'", "fast")],
)
def test_a_text_is_a_literal(text, value):
    assert parse_input(text) == value
    assert type(parse_input(text)) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        *["", "axb", "1x", "-1x2", "1x2:", ":2", "colour:1x2", "1,2", "1x2:1x2", "2x2x", "9" * 10],
        *["fast", "'fast", "nan", "1.", "2xx3", "x=3", "int64:None"],
    ],
)
def test_other_texts_are_refused(text):
    with pytest.raises(PlannerError) as caught:
        parse_input(text)
    assert text in str(caught.value)


def test_texts_are_positional_or_named():
    example = parse_inputs(["2x3", "input_ids=int64:2x5", "mask=None", "mode='fast'"])
    assert example.args == (TensorSpec((2, 3), "float32"),)
    assert example.kwargs == (
        ("input_ids", TensorSpec((2, 5), "int64")),
        ("mask", None),
        ("mode", "fast"),
    )
    with pytest.raises(PlannerError, match="'x' is given twice"):
        parse_inputs(["x=2x3", "x=None"])


def test_a_specification_becomes_a_tensor_with_plausible_values():
    given = ["2x3", TensorSpec((2, 3), "float32"), "int64:2x5", "bool:4", "float16:2"]
    noise, other, ids, mask, half = make_example(given).args
    assert noise.std() > 0
    assert not torch.equal(noise, other)
    assert torch.equal(noise, make_example(given).args[0])
    assert ids.dtype == torch.int64
    assert not ids.any()
    assert mask.dtype == torch.bool
    assert mask.all()
    assert half.dtype == torch.float16


def test_what_is_given_is_positional_or_keyword():
    x, y = torch.ones(2), torch.zeros(3)
    assert make_example(x) == Example((x,))
    assert make_example((x, [y, None])).args == (x, [y, None])
    assert make_example({"x": x, "mask": None}) == Example((), (("x", x), ("mask", None)))
    assert make_example(lambda: lambda: {"x": x}) == Example((), (("x", x),))
    both = Example.of(x, mode="fast", sizes=(3, 0.5, True))
    assert make_example(both) == both
    assert both.leaves() == (x, "fast", 3, 0.5, True)


def test_nested_values_keep_their_types():
    x = torch.ones(2)
    (point, boxes, table) = make_example(
        (Point(x, "1x2"), ({"a": ["bool:3"]},), OrderedDict(b=(x,)))
    ).args
    assert type(point) is Point
    assert point.y.shape == (1, 2)
    assert boxes[0]["a"][0].shape == (3,)
    assert table == {"b": (x,)}
    doubled = Example.of(point, table=table).map(
        lambda leaf: leaf * 2 if isinstance(leaf, torch.Tensor) else leaf
    )
    assert type(doubled.args[0]) is Point
    assert torch.equal(doubled.kwargs[0][1]["b"][0], x * 2)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (3, "are a int"),
        (None, "are a NoneType"),
        ([object()], "input 0 is a object"),
        ({"x": [1, {2, 3}]}, r"input 'x'\[1\] is a set"),
        ({"x": {"a": b"y"}}, r"input 'x'\['a'\] is a bytes"),
        ([{1: 2}], "input 0 has the key 1"),
        ({"not a name": 1}, "'not a name' is not the name of an input"),
        ({3: 1}, "3 is not the name of an input"),
        ("flot32:2x3", "'flot32' in 'flot32:2x3' is not a dtype"),
        (["999999999x999999999x999999999"], "cannot be made: give a smaller one"),
    ],
)
def test_what_is_no_input_is_named(given, said):
    with pytest.raises(PlannerError, match=said):
        make_example(given)
