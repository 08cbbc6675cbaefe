"""Run a captured graph as checks of it need: children done again, checks that stop nothing."""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.fx
from torch import nn

from planner.tracing.calls import Capture, arguments_of, as_graphs
from planner.tracing.checks import DECISION, checked_by
from planner.tracing.extents import Place
from planner.tracing.nested import difference, snapshot, tensors


@dataclass(frozen=True, slots=True)
class Replayable:
    """One call: arguments before it, and after it if it changed them, and what it left behind.

    ``begun`` and ``random`` are the random generator's states before and after.
    """

    module: nn.Module
    before: Any
    after: Any
    output: Any
    begun: torch.Tensor
    random: torch.Tensor


@dataclass(slots=True)
class Seen:
    """Of one run of a graph: the checks that failed, and the pairs of sizes that were compared."""

    failed: set[Place] = field(default_factory=set)
    pairs: dict[Place, set[tuple[int, int]]] = field(default_factory=dict)


class _OtherCallError(Exception):
    """A graph calls its children otherwise than the forward did."""


def interpret(
    module: nn.Module,
    capture: Capture,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    calls: list[Replayable] | None,
    seen: Seen,
) -> Any:
    """Run the graph of ``module``'s mode; its children are replayed from ``calls``, if given.

    ``seen`` gets what becomes of its checks.
    """
    given = arguments_of(module, args, kwargs)
    graph = capture.train if module.training else capture.eval
    run = _Own(module, graph, seen) if calls is None else _Replay(module, graph, seen, calls)
    output = run.run(*(as_graphs(given[name]) for name in capture.call.inputs))
    if isinstance(run, _Replay) and run.position != len(run.calls):
        raise _OtherCallError
    return output


_EQUAL = (operator.eq, operator.le, operator.ge)
"""What holds for equal sizes."""


class _Unstopped(torch.fx.Interpreter):
    """Checks that fail are noted and stop nothing."""

    def __init__(self, module: nn.Module, graph: torch.fx.Graph, seen: Seen) -> None:
        super().__init__(module, graph=graph)
        self.seen = seen

    def run_node(self, n: torch.fx.Node) -> Any:
        """Run one node."""
        if n.target is torch._check:
            (holds,), _ = self.fetch_args_kwargs_from_env(n)
            if not holds and DECISION in n.meta:
                self.seen.failed.add(n.meta[DECISION].place)
            return None
        if n.target in _EQUAL and all(isinstance(one, torch.fx.Node) for one in n.args):
            pair, _ = self.fetch_args_kwargs_from_env(n)
            for place in checked_by(n):
                self.seen.pairs.setdefault(place, set()).add(pair)
        return super().run_node(n)


class _Own(_Unstopped):
    """Children run by their own forwards, also those that were registered after the capture."""

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Run a child."""
        return as_graphs(self.fetch_attr(target)(*args, **kwargs))


class _Replay(_Unstopped):
    """Children are not run: what they did when the forward called them is done again."""

    def __init__(
        self,
        module: nn.Module,
        graph: torch.fx.Graph,
        seen: Seen,
        calls: list[Replayable],
    ) -> None:
        super().__init__(module, graph, seen)
        self.calls = calls
        self.position = 0

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Give what the child gave.

        Raises:
            _OtherCallError: it was not called now, or with other arguments.
        """
        if self.position == len(self.calls):
            raise _OtherCallError
        recorded = self.calls[self.position]
        self.position += 1
        if self.fetch_attr(target) is not recorded.module or difference(
            recorded.before, (args, kwargs)
        ):
            raise _OtherCallError
        if not torch.equal(recorded.begun, torch.get_rng_state()):
            raise _OtherCallError
        if recorded.after is not None:
            pairs = zip(tensors((args, kwargs)), tensors(recorded.after), strict=True)
            for given, changed in pairs:
                given.copy_(changed)
        torch.set_rng_state(recorded.random)
        return as_graphs(snapshot(recorded.output))
