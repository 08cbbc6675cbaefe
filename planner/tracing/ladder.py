"""Which way each module is captured: symbolically where that works, else by a recorded run.

Symbolic tracing sees a forward as it is written, whatever the sizes; it stops at control flow and
at libraries that look into their tensors. A recorded run (``planner.tracing.recorder``) takes any
forward whose course does not depend on tensors' values. So each module's own forward is traced
symbolically, and those that cannot be are recorded. Where the two do not fit together (a module is
called in two ways, or captured graphs do not run), all modules are recorded.
"""

from __future__ import annotations

import inspect
from collections.abc import Hashable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch
import torch.fx
from torch import nn

from planner.errors import TraceError
from planner.ir import Leaf
from planner.tracing.calls import Call, Capture, bind
from planner.tracing.faults import fault
from planner.tracing.keys import likeness
from planner.tracing.recordings import Recordings
from planner.tracing.recovery import is_torch_leaf, recover
from planner.tracing.repeats import Repeats
from planner.tracing.skeletons import runs_in_order
from planner.tracing.symbolic import capture


def recover_leaves(model: nn.Module) -> dict[int, Leaf]:
    """Constructor calls of torch's own modules; those that cannot be rebuilt are traced instead."""
    leaves: dict[int, Leaf] = {}

    def visit(module: nn.Module) -> None:
        # The root becomes a class of the emitted file, so one of torch's is traced like a user's.
        if module is not model and is_torch_leaf(module):
            try:
                leaves[id(module)] = recover(module)
            except (ValueError, TypeError):
                pass
            else:
                return
        for child in module.children():
            visit(child)

    visit(model)
    return leaves


def capture_all(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    leaves: frozenset[int],
    recordings: Recordings,
    distrusted: frozenset[type] = frozenset(),
) -> dict[int, Capture]:
    """Capture every module with a forward of its own, top down, as its callers call it.

    Modules of ``distrusted`` types are recorded.

    Raises:
        TraceError: a module can be captured neither way, or is called in two ways.
    """
    ladder = _Ladder(model, leaves, recordings, distrusted)
    ladder.called(model, args, kwargs)
    while ladder.queue:
        ladder.climb(ladder.queue.pop(0))
    return ladder.captures


class _Ladder:
    """Captures in the making. ``queue`` holds the modules that are called but not captured yet."""

    def __init__(
        self,
        model: nn.Module,
        leaves: frozenset[int],
        recordings: Recordings,
        distrusted: frozenset[type],
    ) -> None:
        self.distrusted = distrusted
        self.leaves = leaves
        self.recordings = recordings
        self.paths = {id(one): path for path, one in reversed(list(model.named_modules()))}
        self.captures: dict[int, Capture] = {}
        self.calls: dict[int, Call] = {}
        self.queue: list[nn.Module] = []
        # What the trace of a module led to, if to anything, serves all modules that are like it.
        self.traced: Repeats[tuple[Capture | None]] = Repeats(
            model, _modes(model), frozenset(("training",))
        )

    def called(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Note a call of ``module``; what it is captured for must serve all of them."""
        if id(module) in self.leaves or isinstance(module, torch.fx.GraphModule):
            return
        if runs_in_order(module):
            for child in module.children():
                self.called(child, args, kwargs)
            return
        try:
            call = bind(module, args, kwargs)
        except TypeError as error:
            raise fault(module, self.paths[id(module)], error) from error
        done = self.captures.get(id(module))
        if done is not None and done.rung == "recorded":
            return
        known = self.calls.get(id(module))
        merged = call if known is None else _union(module, known, call, self.paths[id(module)])
        if merged != known:
            self.calls[id(module)] = merged
            self.queue.append(module)

    def symbolic(self, module: nn.Module) -> Capture | None:
        """The symbolic trace of ``module``, if there is one to trust."""
        if type(module) in self.distrusted:
            return None
        call = self.calls[id(module)]
        known = likeness((call.inputs, call.constants))
        found = self.traced.find(module, known)
        if found is not None:
            return None if found[0] is None else replace(found[0], call=call)
        captured = None
        with self.traced.running(module, known) as keep:
            with suppress(TraceError):
                captured = capture(module, call, self.paths[id(module)], self.traced.watching)
            if captured is None or not captured.constants:
                keep((captured,))
        return captured

    def climb(self, module: nn.Module) -> None:
        """Capture ``module`` by the first rung that can."""
        captured = self.symbolic(module) or self.recordings.capture(module)
        if captured is None:
            path = self.paths[id(module)]
            raise TraceError(f"module {path!r} is called by a captured graph alone", module=path)
        self.captures[id(module)] = captured
        for graph in (captured.train, captured.eval):
            for node in graph.nodes:
                if node.op == "call_module":
                    child = module.get_submodule(str(node.target))
                    self.called(child, node.args, node.kwargs)


def _modes(model: nn.Module) -> dict[int, Hashable]:
    """The flags of every module when the model trains, and when it does not."""
    mode = model.training
    flags: dict[int, Hashable] = {}
    for training in (True, False):
        model.train(training)
        for module in model.modules():
            flags[id(module)] = flags.get(id(module), ()), module.training
    model.train(mode)
    return flags


def _union(module: nn.Module, one: Call, other: Call, path: str) -> Call:
    """A call that serves both: a number that is an input in either is an input."""
    inputs: list[str] = []
    mine, theirs = dict(one.constants), dict(other.constants)
    constants: list[tuple[str, object]] = []
    for name in inspect.signature(module.forward).parameters:
        values = [known[name] for known in (mine, theirs) if name in known]
        if len(values) == 2 and values[0] == values[1]:
            constants.append((name, values[0]))
        elif len(values) < 2 and all(type(value) in (int, float) for value in values):
            if name in (*one.inputs, *other.inputs):
                inputs.append(name)
        else:
            # None or a flag decides which way the forward goes, so one class cannot serve both.
            raise TraceError(
                f"module {path!r} is called with different values of {name!r}: "
                "make it an attribute of the module, or use two modules",
                module=path,
            )
    return Call(tuple(inputs), tuple(constants))
