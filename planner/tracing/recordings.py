"""Captures of a model's modules by recorded runs, one in each mode, in any precision."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.fx
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from planner.errors import TraceError
from planner.tracing.calls import Capture
from planner.tracing.checks import decisions_of, drop_varying
from planner.tracing.decisions import explored
from planner.tracing.extents import Place
from planner.tracing.faults import fault, is_refusal
from planner.tracing.frames import InlineError, Recorded, RecordingError
from planner.tracing.functions import map_tensors
from planner.tracing.likeness import follow_dtypes, text_of
from planner.tracing.recorder import record
from planner.tracing.skeletons import copy_with, runs_in_order


class Recordings:
    """Captures of all modules by a recorded run, made when first asked for.

    ``stopped`` is what stopped the run in one mode, where that in the other stands for both.

    Args:
        model: the model's skeleton: parameters lack data, buffers have what the forward reads.
        args, kwargs: the example's arguments.
        leaves: ids of the modules that are called, not entered.
    """

    def __init__(
        self,
        model: nn.Module,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        leaves: frozenset[int],
    ) -> None:
        self._model = model
        self._args = args
        self._kwargs = kwargs
        self._paths = {id(one): path for path, one in reversed(list(model.named_modules()))}
        self._leaves = frozenset(path for key, path in self._paths.items() if key in leaves)
        self._made: dict[str, Capture] | None = None
        self._fake: dict[bool, bool] = {}
        self._last: tuple[list[dict[str, list[Recorded]]], frozenset[str]] = ([], frozenset())
        self.stopped: TraceError | None = None

    def capture(self, module: nn.Module) -> Capture | None:
        """The capture of ``module``; None if the run never called it, or inlined it.

        Raises:
            TraceError: the run stopped; names the module with file and line.
        """
        if self._made is None:
            self._made = self._run()
        return self._made.get(self._paths[id(module)])

    def captures(self) -> dict[int, Capture]:
        """All captures, by the id of the module."""
        found: dict[int, Capture] = {}
        for module in self._model.modules():
            made = self.capture(module)
            if made is not None and not runs_in_order(module):
                found[id(module)] = made
        return found

    def _run(self, inlined: frozenset[str] = frozenset()) -> dict[str, Capture]:
        try:
            runs = self._runs(inlined)
            self._last = runs, inlined
            return {
                path: self._agreed(path, [run.get(path, []) for run in runs])
                for path in dict.fromkeys((*runs[0], *runs[1]))
            }
        except InlineError as error:
            if error.path == "" or error.path in inlined:
                module = self._model.get_submodule(error.path)
                raise fault(module, error.path, error) from error
            return self._run(inlined | {error.path})

    def _runs(self, inlined: frozenset[str]) -> list[dict[str, list[Recorded]]]:
        """The calls in training and in evaluation; a model for one mode is taken to be so in both.

        Detectors, for one, want targets in training, which inference does not have.
        """
        found = [self._attempt(training, inlined) for training in (True, False)]
        runs = [run for run in found if not isinstance(run, TraceError)]
        errors = [error for error in found if isinstance(error, TraceError)]
        if not runs:
            raise next((error for error in errors if error.plannable), errors[0])
        self.stopped = next(iter(errors), None)
        return [runs[0], runs[-1]]

    def refuse_unseen_mode(self) -> None:
        """Stop where a mode was not recorded, though it may be that the model runs in it.

        Raises:
            TraceError: the model itself did not refuse to run in that mode.
        """
        stopped = self.stopped
        if stopped is None or is_refusal(stopped):
            return
        raise TraceError(
            f"{stopped}\n  Only verification can tell whether what it does in its other mode may "
            "stand for this one.",
            module=stopped.module,
            location=stopped.location,
            plannable=True,
        ) from stopped

    def _attempt(
        self, training: bool, inlined: frozenset[str]
    ) -> dict[str, list[Recorded]] | TraceError:
        try:
            return self._recorded(training, inlined)
        except TraceError as error:
            return error

    def _recorded(self, training: bool, inlined: frozenset[str]) -> dict[str, list[Recorded]]:
        """All calls in one mode, with dtypes that follow the data's.

        Tensors are on the meta device if that will do. Fake ones can do more (they know the device
        that they stand for, and the values of constants), but libraries ask for them, and go other
        ways then than with real tensors.
        """
        errors: list[TraceError] = []
        for fake in (False, True):
            try:
                return self._in_any_precision(training, inlined, fake=fake)
            except TraceError as error:  # noqa: PERF203  two turns
                errors.append(error)
        raise next((error for error in errors if error.plannable), errors[-1])

    def _in_any_precision(
        self, training: bool, inlined: frozenset[str], *, fake: bool
    ) -> dict[str, list[Recorded]]:
        run = self._record(training, inlined, torch.float32, fake=fake)
        self._fake[training] = fake
        try:
            wide = self._record(training, inlined, torch.float64, fake=fake)
        except (TraceError, InlineError):  # a model for one precision alone
            return run
        for path, calls in run.items():
            for one, other in zip(calls, wide.get(path, []), strict=False):
                follow_dtypes(one.graph, other.graph)
        return run

    def _record(
        self,
        training: bool,
        inlined: frozenset[str],
        precision: torch.dtype,
        *,
        fake: bool,
        turned: Place | None = None,
    ) -> dict[str, list[Recorded]]:
        mode: Any = torch.device("meta")
        if fake:
            mode = FakeTensorMode(allow_non_fake_inputs=True)

        def make(tensor: torch.Tensor) -> torch.Tensor:
            dtype = precision if tensor.dtype is torch.float32 else tensor.dtype
            with mode:
                return torch.empty_strided(tensor.shape, tensor.stride(), dtype=dtype)

        def run() -> dict[str, list[Recorded]]:
            # A copy for each, as forwards may change their modules.
            model = copy_with(self._model, make).train(training)
            return record(model, args, kwargs, mode, self._leaves, inlined, turned)

        def given(tensor: torch.Tensor) -> torch.Tensor:
            # Gradients may be wanted of an input; a leaf could not be changed in place.
            made = make(tensor)
            differs = made.is_floating_point() or made.is_complex()
            return made.requires_grad_().clone() if differs else made

        args, kwargs = map_tensors((self._args, dict(self._kwargs)), given)
        try:
            return explored(run, _same)
        except RecordingError as error:
            module = self._model.get_submodule(error.path)
            raise fault(module, error.path, error.cause, (args, kwargs)) from error

    def is_idle(self, place: Place) -> bool:
        """Whether the comparison at ``place`` may have the other outcome, for all that is seen.

        Also where the model refuses then: what the emitted file does at such sizes is its own.
        """
        runs, inlined = self._last
        for training, run in zip((False, True), reversed(runs), strict=True):
            if training in self._fake and place in _places(run):
                return self._is_idle_in(run, training, place, inlined)
        return False

    def _is_idle_in(
        self, run: dict[str, list[Recorded]], training: bool, place: Place, inlined: frozenset[str]
    ) -> bool:
        try:
            other = self._record(
                training, inlined, torch.float32, fake=self._fake[training], turned=place
            )
        except TraceError as error:
            return is_refusal(error)
        except InlineError:
            return False
        return _texts(run) == _texts(other)

    def _agreed(self, path: str, runs: list[list[Recorded]]) -> Capture:
        """The capture that stands for all calls of a module, in both modes."""
        for calls in runs:
            if any(other.graph is not calls[0].graph for other in calls[1:]):
                # Modules that are like this one, and are called otherwise, keep all their checks.
                calls[0] = replace(calls[0], graph=copy.deepcopy(calls[0].graph))
            for other in calls[1:]:
                same = (calls[0].call.inputs == other.call.inputs) and (
                    text_of(calls[0].graph) == text_of(other.graph)
                )
                if not same:
                    raise InlineError(path, "it does different things in two calls")
                drop_varying(calls[0].graph, other.graph)
        train, evaluation = (calls[0] if calls else None for calls in runs)
        first = train or evaluation
        if first is None:
            raise AssertionError(path)
        train, evaluation = train or first, evaluation or first
        if train.call.inputs != evaluation.call.inputs:
            raise InlineError(path, "it is called with other arguments in evaluation")
        constants = {**train.constants, **evaluation.constants}
        for name, value in train.constants.items():
            if not torch.equal(value, constants[name]):
                raise InlineError(path, f"{name} differs between training and evaluation")
        module = self._model.get_submodule(path)
        for name, value in constants.items():
            setattr(module, name, value)
        return Capture(train.call, train.graph, evaluation.graph, constants, "recorded")


def _places(run: Mapping[str, list[Recorded]]) -> set[Place]:
    """Where the calls of a run decided something about sizes."""
    graphs = [call.graph for calls in run.values() for call in calls]
    return {one.place for graph in graphs for one in decisions_of(graph)}


def _texts(run: Mapping[str, list[Recorded]]) -> dict[str, list[str]]:
    return {path: [call.text for call in calls] for path, calls in run.items()}


def _same(one: dict[str, list[Recorded]], other: dict[str, list[Recorded]]) -> bool:
    """Whether two runs did the same."""
    if {path: len(calls) for path, calls in one.items()} != {
        path: len(calls) for path, calls in other.items()
    }:
        return False
    return all(
        mine.call == its.call
        and text_of(mine.graph) == text_of(its.graph)
        and mine.constants.keys() == its.constants.keys()
        and all(
            not value.is_meta and torch.equal(value, its.constants[name])
            for name, value in mine.constants.items()
        )
        for path, calls in one.items()
        for mine, its in zip(calls, other[path], strict=True)
    )
