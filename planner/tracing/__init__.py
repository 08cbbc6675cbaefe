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
from planner.ir import Definition, Leaf, Program, TensorSpec, Value, Verification
from planner.origins import Origins
from planner.tracing.blocks import Builder
from planner.tracing.calls import Capture, arguments_of, input_name
from planner.tracing.checks import Evidence, drop, settle
from planner.tracing.faults import shapes_of
from planner.tracing.folding import fold, map_leaves
from planner.tracing.functions import map_tensors, tensors_in
from planner.tracing.graphs import without_default_keywords
from planner.tracing.interception import as_written, uncached
from planner.tracing.ladder import capture_all, recover_leaves
from planner.tracing.norms import write_out_norms
from planner.tracing.recordings import Recordings
from planner.tracing.recovery import without_defaults
from planner.tracing.shapes import propagate
from planner.tracing.skeletons import refuse_names, refuse_unseen, without_data
from planner.tracing.values import is_literal, to_value
from planner.tracing.verification import obstacle
from planner.tracing.verification import verify as verified

__all__ = ["outline", "trace"]


@as_written()
@uncached()
def trace(
    model: nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    verify: bool = True,
    origins: Origins | None = None,
) -> Program:
    """Capture ``model`` as a program.

    Every module that is not ``torch.nn``'s own is captured by its own forward with its children as
    leaves, so hierarchy, class names and attribute names are the model's. Parameters may be on the
    meta device; nothing is computed with them. ``model`` is left as it was.

    Args:
        model: the module; its parameters may lack data, its buffers may not.
        args: positional arguments of ``forward``: tensors of any device, of which only shapes and
            dtypes matter (and the values of integers for ``verify``), also in tuples, lists and
            dicts; None and other literals.
        kwargs: keyword arguments, likewise.
        verify: run the captured graphs beside the model, with random weights, in both modes and at
            two batch sizes.
        origins: how the model's tensors came about, if it is known.

    Raises:
        TraceError: a module cannot be captured, or its graph does not do what its forward does;
            names it, with file and line.
    """
    refuse_unseen(model)
    refuse_names(model)
    skeleton = without_data(model)
    write_out_norms(skeleton)
    leaves = recover_leaves(skeleton)
    example = tuple(args), dict(kwargs or {})
    try:
        arguments_of(skeleton, *example)
    except TypeError as error:
        raise TraceError(
            f"{type(model).__name__}.forward{inspect.signature(model.forward)} does not take "
            f"the example inputs: {error}. Check --input / example_inputs."
        ) from error
    given: tuple[tuple[Any, ...], dict[str, Any]]
    given = map_tensors(example, lambda one: one.to("meta"))
    recordings = Recordings(skeleton, *given, frozenset(leaves))
    # A symbolic trace may be wrong and not fail: without verification, none is trusted.
    everything = frozenset(map(type, skeleton.modules()))
    distrusted = frozenset() if verify and obstacle(model) is None else everything
    while True:
        captures, outputs, tensors = _captured(skeleton, given, leaves, recordings, distrusted)
        verification, evidence = Verification(reason="it was not asked for"), Evidence()
        if not verify:
            break
        by_path = {
            path: captures[id(module)]
            for path, module in skeleton.named_modules()
            if id(module) in captures
        }
        try:
            verification, evidence = verified(model, by_path, *example, recordings.is_idle)
            if verification.train or verification.eval or distrusted == everything:
                break
            distrusted = everything
        except TraceError as error:
            # A symbolic trace that went wrong unnoticed: blocks of that type are recorded.
            if error.plannable or by_path[str(error.module)].rung == "recorded":
                raise recordings.stopped or error from None
            distrusted |= {type(skeleton.get_submodule(str(error.module)))}
    if not (verification.train or verification.eval):
        recordings.refuse_unseen_mode()
    settle(captures.values(), evidence, recordings.is_idle)
    drop(captures.values(), evidence)
    block = Builder(model, skeleton, captures, tensors, leaves, origins).block(skeleton, "")
    folded, root = fold(block, _positional_names)
    *definitions, last = map(_shortened, folded)
    last = replace(last, fixed=_fixed(skeleton, captures.get(id(skeleton)), *example))
    return Program(
        (*definitions, last),
        root,
        tuple(_spec(tensor) for tensor in tensors_in(given)),
        tuple(_spec(tensor) for tensor in tensors_in(outputs)),
        verification,
    )


def outline(
    model: nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    reason: str,
    *,
    origins: Origins | None = None,
) -> Program:
    """The hierarchy of a model whose forward cannot be captured: to plan and report, not to emit.

    Args:
        model: as for :func:`trace`.
        args: as for :func:`trace`.
        kwargs: as for :func:`trace`.
        reason: what stops the capture.
        origins: as for :func:`trace`.
    """
    skeleton = without_data(model)
    write_out_norms(skeleton)
    block = Builder(model, skeleton, {}, set(), recover_leaves(skeleton), origins).block(
        skeleton, ""
    )
    definitions, root = fold(block, _positional_names)
    inputs = tuple(_spec(tensor) for tensor in tensors_in((tuple(args), dict(kwargs))))
    shortened = tuple(_shortened(definition) for definition in definitions)
    return Program(shortened, root, inputs, (), obstacle=reason)


def _captured(
    skeleton: nn.Module,
    given: tuple[tuple[Any, ...], dict[str, Any]],
    leaves: Mapping[int, Leaf],
    recordings: Recordings,
    distrusted: frozenset[type],
) -> tuple[dict[int, Capture], Any, set[torch.fx.Node]]:
    """Captures that fit together, the outputs of their run, and the nodes that give tensors."""
    try:
        captures = capture_all(skeleton, *given, frozenset(leaves), recordings, distrusted)
        tensors: set[torch.fx.Node] = set()
        return captures, _run_shapes(skeleton, *given, captures, tensors), tensors
    except TraceError:
        captures, tensors = recordings.captures(), set()
        return captures, _run_shapes(skeleton, *given, captures, tensors), tensors


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


def _fixed(
    model: nn.Module, captured: Capture | None, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[tuple[str, Value], ...]:
    """The literals among the example's arguments, which the captured forward has for good.

    So are those that it leaves out, where None says so.
    """
    if captured is None:
        return ()
    parameters = inspect.signature(type(model).forward).parameters
    left = {name for name, parameter in parameters.items() if parameter.default is None}
    given = {*list(parameters)[1 : len(args) + 1], *kwargs, *left}
    return tuple(
        (input_name(name), to_value(value))
        for name, value in captured.call.constants
        if name in given and is_literal(value)
    )


def _spec(tensor: torch.Tensor) -> TensorSpec:
    return TensorSpec(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))


def _positional_names(leaf_type: str) -> tuple[str, ...]:
    """Names of a torch.nn constructor's arguments, in order."""
    return tuple(inspect.signature(getattr(nn, leaf_type)).parameters)
