"""Plans a model with nothing shared, emits it, imports that, and compares it with the model."""

from __future__ import annotations

import itertools
import sys
import types

import torch

import planner

_numbers = itertools.count()


def tensors(shapes, batch):
    """Random tensors of ``shapes`` with another first axis; a shape may come with a dtype."""
    made = []
    for spec in shapes:
        shape, dtype = spec if isinstance(spec[0], tuple) else (spec, torch.float32)
        size = (batch, *shape[1:])
        made.append(torch.randint(0, 5, size) if dtype == torch.int64 else torch.randn(size))
    return made


def flatten(value):
    """The tensors in an output, in order; numbers as tensors, without what is None."""
    if value is None:
        return []
    if isinstance(value, (dict, tuple, list)):
        items = value.values() if isinstance(value, dict) else value
        return [tensor for item in items for tensor in flatten(item)]
    return [torch.as_tensor(value)]


def import_source(source):
    """The module that ``source`` is; registered, as dataclasses want it."""
    module = types.ModuleType(f"emitted_{next(_numbers)}")
    sys.modules[module.__name__] = module
    exec(compile(source, module.__name__, "exec"), module.__dict__)
    return module


def dense_plan(model, inputs):
    """A plan that leaves every tensor its own parameters."""
    return planner.plan(model, "100%", inputs, generators=("own",))


def architecture(source):
    """The part of an emitted file before its tables."""
    return source.partition("# ---------------------------------------------------------------")[
        2
    ].partition("- generators\n")[0]


def emitted(model, inputs):
    """(source, the emitted module with the weights of ``model``), by way of JSON."""
    return rebuilt(dense_plan(model, inputs), model)


def rebuilt(plan, model):
    """As :func:`emitted`, of a plan of ``model`` with nothing shared."""
    again = planner.Plan.from_json(plan.to_json())
    assert again == plan
    source = planner.emit(again)
    built = import_source(source).build()
    built.load_dense_state_dict(model.state_dict())
    trainable = [p.numel() for p in built.parameters() if p.requires_grad]
    assert sum(trainable) == plan.parameter_count == plan.dense_parameters
    return source, built


def assert_equal_outputs(model, built, shapes):
    """The same outputs to the bit, in both modes, at two batch sizes, and the same state after."""
    for training, batch in itertools.product((True, False), (2, 3)):
        model.train(training)
        built.train(training)
        inputs = tensors(shapes, batch)
        outputs = []
        for one in (model, built):
            torch.manual_seed(5)
            outputs.append(one(*[tensor.clone() for tensor in inputs]))
        assert type(outputs[0]) is type(outputs[1])
        pairs = list(zip(*map(flatten, outputs), strict=True))
        assert pairs
        for expected, found in pairs:
            assert torch.equal(expected, found)
    dense, state = built.dense_state_dict(), model.state_dict()
    assert list(dense) == list(state)
    assert all(torch.equal(dense[key], state[key]) for key in state)
