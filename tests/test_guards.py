"""Sizes that a forward takes in where nothing sees it: refused by a check that tells them apart."""

import pytest
import torch
from torch import nn

import planner
from planner.errors import TraceError
from round_trips import architecture, import_source


def hidden(x):
    """1 at an even first size behind the batch's, else 2; no symbolic trace and no recording sees.

    A recorded run can tell, as the number has become a text on the way.
    """
    return 1.0 + int(str(x.shape[1])) % 2 if isinstance(x, torch.Tensor) else x


class Leaf(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x):
        return self.linear(x * hidden(x))


class OfPairs(Leaf):
    def forward(self, pair):
        (x, y), named = pair
        return self.linear(x * hidden(x)) + y + named["z"]


class Nested(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = OfPairs()

    def forward(self, x):
        return self.inner(((x, x), {"z": x}))


class Several(nn.Module):
    """One module at two sizes in one run."""

    def __init__(self):
        super().__init__()
        self.inner = Leaf()

    def forward(self, x):
        return self.inner(x).sum(1) + self.inner(x[:, 2:]).sum(1)


class Flattened(nn.Module):
    """The module sees no axis that the batch does not change as well."""

    def __init__(self):
        super().__init__()
        self.inner = OnRows()

    def forward(self, x):
        return self.inner(x.flatten(0, 1), x.shape[0])


class OnRows(Leaf):
    def forward(self, x, batch):
        length = int(str(x.shape[0])) // int(str(batch)) if isinstance(x, torch.Tensor) else x
        return self.linear(x * float(length))


class Named(Leaf):
    def forward(self, given):
        x = given["x"]
        return self.linear(x * hidden(x))


def as_it_is(x):
    return x


def in_a_dict(x):
    return {"x": x}


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(
    ("made", "given", "check"),
    [
        (Nested, as_it_is, "[0].shape[1] == 16"),
        (Several, as_it_is, "x.shape[1] in (14, 16)"),
        (Flattened, as_it_is, "x.shape[1] == 16"),
        (Named, in_a_dict, "shape[1] == 16"),
    ],
)
def test_a_check_refuses_other_sizes_and_no_other_batch(made, given, check, batch):
    model = made()
    example = (given(torch.randn(batch, 16, 8)),)
    source = planner.emit(planner.plan(model, "100%", example, generators=("own",)))
    assert check in architecture(source)
    built = import_source(source).build()
    built.load_dense_state_dict(model.state_dict())
    with torch.no_grad():
        for size in (1, 2, 5):
            x = torch.randn(size, 16, 8)
            torch.testing.assert_close(built(given(x)), model(given(x)))
            with pytest.raises(ValueError, match="captured at"):
                built(given(torch.randn(size, 19, 8)))


class Sixteens(Leaf):
    def forward(self, x):
        left = int(str(x.shape[0])) % 16 if isinstance(x, torch.Tensor) else x
        return self.linear(x * (1.0 + left))


def test_without_an_axis_to_check_the_model_is_refused():
    # A chain has no forward of its own to check its inputs in.
    chain = nn.Sequential(nn.Flatten(0, 1), Sixteens())
    plan = planner.plan(chain, "100%", (torch.randn(2, 16, 8),), generators=("own",))
    with pytest.raises(TraceError, match=r"module '1' \(Sixteens\) .* where nothing shows it"):
        planner.emit(plan)
