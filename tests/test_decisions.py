"""Checks of values are left out where they only raise; any other course by values is refused."""

import pytest
import torch
from torch import nn

import planner
from round_trips import architecture, import_source


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 8)


class Checked(Net):
    def forward(self, x, ids):
        if ids.max() >= 100:
            raise IndexError("too large")
        assert (ids >= 0).all(), "negative"
        if torch.isnan(x).any().item():
            raise ValueError("not a number")
        torch._check_tensor_all(ids < 50, lambda: "larger than 49")
        return self.linear(x)


class Told(Net):
    def forward(self, x, ids):
        if (ids == 1).all():
            self.told = "only ones"
        return self.linear(x)


class Parts(Net):
    """What a batch is taken apart into has other numbers of parts in other batches."""

    def forward(self, x, ids):
        if (ids == -1).any():
            raise ValueError
        rows = list(self.linear(x))
        return {"all": torch.cat(rows, dim=0), "rows": rows}


class Child(Net):
    def forward(self, x, state):
        state.last = self.linear(x)
        return x + state.last, state


class State:
    last = None


class Stateful(Net):
    """Modules hand an object on, which no graph can look into."""

    def __init__(self):
        super().__init__()
        self.child = Child()

    def forward(self, x, ids):
        y, state = self.child(x, State())
        assert state is not None
        return self.linear(y) * ids.sum()


class Masked(Net):
    def forward(self, x, ids):
        return self.linear(x) if (ids == 0).all() else self.linear(x * ids.unsqueeze(-1))


class Caught(Net):
    def forward(self, x, ids):
        try:
            assert (ids == 1).all()
        except AssertionError:
            x = x + 1
        return self.linear(x)


class Endless(Net):
    def forward(self, x, ids):
        while (ids == 0).all():
            x = self.linear(x)
        return x


class Impossible(Net):
    """The other way fails as well, but not by a statement of the forward's own."""

    def forward(self, x, ids):
        return self.linear(x) @ torch.ones(3, 3) if (ids == 1).all() else self.linear(x)


class Constants(Net):
    ONES, TWOS = torch.ones(8), torch.full((8,), 2.0)

    def forward(self, x, ids):
        return self.linear(x) * (self.ONES if (ids == 0).all() else self.TWOS)


def planned(model):
    inputs = torch.randn(2, 8), torch.zeros(2, dtype=torch.int64)
    return planner.plan(model, "100%", inputs, generators=("own",))


@pytest.mark.parametrize("kind", [Checked, Told, Parts, Stateful])
def test_what_only_raises_does_not_decide(kind):
    model = kind()
    source = planner.emit(planned(model))
    assert " if " not in architecture(source)
    emitted = import_source(source).build()
    emitted.load_dense_state_dict(model.state_dict())
    for batch in (1, 2, 5):
        given = torch.randn(batch, 8), torch.arange(batch) + 1
        torch.testing.assert_close(emitted(*given), model(*given))


@pytest.mark.parametrize("kind", [Masked, Caught, Endless, Impossible, Constants])
def test_other_courses_are_refused(kind):
    plan = planned(kind())
    assert "its course depends on the values of a tensor" in plan.program.obstacle
    with pytest.raises(planner.TraceError, match="course depends on the values"):
        planner.emit(plan)


def test_a_parameter_that_changes_is_refused():
    class Rescaled(Net):
        def forward(self, x, ids):
            with torch.no_grad():
                self.linear.weight[0].mul_(0.5)
            return self.linear(x)

    assert "it changes a parameter in place" in planned(Rescaled()).program.obstacle
