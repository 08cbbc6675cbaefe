import pytest

from models import MODELS
from planner.narrowing import hidden_axes, narrow
from planner.pipeline import prepare


def prepared(name, **changes):
    model = MODELS[name]
    arguments = {**model.arguments, **changes}
    return prepare(model.spec, model.inputs(), arguments=arguments, verify=False)


@pytest.mark.parametrize("name", ["mlp", "transformer_lm"])
@pytest.mark.parametrize("width", [64, 384])
def test_the_narrower_model_counts_as_one_that_is_built_so(name, width):
    subject, other = prepared(name), prepared(name, width=width)
    found = narrow(subject.program, subject.sites, other.dense)
    assert found.fits
    assert found.count == other.dense
    assert found.factor == pytest.approx(width / 256, rel=0.02)


def test_inputs_outputs_kernels_and_positions_keep_their_lengths():
    subject = prepared("wrn-16-4")
    hidden = hidden_axes(subject.program, subject.sites)
    assert hidden["conv1.weight"] == (True, False, False, False)
    assert hidden["group2.0.conv2.weight"] == (True, True, False, False)
    assert hidden["fc.weight"] == (False, True)
    assert hidden["fc.bias"] == (False,)
    assert hidden["bn.weight"] == (True,)

    subject = prepared("transformer_lm")
    hidden = hidden_axes(subject.program, subject.sites)
    assert hidden["tokens.weight"] == (False, True)
    assert hidden["positions"] == (False, True)
    assert hidden["blocks.0.attention.in_proj_weight"] == (True, True)


def test_depthwise_kernels_have_one_channel_at_any_width():
    subject = prepared("efficientnet_b0")
    hidden = hidden_axes(subject.program, subject.sites)
    assert hidden["features.1.0.block.0.0.weight"] == (True, False, False, False)


def test_counts_rise_with_the_budget_and_one_is_the_model_itself():
    subject = prepared("wrn-16-4")
    found = [
        narrow(subject.program, subject.sites, subject.dense * percent // 100)
        for percent in (1, 10, 50, 100, 200)
    ]
    assert [one.count for one in found] == sorted(one.count for one in found)
    assert all(
        one.count <= subject.dense * percent // 100
        for one, percent in zip(found, (1, 10, 50, 100, 200), strict=True)
    )
    assert (found[3].factor, found[3].count) == (1.0, subject.dense)
    assert found[4].count > 1.9 * subject.dense


def test_too_few_for_any_width():
    subject = prepared("mlp")
    found = narrow(subject.program, subject.sites, 100)
    assert not found.fits
    assert found.count > 100
    assert narrow(subject.program, subject.sites, found.count).fits
    assert not narrow(subject.program, subject.sites, found.count - 1).fits
