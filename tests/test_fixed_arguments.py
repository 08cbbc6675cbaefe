"""Literals of the example stay arguments of the emitted forward, at the value that they had."""

import pytest
import torch
from torch import nn

import planner
from planner.examples import Example
from round_trips import import_source


class Modes(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x, mask=None, mode="b", scale=1.0, flag=False, extra=None):
        y = self.linear(x) * scale
        y = y if mask is None else y * mask
        return (y + 1 if flag else y) if mode == "a" else -y


@pytest.fixture(scope="module")
def plan():
    example = Example.of(torch.zeros(2, 8), None, mode="a", flag=True, scale=0.5)
    return planner.plan(Modes(), "100%", example, generators=("own",))


def test_they_may_be_given_as_they_were(plan):
    model, emitted = Modes(), import_source(planner.emit(plan)).build()
    emitted.load_dense_state_dict(model.state_dict())
    x = torch.randn(3, 8)
    expected = model(x, mode="a", flag=True, scale=0.5)
    torch.testing.assert_close(emitted(x), expected)
    given = {"mask": None, "mode": "a", "flag": True, "scale": 0.5, "extra": None}
    torch.testing.assert_close(emitted(x, **given), expected)
    others = {"mask": x, "mode": "b", "flag": False, "scale": 1, "extra": x}
    for name, value in others.items():
        with pytest.raises(ValueError, match=f"{name} is fixed at"):
            emitted(x, **{name: value})


def test_a_plan_keeps_them(plan):
    (definition,) = plan.program.definitions
    assert definition.fixed == (
        ("mask", None),
        ("mode", "a"),
        ("scale", 0.5),
        ("flag", True),
        ("extra", None),
    )


def test_what_the_example_leaves_out_may_be_left_out_in_words():
    model = Modes()
    given = planner.plan(model, "100%", (torch.zeros(2, 8),), generators=("own",))
    emitted = import_source(planner.emit(given)).build()
    emitted.load_dense_state_dict(model.state_dict())
    x = torch.randn(3, 8)
    torch.testing.assert_close(emitted(x, mask=None, extra=None), model(x))
    with pytest.raises(ValueError, match="mask is fixed at None"):
        emitted(x, mask=x)
    with pytest.raises(TypeError, match="mode"):
        emitted(x, mode="b")


def test_a_plan_is_read_as_it_was_written(plan):
    assert planner.Plan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize("name", ["x", "a b", "if"])
def test_names_that_no_forward_can_have_are_refused(plan, name):
    text = plan.to_json().replace('["mode", "a"]', f'["{name}", "a"]')
    with pytest.raises(planner.PlanFormatError, match=r"stands twice|not a Python name"):
        planner.Plan.from_json(text)
