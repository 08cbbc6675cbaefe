"""Captured graphs against the model's own forwards, in numbers.

A trace can be wrong without failing: a branch on a value that is a proxy during the trace, a flag
that the trace found true, a random number drawn once. So a copy of the model with random weights
runs with its own forwards, in training and in evaluation, at two batch sizes, and every captured
module is checked as it returns (:mod:`~planner.tracing.replay`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from planner.errors import TraceError
from planner.ir import Verification
from planner.tracing.calls import Capture, as_graphs
from planner.tracing.checks import Evidence, settle, undecided
from planner.tracing.extents import Place
from planner.tracing.forwards import location_of
from planner.tracing.functions import map_tensors
from planner.tracing.guards import Served
from planner.tracing.nested import difference, leaves
from planner.tracing.other_sizes import Changes, Run, at_other_sizes, guard_all, names
from planner.tracing.repeats import distinct_parameters
from planner.tracing.replay import Checker
from planner.tracing.resizing import extremes, resized
from planner.tracing.shapes import run_captured
from planner.tracing.shortcuts import may_take_one, shortcut
from planner.tracing.twins import (
    at_batch,
    filled,
    output_of,
    twin_of,
    undisturbed,
    without_data_of,
)
from planner.tracing.weights import RandomWeights

LIMIT = 500_000_000
"""Parameters, of blocks that look alike those of one, beyond which a model is not run: it would
take minutes. Nor is one that has four times as many in all, since blocks may be less alike than
they look."""


def verify(
    model: nn.Module,
    captures: Mapping[str, Capture],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    is_idle: Callable[[Place], bool],
) -> tuple[Verification, Evidence]:
    """Compare the captured graphs of ``model`` with its forwards; the model is left as it was.

    Outputs, changed inputs, buffers and the use of random numbers must agree, up to
    :data:`~planner.tracing.nested.TOLERANCE` of a tensor's scale. Where the model itself does not
    run, nothing is compared, and the result says so.

    Args:
        model: may lack data in its parameters, whose values are never read.
        captures: by the module's path in ``model``.
        args: inputs of the model. Integers keep their values if they have some, all else is random.
            What has the first tensor's first axis gets other batch sizes.
        kwargs: likewise, by keyword.
        is_idle: whether a comparison of sizes may have another outcome, for what is recorded.

    Returns:
        What was run, and what it tells about the checks of the graphs.

    Raises:
        TraceError: a module's graph differs from its forward; the innermost such module is named.
    """
    reason = obstacle(model)
    if reason is not None:
        return Verification(reason=reason), Evidence()
    weights = without_data_of(model)
    values = RandomWeights(weights.values())
    inputs = args, dict(kwargs)
    evidence, served = Evidence(), Served()
    failures: list[tuple[Run, Changes]] = []

    def run(given: Any, size: int, training: bool, changes: Changes | None = None) -> Run:
        twins = (twin_of(model, weights).train(training) for _ in range(4))
        changed = given if changes is None else resized(given, changes)
        done = _run(
            twins, captures, values, changed, size, evidence, served, refusals=changes is not None
        )
        if done.told is not None:
            failures.append((done, changes or ()))
        return done

    first = next((leaf for leaf in leaves(inputs) if isinstance(leaf, torch.Tensor)), None)
    own = first.shape[0] if first is not None and first.dim() else 1
    sizes = (own, own + 1) if 2 <= own <= 4 else (2, 3)
    ran: dict[bool, list[int]] = {True: [], False: []}
    reason = ""
    # Models of one fixed batch run at that of the example alone.
    for size in dict.fromkeys((*sizes, own)):
        if size not in sizes and any(ran.values()):
            break
        for training in (True, False):
            raised = run(at_batch(inputs, own, size), size, training).raised
            if raised is None:
                ran[training].append(size)
            else:
                mode = "training" if training else "evaluation"
                reason = f"the model itself raises {raised} in {mode} at batch {size}"
    known = Verification(tuple(ran[True]), tuple(ran[False]), reason)
    modes = [training for training in (False, True) if ran[training]]
    if not modes:
        return known, evidence
    size = ran[modes[0]][0]
    if ran[False] and may_take_one(model):
        found = shortcut(lambda: output_of(model, values, at_batch(inputs, own, ran[False][0])))
        known = replace(known, reason="; ".join(filter(None, (reason, found))))
    given = at_batch(inputs, own, size)
    free, fixed = at_other_sizes(run, given, size, modes)
    settle(captures.values(), evidence, is_idle)
    # What is left may be settled at the least size, or at those that it names.
    for change in extremes([*free, *fixed], undecided(captures.values(), evidence)):
        if undecided(captures.values(), evidence):
            run(given, size, modes[0], [change])
    guard_all(model, captures, served, failures, given, free, fixed)
    held = tuple((group.name, path) for group, path in fixed.items())
    return replace(known, free=names(free), fixed=held), evidence


def obstacle(model: nn.Module) -> str | None:
    """Why ``model`` cannot be run."""
    count = sum(parameter.numel() for parameter in model.parameters())
    if count > LIMIT and (count > 4 * LIMIT or distinct_parameters(model) > LIMIT):
        return f"{count:,} parameters are more than {LIMIT:,}"
    for path, module in model.named_modules():
        for name, value in (*module._buffers.items(), *module.__dict__.items()):
            if isinstance(value, torch.Tensor) and value.is_meta:
                return f"{path}.{name} has no data".lstrip(".")
    return None


def _run(
    twins: Iterator[nn.Module],
    captures: Mapping[str, Capture],
    values: RandomWeights,
    inputs: tuple[tuple[Any, ...], dict[str, Any]],
    size: int,
    evidence: Evidence,
    served: Served,
    *,
    refusals: bool,
    whole: bool = False,
) -> Run:
    """Check all modules in one run of a twin.

    Raises:
        TraceError: a graph differs, unless ``refusals`` are allowed and it was recorded.
    """
    twin = next(twins)
    checker = Checker(twin, _fitted(twin, captures), refusals=refusals, whole=whole)
    raised = None
    with undisturbed(size), torch.no_grad(), values, checker.watching():
        try:
            args, kwargs = map_tensors(inputs, filled)
            twin(*args, **kwargs)
        except Exception as error:  # noqa: BLE001  anything may come out of a user's forward
            raised = type(error).__name__
    _refuse_changes(twin, values)
    found = checker.difference
    if checker.skipped and (found is not None or checker.refused or raised is not None):
        again = twins, captures, values, inputs, size, evidence, served
        return _run(*again, refusals=refusals, whole=True)
    for capture, shapes in checker.served:
        served.note(capture, shapes, size, resized=refusals)
    evidence.idle |= checker.idle
    for place, pairs in checker.pairs.items():
        evidence.pairs.setdefault(place, set()).update(pairs)
    if found is None and not checker.refused:
        return Run(raised, None)
    if _agree(twins, captures, values, inputs, size):
        evidence.idle |= checker.needed
        return Run(raised, None)
    evidence.needed |= checker.needed
    if found is None:
        return Run(raised, _path(twin, checker.refused[0]))
    path = _path(twin, found.module)
    if not refusals or captures[path].rung != "recorded":
        raise _error(path, found.module, found.told, size)
    return Run(raised, path, found.shapes, found.told)


def _refuse_changes(twin: nn.Module, values: RandomWeights) -> None:
    """Stop where a forward changed a parameter, which its graph would not see: nor do outputs tell.

    What an embedding with a limit to its norms changes by itself, the emitted one changes as well.

    Raises:
        TraceError: names the module that holds the parameter.
    """
    changed = values.changed()
    for path, module in twin.named_modules() if changed else ():
        name = next((one for one, held in module._parameters.items() if id(held) in changed), None)
        if name is not None and getattr(module, "max_norm", None) is None:
            raise TraceError(
                f"a forward changes parameter {f'{path}.{name}'.lstrip('.')!r} in place, which may "
                "be a generated one: move that out of the forward",
                module=path,
                plannable=True,
            )


def _path(model: nn.Module, module: nn.Module) -> str:
    return next(str(path) for path, one in model.named_modules() if one is module)


def _fitted(twin: nn.Module, captures: Mapping[str, Capture]) -> dict[int, Capture]:
    """``captures`` by the ids of the modules of ``twin``, which gets their constants."""
    by_module: dict[int, Capture] = {}
    for path, capture in captures.items():
        module = twin.get_submodule(path)
        by_module[id(module)] = capture
        for name, constant in capture.constants.items():
            setattr(module, name, constant.clone())
    return by_module


def _agree(
    twins: Iterator[nn.Module],
    captures: Mapping[str, Capture],
    values: RandomWeights,
    inputs: tuple[tuple[Any, ...], dict[str, Any]],
    size: int,
) -> bool:
    """Whether the captured graphs together do what the model does, though one by one they do not.

    A graph may leave to a child what its forward does itself: where a library takes a shortcut that
    depends on tensors' values, such as a mask that masks nothing, graphs go the long way.
    """
    plain, captured = next(twins), next(twins)
    done: list[Any] = []
    for module, by_module in ((plain, {}), (captured, _fitted(captured, captures))):
        with undisturbed(size), torch.no_grad(), values:
            try:
                args, kwargs = map_tensors(inputs, filled)
                output = run_captured(module, args, kwargs, by_module)
            except Exception:  # noqa: BLE001  anything may come out of an operation
                return False
            buffers = dict(module.named_buffers())
            done.append((output, args, kwargs, buffers, torch.get_rng_state()))
    return difference(as_graphs(done[0]), as_graphs(done[1])) is None


def _error(path: str, module: nn.Module, told: str, size: int) -> TraceError:
    location = location_of(module)
    name = f"module {path!r}" if path else "the model's root module"
    return TraceError(
        f"{name} ({type(module).__name__}) is captured wrongly: in "
        f"{'training' if module.training else 'evaluation'}, at batch {size}, its graph {told}\n"
        f"  at {location}\n"
        "  Make the forward independent of the inputs' values, types and batch size.",
        module=path,
        location=location,
    )
