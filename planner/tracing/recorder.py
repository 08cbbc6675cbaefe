"""Capture by a recorded run: what a model does with tensors that have shapes but no data.

The model runs once in each mode, as ``torch.export`` runs it when it is not strict: Python executes
as it is, so any control flow that does not depend on tensors' values works.
Each module with a forward of its own gets a graph of the public functions it called, its children
as leaves. Recording functions (``F.conv2d``) rather than dispatched operations
(``aten.convolution``) keeps what the model's author wrote.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Any

import torch
import torch.fx
from torch import nn

from planner.tracing.arithmetic import remembering
from planner.tracing.calls import (
    Context,
    arguments_of,
    bind,
    input_name,
)
from planner.tracing.extents import (
    Extents,
    Place,
    plain,
    watching,
)
from planner.tracing.frames import Frame, InlineError, Recorded, RecordingError
from planner.tracing.functions import (
    map_tensors,
    run_leaf,
    tensors_in,
)
from planner.tracing.interception import (
    applications,
    calls,
    lengths,
    quiet,
    unchecked,
    variables,
    wholes,
)
from planner.tracing.keys import is_made_of_tensors, likeness
from planner.tracing.likeness import text_of
from planner.tracing.nesting import refuse_nesting
from planner.tracing.packing import SHAPES
from planner.tracing.recorded_functions import Functions
from planner.tracing.repeats import Repeats


def record(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    mode: AbstractContextManager[Any],
    leaves: frozenset[str],
    inlined: frozenset[str],
    turned: Place | None = None,
) -> dict[str, list[Recorded]]:
    """Run ``model`` once; every call of every module that has a forward of its own, by path.

    Args:
        model: its tensors have no data; it runs in the mode that its flag says.
        args: tensors without data and literals.
        kwargs: likewise.
        mode: in which tensors are made without data.
        leaves: paths of modules that are called, not entered.
        inlined: paths of modules whose forward is recorded as part of their caller's.
        turned: where comparisons of sizes have the other outcome.

    Raises:
        RecordingError: a forward raised; names the module.
        InlineError: a module has to be inlined; names it.
    """
    return _Recorder(model, mode, leaves, inlined, turned).run(args, kwargs)


@dataclass(frozen=True, slots=True)
class _Run:
    """What came of one call of the module at ``path``, with all calls below it."""

    path: str
    made: tuple[tuple[str, Recorded], ...]
    inlined: frozenset[str]
    result: Any

    def serves(self, path: str, inlined: frozenset[str]) -> bool:
        """Whether what is to be inlined below ``path`` is so here."""
        below = (part for part in inlined if part.startswith(f"{path}."))
        return all(self.path + part.removeprefix(path) in self.inlined for part in below)


class _Recorder(Functions):
    """Calls of modules, each with a graph of its own."""

    def __init__(
        self,
        model: nn.Module,
        mode: AbstractContextManager[Any],
        leaves: frozenset[str],
        inlined: frozenset[str],
        turned: Place | None,
    ) -> None:
        super().__init__(model, turned)
        self.mode = mode
        self.leaves = leaves
        self.inlined = inlined
        self.paths: dict[int, str] = {}
        for path, module in model.named_modules(remove_duplicate=False):
            self.paths.setdefault(id(module), path)
        self.weights = frozenset(map(id, model.parameters()))
        self.found: dict[str, list[Recorded]] = {}
        self.made: list[tuple[str, Recorded]] = []
        self.repeats: Repeats[_Run] = Repeats(model)

    def run(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, list[Recorded]]:
        watched = (
            variables(),
            calls(self.called),
            applications(self.applied),
            wholes(SHAPES, self.whole),
            lengths(),
            quiet(),
            unchecked(),
            watching(self.decided),
            remembering(self.model),
            self.repeats.watching(),
        )
        with ExitStack() as stack:
            for context in (self.mode, self, *watched):
                stack.enter_context(context)
            self.enter(self.model, args, dict(kwargs))
        return self.found

    def called(self, module: nn.Module, args: Any, kwargs: Any, run: Callable[..., Any]) -> Any:
        """What ``module(*args, **kwargs)`` does; ``run`` is what it would do unrecorded."""
        path = self.paths.get(id(module))
        if self.paused or path is None or path in self.inlined or self.reweighted(module):
            # Made on the fly, or a part of the forward that calls it.
            return run(module, *args, **kwargs)
        frame = self.frames[-1]
        local = self.names(frame.module)[0].get(id(module))
        if local is None:
            raise InlineError(frame.path, f"it calls {path!r}, which is not below it")
        frame.refuse_autocast()
        frame.note_names()
        node = frame.graph.call_module(local, *self.to_arguments(args, kwargs))
        try:
            if path in self.leaves:
                with self.pause():
                    result = run_leaf(module, plain(args), plain(kwargs))
            else:
                result = self.repeated(module, args, kwargs)
        except Exception:  # the caller may expect it, and go another way
            frame.graph.erase_node(node)
            raise
        result = self.fresh(result, (args, kwargs))
        frame.learn(result, node, detached=frame.context.gradients and not torch.is_grad_enabled())
        return result if path in self.leaves else _hooked(module, args, kwargs, result)

    def reweighted(self, module: nn.Module) -> bool:
        """Whether the caller has given ``module`` other weights, as functional calls do."""
        return not self.weights.issuperset(map(id, module.parameters()))

    def repeated(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Enter ``module``, or do again what came of a module that is like it."""
        path = self.paths[id(module)]
        given = args, kwargs
        alike = likeness(given)
        call = None if alike is None else (alike, Context.now())
        found = self.repeats.find(module, call, lambda run: run.serves(path, self.inlined))
        if found is not None:
            for part, recorded in found.made:
                self.keep(path + part.removeprefix(found.path), recorded)
            with self.pause():
                return map_tensors(found.result, torch.clone)
        before, versions = len(self.made), [one._version for one in tensors_in(given)]
        with self.repeats.running(module, call) as keep:
            result = self.enter(module, args, kwargs)
            made = tuple(self.made[before:])
            alone = all(f"{part}.".startswith(f"{path}.") for part, _ in made)
            alone &= not any(recorded.constants for _, recorded in made)
            alone &= versions == [one._version for one in tensors_in(given)]
            alone &= likeness(given) == alike
            own = {
                id(one) for one in tensors_in((given, [*module.parameters(), *module.buffers()]))
            }
            alone &= not any(id(one) in own for one in tensors_in(result))
            if alone and is_made_of_tensors(result):
                keep(_Run(path, made, self.inlined, result))
        return result

    def keep(self, path: str, recorded: Recorded) -> None:
        """Note one call of the module at ``path``."""
        self.found.setdefault(path, []).append(recorded)
        self.made.append((path, recorded))

    def enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run ``module``'s forward in a frame of its own."""
        path = self.paths[id(module)]
        graph = torch.fx.Graph()
        call = bind(module, args, kwargs)
        nodes: dict[int, torch.fx.Node] = {}
        extents = Extents(graph, lambda value: nodes.get(id(value)))
        frame = Frame(module, path, call, graph, extents, nodes, Context.now())
        given = arguments_of(module, args, kwargs)
        # All placeholders first, then what is read off them.
        placeholders = [graph.placeholder(input_name(name)) for name in call.inputs]
        for name, node in zip(call.inputs, placeholders, strict=True):
            frame.learn(given[name], node)
        self.frames.append(frame)
        try:
            refuse_nesting(module, given)
            buffers = dict(module._buffers)
            result = module.forward(*args, **kwargs)
            self.write_back(module, buffers)
            graph.output(self.to_output(result))
        except (InlineError, RecordingError):
            raise
        except Exception as error:  # whatever a user's forward raises
            raise RecordingError(path, error) from error
        finally:
            self.finished.append(self.frames.pop())
        self.keep(path, Recorded(call, graph, frame.constants, text_of(graph)))
        return result


def _hooked(module: nn.Module, args: Any, kwargs: Any, result: Any) -> Any:
    """``result`` after the hooks that a model gives its own modules while it runs."""
    for number, hook in module._forward_hooks.items():
        named = (kwargs,) if number in module._forward_hooks_with_kwargs else ()
        changed = hook(module, args, *named, result)
        result = result if changed is None else changed
    return result
