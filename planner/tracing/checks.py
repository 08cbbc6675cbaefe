"""Checks in recorded graphs: what a forward took for granted about sizes.

A check is a node that stops the forward where its condition does not hold. A recorded run makes one
for each decision on a size; those that turn out to make no difference are dropped.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
import torch.fx

from planner.tracing.calls import Capture
from planner.tracing.extents import ARITHMETIC, OPPOSITE, Decision, Extent, Place, Ratio

DECISION = "decision"
"""Where a check's node says what it checks: a :class:`~planner.tracing.extents.Decision`."""


def checks_of(graph: torch.fx.Graph) -> list[torch.fx.Node]:
    """The nodes that stop a forward at sizes that it does not serve."""
    return [node for node in graph.nodes if node.target is torch._check]


def decisions_of(graph: torch.fx.Graph) -> list[Decision]:
    """The decisions behind the checks of ``graph``; guards have none."""
    return [check.meta[DECISION] for check in checks_of(graph) if DECISION in check.meta]


def drop_varying(one: torch.fx.Graph, other: torch.fx.Graph) -> None:
    """Drop the checks of ``one`` that ``other``, which does the same, has otherwise or not at all.

    The shapes of inputs that differ are forgotten as well.
    """
    known = set(map(_decided, checks_of(other)))
    for check in checks_of(one):
        if _decided(check) not in known:
            _erase(check)
    pairs = zip(one.find_nodes(op="placeholder"), other.find_nodes(op="placeholder"), strict=True)
    for mine, theirs in pairs:
        if mine.meta.get("shape") != theirs.meta.get("shape"):
            mine.meta.pop("shape", None)


def _decided(check: torch.fx.Node) -> tuple[object, ...]:
    """What a check takes for granted, as far as that is a matter of numbers."""
    decision = check.meta[DECISION]
    numbers = [None if isinstance(item, (Extent, Ratio)) else item for item in decision.args]
    return (decision.place, decision.function, decision.outcome, *numbers)


def checked_by(condition: torch.fx.Node) -> list[Place]:
    """The places of the checks that want ``condition``."""
    found = [one.meta.get(DECISION) for one in condition.users if one.target is torch._check]
    return [decision.place for decision in found if decision is not None]


@dataclass(slots=True)
class Evidence:
    """What is known about the checks of captured graphs.

    ``idle`` are the places of checks that failed in graphs that did what they should nevertheless,
    or that nothing depends on; ``needed`` those of checks that failed in graphs that did not.
    ``pairs`` are computed sizes that were compared with one another.
    """

    idle: set[Place] = field(default_factory=set)
    needed: set[Place] = field(default_factory=set)
    pairs: dict[Place, set[tuple[int, int]]] = field(default_factory=dict)

    @property
    def unneeded(self) -> set[Place]:
        """The places of checks to drop: the idle ones, and those of one size that is there twice.

        Sizes are taken as one if they were equal whenever they were compared, at several sizes.
        """
        same = {
            place
            for place, pairs in self.pairs.items()
            if len(pairs) > 1 and all(one == other for one, other in pairs)
        }
        return (self.idle | same) - self.needed


def undecided(captures: Iterable[Capture], evidence: Evidence) -> list[Decision]:
    """The decisions behind checks of which ``evidence`` does not say whether they are needed."""
    graphs = [graph for capture in captures for graph in (capture.train, capture.eval)]
    decisions = [decision for graph in graphs for decision in decisions_of(graph)]
    known = evidence.unneeded | evidence.needed
    return [one for one in decisions if one.place not in known]


def settle(
    captures: Iterable[Capture], evidence: Evidence, is_idle: Callable[[Place], bool]
) -> None:
    """Ask ``is_idle`` about each place where a forward could go another way, and note it."""
    decisions = undecided(captures, evidence)
    for place in dict.fromkeys(one.place for one in decisions if one.forks):
        if is_idle(place):
            evidence.idle.add(place)


def drop(captures: Iterable[Capture], evidence: Evidence) -> None:
    """Drop the checks that are not needed by ``evidence``, and those that repeat another."""
    idle = evidence.unneeded
    for capture in captures:
        for graph in {id(one): one for one in (capture.train, capture.eval)}.values():
            seen: set[str] = set()
            for check in checks_of(graph):
                decision = check.meta.get(DECISION)
                (condition,) = check.all_input_nodes
                key = _formula(condition)
                if key in seen or (decision is not None and decision.place in idle):
                    _erase(check)
                seen.add(key)


def _erase(node: torch.fx.Node) -> None:
    """Remove ``node``, and what was computed for it alone."""
    read = node.all_input_nodes
    node.graph.erase_node(node)
    for one in read:
        if not one.users and one.op == "call_function":
            _erase(one)


def _formula(value: object) -> str:
    """What computes a size, in words that are equal where the same is computed."""
    if not isinstance(value, torch.fx.Node):
        return repr(value)
    if value.op != "call_function" or value.target not in _PURE:
        return value.name
    return f"{value.target}({', '.join(map(_formula, value.args))})"


_PURE = {getattr, operator.getitem, operator.contains, *OPPOSITE, *ARITHMETIC}
