"""Parameters without data have random values while a mode is on, and none of them is special."""

import pytest
import torch
from torch import nn

from planner.tracing.weights import RandomWeights


def test_random_weights_are_no_special_values():
    with torch.device("meta"):
        matrix, other, vector, scalar = (
            nn.Parameter(torch.empty(shape)) for shape in ((64, 3, 5, 5), (2000, 2000), (64,), ())
        )
    with RandomWeights([matrix, other, vector, scalar]):
        values = [one.detach() for one in (matrix, other, vector, scalar)]
        again = [torch.stack([matrix, matrix])[1], other * 1]
        assert matrix.device.type == "cpu"
    assert matrix.is_meta
    for one, two in zip(values, again, strict=False):
        assert torch.equal(one, two)
    assert [one.shape for one in values] == [(64, 3, 5, 5), (2000, 2000), (64,), ()]
    assert values[0].std() == pytest.approx(75**-0.5, rel=0.05)
    assert values[1].std() == pytest.approx(2000**-0.5, rel=0.01)
    assert all(one.count_nonzero() == one.numel() for one in values)
    assert values[2].min() > 0
    assert len(values[1].unique(dim=0)) == 2000


def test_a_recurrent_layer_runs_without_data():
    with torch.device("meta"):
        model = nn.LSTM(4, 3, num_layers=2, bidirectional=True)
    with RandomWeights(model.parameters()), torch.no_grad():
        output, _ = model(torch.randn(5, 2, 4))
    assert output.isfinite().all()
    assert output.std() > 0
