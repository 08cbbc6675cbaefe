"""Model → :class:`~planner.ir.Program`: a hierarchy of captured modules."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.fx
from torch import nn

from planner.errors import TraceError
from planner.ir import Definition, Program, TensorSpec
from planner.tracing.blocks import Builder
from planner.tracing.calls import Capture, arguments_of
from planner.tracing.faults import shapes_of
from planner.tracing.folding import fold, map_leaves
from planner.tracing.functions import map_tensors, tensors_in
from planner.tracing.graphs import without_default_keywords
from planner.tracing.ladder import Recordings, capture_all, recover_leaves
from planner.tracing.norms import write_out_norms
from planner.tracing.recovery import without_defaults
from planner.tracing.shapes import propagate
from planner.tracing.skeletons import refuse_names, refuse_unseen, without_data

__all__ = ["trace"]


def trace(
    model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any] | None = None
) -> Program:
    """Capture ``model`` as a program.

    Every module that is not ``torch.nn``'s own is captured by its own forward with its children as
    leaves, so hierarchy, class names and attribute names are the model's. Parameters may be on the
    meta device; nothing is computed with them. ``model`` is left as it was.

    Args:
        model: the module; its parameters may lack data, its buffers may not.
        args: positional arguments of ``forward``: tensors of any device, of which only shapes and
            dtypes matter, also in tuples, lists and dicts; None and other literals.
        kwargs: keyword arguments, likewise.

    Raises:
        TraceError: a module cannot be captured; names it, with file and line.
    """
    refuse_unseen(model)
    refuse_names(model)
    skeleton = without_data(model)
    write_out_norms(skeleton)
    leaves = recover_leaves(skeleton)
    given: tuple[tuple[Any, ...], dict[str, Any]]
    given = map_tensors((tuple(args), dict(kwargs or {})), lambda one: one.to("meta"))
    try:
        arguments_of(skeleton, *given)
    except TypeError as error:
        raise TraceError(
            f"{type(model).__name__}.forward{inspect.signature(type(model).forward)} does not take "
            f"the example inputs: {error}. Check --input / example_inputs."
        ) from error
    recordings = Recordings(skeleton, *given, frozenset(leaves))
    tensors: set[torch.fx.Node] = set()
    try:
        captures = capture_all(skeleton, *given, frozenset(leaves), recordings)
        outputs = _run_shapes(skeleton, *given, captures, tensors)
    except TraceError:
        captures = recordings.captures()
        outputs = _run_shapes(skeleton, *given, captures, tensors)
    block = Builder(model, skeleton, captures, tensors, leaves).block(skeleton, "")
    definitions, root = fold(block, _positional_names)
    return Program(
        tuple(_shortened(definition) for definition in definitions),
        root,
        tuple(_spec(tensor) for tensor in tensors_in(given)),
        tuple(_spec(tensor) for tensor in tensors_in(outputs)),
    )


def _run_shapes(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    captures: dict[int, Capture],
    tensors: set[torch.fx.Node],
) -> Any:
    """Run the captured graphs in both modes; the outputs in training."""
    outputs: Any = None
    try:
        for training in (False, True):
            model.train(training)
            outputs = propagate(model, args, kwargs, captures, tensors)
    except Exception as error:  # an operator's own complaint about shapes
        text = str(error).strip().splitlines()
        raise TraceError(
            f"the captured model does not run on inputs of shapes {shapes_of((args, kwargs))}: "
            f"{text[0] if text else type(error).__name__}. Check --input / example_inputs."
        ) from error
    return outputs


def _shortened(definition: Definition) -> Definition:
    """``definition`` without what its constructor calls and operations do by default."""
    definition = map_leaves(definition, without_defaults)
    graphs = (definition.train, definition.eval)
    train, evaluation = (one and without_default_keywords(one) for one in graphs)
    return replace(definition, train=train, eval=evaluation)


def _spec(tensor: torch.Tensor) -> TensorSpec:
    return TensorSpec(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))


def _positional_names(leaf_type: str) -> tuple[str, ...]:
    """Names of a torch.nn constructor's arguments, in order."""
    return tuple(inspect.signature(getattr(nn, leaf_type)).parameters)
