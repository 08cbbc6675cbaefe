"""Run a model and check every captured module at the moment it returns.

A captured module's graph runs on the inputs that the module itself had, from the same state of
buffers and random numbers. In place of the children's calls stand their recorded results, as long
as the graph makes the same calls with the same arguments: so checking costs no second forward, and
the first module that differs is the innermost. By induction, graphs that agree one by one agree as
a whole. Where the calls are not the same ones, or what a child returns shares memory with what it
was given, the graph runs once more with the children's own forwards, and that decides.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.fx
from torch import nn

from planner.tracing.calls import Capture, arguments_of
from planner.tracing.extents import Place
from planner.tracing.functions import map_tensors
from planner.tracing.guards import Shapes, shapes_in
from planner.tracing.interpretation import Replayable, Seen, interpret
from planner.tracing.keys import is_made_of_tensors, likeness
from planner.tracing.nested import difference, snapshot, tensors
from planner.tracing.repeats import Repeats
from planner.tracing.shapes import marks

Forward = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Difference:
    """A captured module whose graph does not do what its forward does; ``told`` says how.

    ``shapes`` are those of its arguments.
    """

    module: nn.Module
    told: str
    shapes: Shapes


@dataclass(frozen=True, slots=True)
class _State:
    """Buffers of a module and all below it, and the random generator."""

    buffers: tuple[tuple[nn.Module, str, torch.Tensor, torch.Tensor], ...]
    random: torch.Tensor

    @classmethod
    def of(cls, module: nn.Module) -> _State:
        found = (
            (owner, name, buffer, buffer.clone())
            for owner in module.modules()
            for name, buffer in owner._buffers.items()
            if buffer is not None
        )
        return cls(tuple(found), torch.get_rng_state())

    def restore(self, owners: Iterable[nn.Module]) -> None:
        torch.set_rng_state(self.random)
        wanted = set(map(id, owners))
        for owner, name, buffer, value in self.buffers:
            if id(owner) in wanted:
                owner._buffers[name] = buffer
                if not torch.equal(buffer, value):
                    buffer.copy_(value)

    def values(self, owners: Iterable[nn.Module]) -> list[torch.Tensor]:
        wanted = set(map(id, owners))
        return [value for owner, _, _, value in self.buffers if id(owner) in wanted]


@dataclass(frozen=True, slots=True)
class _Checked:
    """What a block gave: from which arguments, and in which state."""

    given: Any
    entry: _State
    output: Any

    def serves(self, given: Any, entry: _State | None) -> bool:
        """Whether a block with these arguments and buffers does the same but for random values."""
        if entry is None or len(entry.buffers) != len(self.entry.buffers):
            return False
        pairs = zip(self.entry.buffers, entry.buffers, strict=True)
        same = all(torch.equal(one[3], other[3]) for one, other in pairs)
        mine, theirs = tensors(self.given), tensors(given)
        exact = (one for one in zip(mine, theirs, strict=True) if not one[0].is_floating_point())
        return same and all(torch.equal(one, other) for one, other in exact)


def _is_apart(output: Any, given: Any) -> bool:
    """Whether ``output`` is tensors, each once, with memory that is not that of ``given``."""
    if not is_made_of_tensors(output):
        return False
    own, others = (
        [one.untyped_storage()._cdata for one in tensors(value)] for value in (output, given)
    )
    return len(set(own)) == len(own) and not set(own) & set(others)


def _stirred(value: Any, shift: int) -> Any:
    """A copy of ``value`` with its fractions in another order, so that no two results are equal."""

    def stir(tensor: torch.Tensor) -> torch.Tensor:
        moves = tensor.is_floating_point() and tensor.dim() > 0
        return tensor.roll(shift, -1) if moves else tensor.clone()

    return map_tensors(value, stir)


class Checker:
    """Wraps the forwards of ``model``, a copy that nobody else uses.

    ``difference`` is the first that was found, None while there is none; ``refused`` are the
    modules whose graphs differ where their checks say so. ``idle`` and ``needed`` are the places of
    the checks that failed, in graphs that do what they should and in those that do not; ``pairs``
    are the pairs of computed sizes that checks compared; ``served`` are the captures that did what
    they should, each time with the shapes of the arguments.

    Of blocks that are alike in all that they read, the first alone runs and is checked; the others
    give what it gave, in another order, unless ``whole`` is true. Whoever calls the block sees no
    difference, but what is found then may be due to that: ``skipped`` says how many did not run.
    The model runs inside ``watching()``.

    Args:
        model: runs with its own forwards.
        captures: of its modules, by ``id``.
        refusals: whether a graph may differ from its forward at sizes that its checks refuse.
    """

    def __init__(
        self,
        model: nn.Module,
        captures: Mapping[int, Capture],
        *,
        refusals: bool = False,
        whole: bool = False,
    ) -> None:
        self.difference: Difference | None = None
        self.refused: list[nn.Module] = []
        self.idle: set[Place] = set()
        self.needed: set[Place] = set()
        self.pairs: dict[Place, set[tuple[int, int]]] = {}
        self.served: list[tuple[Capture, Shapes]] = []
        self._refusals = refusals
        self.skipped = 0
        self._whole = whole
        self._repeats: Repeats[_Checked] = Repeats(model, marks(captures))
        self.watching = self._repeats.watching
        self._captures = captures
        self._frames: list[list[Replayable] | None] = []
        self._paused = False
        for module in model.modules():
            if not isinstance(module, (torch.jit.ScriptModule, torch.fx.GraphModule)):
                forward = module.forward
                run = functools.partial(self._call, module, forward)
                module.__dict__["forward"] = functools.wraps(forward)(run)

    def _call(self, module: nn.Module, forward: Forward, *args: Any, **kwargs: Any) -> Any:
        if self._paused:
            return forward(*args, **kwargs)
        capture = self._captures.get(id(module))
        calls = self._frames[-1] if self._frames else None
        if capture is None and calls is None:
            return self._enter(None, forward, args, kwargs)
        before = snapshot((args, kwargs))
        versions = [tensor._version for tensor in tensors((args, kwargs))]
        entry = _State.of(module) if capture is not None else None
        made: list[Replayable] | None = [] if capture is not None else None
        begun = torch.get_rng_state()
        call = None if entry is None or self._whole else likeness((args, kwargs))
        done = self._repeats.find(module, call, lambda one: one.serves(before, entry))
        if done is not None:
            self.skipped += 1
            output = _stirred(done.output, self.skipped)
            if calls is not None:
                state = torch.get_rng_state()
                calls.append(Replayable(module, before, None, snapshot(output), begun, state))
            return output
        with self._repeats.running(module, call) as keep:
            output = self._enter(made, forward, args, kwargs)
            changed = versions != [tensor._version for tensor in tensors((args, kwargs))]
            if entry is not None and not changed and _is_apart(output, (args, kwargs)):
                keep(_Checked(before, entry, snapshot(output)))
        after = snapshot((args, kwargs)) if changed else None
        random = begun, torch.get_rng_state()
        recorded = Replayable(module, before, after, snapshot(output), *random)
        if capture is not None and entry is not None and self.difference is None:
            self._check(capture, recorded, entry, made or [])
        if calls is not None:
            calls.append(recorded)
        return output

    def _enter(
        self,
        calls: list[Replayable] | None,
        forward: Forward,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """Run ``forward``, its children's calls recorded in ``calls`` unless that is None."""
        self._frames.append(calls)
        try:
            return forward(*args, **kwargs)
        finally:
            self._frames.pop()

    def _check(
        self, capture: Capture, recorded: Replayable, entry: _State, calls: list[Replayable]
    ) -> None:
        module = recorded.module
        left = _State.of(module)
        told = None
        seen = Seen()
        self._paused = True
        everything = list(module.modules())
        # A replay leaves the children's buffers as they are, so it tells about the module's own.
        for replayed, owners in ((calls, [module]), (None, everything)):
            entry.restore(owners)
            args, kwargs = snapshot(recorded.before)
            try:
                output = interpret(module, capture, args, kwargs, replayed, seen)
            except Exception as error:  # noqa: BLE001  anything may come out of an operation
                text = str(error).strip().splitlines()
                told = f"raises {type(error).__name__}: {text[0] if text else ''}".rstrip(": ")
            else:
                told = _effects_differ(recorded, left, owners, output, (args, kwargs))
            if told is None:
                break
        self._paused = False
        for place, pairs in seen.pairs.items():
            self.pairs.setdefault(place, set()).update(pairs)
        shapes = shapes_in(arguments_of(module, *recorded.before))
        if told is None:
            self.idle |= seen.failed
            self.served.append((capture, shapes))
        elif seen.failed and self._refusals:
            self.needed |= seen.failed
            self.refused.append(module)
        else:
            self.difference = Difference(module, told, shapes)


def _effects_differ(
    recorded: Replayable, left: _State, owners: list[nn.Module], output: Any, given: Any
) -> str | None:
    """How a graph's output and what it changed differ from what its forward did."""
    told = difference(recorded.output, output)
    if told is not None:
        return f"gives {told}"
    expected = recorded.before if recorded.after is None else recorded.after
    if difference(expected, given) is not None:
        return "changes its inputs otherwise"
    now = _State.of(recorded.module)
    # A buffer of another shape than before is what a graph computes each time.
    theirs, ours = left.values(owners), now.values(owners)
    pairs = zip(theirs, ours, strict=False)
    changed = any(difference(*pair) for pair in pairs if pair[0].shape == pair[1].shape)
    if changed or len(theirs) != len(ours):
        return "leaves other buffers"
    if not torch.equal(left.random, now.random):
        return "draws other random numbers"
    return None
