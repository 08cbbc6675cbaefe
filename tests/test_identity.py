"""Emitted modules compute what the originals compute, with their weights and in both modes."""

import pytest
import torch

from emitted import cases
from models import MODELS

TOLERANCE = 1e-6


def outputs(model, inputs, *, training, seed=1):
    """One forward in a mode; both modules draw the same dropout from ``seed``."""
    torch.manual_seed(seed)
    model.train(training)
    with torch.no_grad():
        return model(*inputs)


def assert_equal_outputs(one, other, inputs, *, training):
    ours, theirs = (outputs(model, inputs, training=training) for model in (one, other))
    assert ours.shape == theirs.shape
    assert torch.isfinite(theirs).all()
    scale = theirs.abs().max()
    assert scale > 0
    assert (ours - theirs).abs().max() <= TOLERANCE * scale


def lived_in(model, name):
    """``model`` with no tensor at its start: statistics of a batch, and nothing at zero."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.01)
    outputs(model, MODELS[name].inputs(4, seed=5), training=True)
    return model


@pytest.mark.parametrize("name", MODELS)
def test_own_parameters_give_the_originals_outputs(name, plans):
    model = MODELS[name]
    plan = plans(name, "100%", generators=("own",))
    assert {one.generator for one in plan.allocation.placements} == {"own"}
    original = lived_in(model.original(), name)
    emitted = plans.module(plan).build()
    errors = emitted.load_dense_state_dict(original.state_dict())
    assert set(errors) == {key for key, _ in original.named_parameters(remove_duplicate=False)}
    assert max(errors.values()) == 0
    for batch in (2, 3):
        inputs = model.inputs(batch, seed=batch)
        assert_equal_outputs(emitted, original, inputs, training=False)
        assert_equal_outputs(emitted, original, inputs, training=True)
    # Statistics moved alike in the forwards in training mode.
    buffers = dict(emitted.named_buffers())
    for key, theirs in original.named_buffers():
        torch.testing.assert_close(buffers[key], theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", cases())
def test_originals_take_dense_weights(case, plans):
    name, budget = case
    emitted = lived_in(plans.module(plans.least(name, budget)).build(), name)
    original = MODELS[name].original(seed=1)
    original.load_state_dict(emitted.dense_state_dict(), strict=True)
    for batch in (2, 3):
        inputs = MODELS[name].inputs(batch, seed=batch)
        assert_equal_outputs(emitted, original, inputs, training=False)
