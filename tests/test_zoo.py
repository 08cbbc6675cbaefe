"""The models that other tests plan are the ones that their papers describe."""

import pytest
import torch

from zoo import lstm_lm, mlp, transformer_lm, wide_resnet


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("depth", "widen_factor", "published"), [(28, 10, 36_479_194), (16, 4, 2_748_890)]
)
def test_wide_resnet_has_the_published_size(depth, widen_factor, published):
    with torch.device("meta"):
        model = wide_resnet.wide_resnet(depth=depth, widen_factor=widen_factor)
    assert count(model) == published


def test_wide_resnet_refuses_a_depth_that_has_no_whole_blocks():
    with pytest.raises(ValueError, match="6n"):
        wide_resnet.wide_resnet(depth=17)


@pytest.mark.parametrize(
    ("factory", "module", "shape"),
    [
        (wide_resnet.wide_resnet, wide_resnet, (2, 10)),
        (transformer_lm.transformer_lm, transformer_lm, (2, 64, 1000)),
        (lstm_lm.lstm_lm, lstm_lm, (2, 32, 1000)),
        (mlp.mlp, mlp, (2, 10)),
    ],
    ids=["wide_resnet", "transformer_lm", "lstm_lm", "mlp"],
)
def test_example_inputs_run(factory, module, shape):
    output = factory()(*module.example_inputs())
    assert output.shape == shape
    assert output.std() > 0


def test_transformer_embeddings_are_tied():
    model = transformer_lm.transformer_lm()
    assert model.head.weight is model.tokens.weight
    assert count(model) == 1000 * 256 + 64 * 256 + 4 * 789_760 + 2 * 256


def test_transformer_does_not_see_the_future():
    model = transformer_lm.transformer_lm(depth=2).eval()
    ids = torch.randint(1000, (1, 16))
    changed = ids.clone()
    changed[0, 9] = (changed[0, 9] + 1) % 1000
    difference = (model(ids) - model(changed)).abs().amax(dim=-1)[0]
    assert difference[:9].max() == 0
    assert difference[9:].min() > 0
