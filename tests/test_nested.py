"""Nested values: copies of them, and how two of them differ."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from planner.tracing.nested import difference, snapshot

SQUARE = torch.arange(4.0).view(2, 2)


@dataclass
class Result:
    first: object
    rest: object = None


@pytest.mark.parametrize(
    ("expected", "found", "told"),
    [
        (torch.tensor([1.0, torch.nan]), torch.tensor([1.0, torch.nan]), None),
        (torch.tensor([1.0, torch.inf]), torch.tensor([1.000001, torch.inf]), None),
        (torch.tensor([100.0, 0.0]), torch.tensor([100.0, 9e-4]), None),
        (torch.tensor([100.0, 0.0]), torch.tensor([100.0, 2e-3]), "2.0e-05 of their scale"),
        (torch.tensor([1.0, torch.inf]), torch.tensor([1.0, -torch.inf]), "other values"),
        (torch.tensor([1.0, torch.nan]), torch.tensor([1.0, 2.0]), "other values"),
        (torch.zeros(2), torch.zeros(2).double(), "float64 instead of a tensor 2 of float32"),
        (torch.zeros(2), torch.zeros(1, 2), "1x2"),
        (torch.tensor([1, 2]), torch.tensor([1, 3]), "other values"),
        (torch.zeros(0), torch.zeros(0), None),
        (SQUARE, SQUARE, None),
        (SQUARE, SQUARE.t(), "other values"),
        ((torch.ones(1), 2), [torch.ones(1), 2], None),
        ({"a": torch.ones(1)}, Result(torch.ones(1)), None),
        ({"a": torch.ones(1)}, Result(torch.ones(1), (1,)), "2 tensors and numbers instead of 1"),
        (Result(torch.ones(1)), Result(1.0), "a float instead of a Tensor"),
        (float("nan"), float("nan"), None),
        (True, False, "False instead of True"),
        ("text", None, None),
    ],
)
def test_differences(expected, found, told):
    if told is None:
        assert difference(expected, found) is None
    else:
        assert told in difference(expected, found)


nested = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.builds(torch.full, st.just((2,)), st.floats(width=32)),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text(), inner) | st.builds(Result, inner, inner)
    ),
    max_leaves=8,
)


@given(nested)
def test_snapshots_keep_what_is_changed_later(value):
    kept, again = snapshot(value), snapshot(value)
    assert type(kept) is type(value)
    assert difference(value, kept) is None
    _change(value)
    assert difference(kept, again) is None


def _change(value):
    if isinstance(value, torch.Tensor):
        value.fill_(torch.pi)
    elif isinstance(value, list):
        for item in value:
            _change(item)
        value.clear()
    elif isinstance(value, dict):
        for item in value.values():
            _change(item)
        value.clear()
    elif isinstance(value, Result):
        _change(value.first)
        _change(value.rest)
        value.first = value.rest = None


def test_a_snapshot_keeps_sharing():
    one = torch.ones(2)
    kept = snapshot([one, (one,)])
    assert kept[0] is kept[1][0]
    assert kept[0] is not one


def test_a_snapshot_of_memory_that_torch_does_not_own():
    array = np.ones(2)
    kept = snapshot(torch.from_numpy(array))
    array[:] = 2
    assert kept.tolist() == [1.0, 1.0]


def test_a_snapshot_takes_memory_only_when_something_changes():
    one = torch.ones(2)
    kept = snapshot(one)
    assert torch._C._is_cow_tensor(kept)
    one.add_(1)
    assert kept.tolist() == [1.0, 1.0]
    assert one.tolist() == [2.0, 2.0]
