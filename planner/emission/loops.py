"""Repeated stretches of a forward become loops.

A model that runs ``for block in self.blocks: x = block(x, mask)`` is captured unrolled. A stretch
of operations that recurs with the next child of one container each time, whose other operands
stay, and which hands one value on, is that loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from planner.ir import Graph, Items, Mapping, Operation, Ref, Slice, Value, references


@dataclass(frozen=True, slots=True)
class Loop:
    """``for item in container``: the body reads ``initial`` and hands ``result`` on in its place.

    ``final`` is the value that the rest of the forward knows the last result by. Operations of the
    body have the container's path with ``ITEM`` in place of the index.
    """

    container: str
    count: int
    initial: str
    result: str
    body: tuple[Operation, ...]
    final: str


Step: TypeAlias = Operation | Loop

ITEM = "*"


def roll(graph: Graph, sizes: dict[str, int]) -> tuple[Step, ...]:
    """The operations of ``graph`` with loops over whole containers rolled up.

    ``sizes`` gives the number of children of each container that a loop may run over.
    """
    operations = graph.operations
    output = set(references(graph.output))
    steps: list[Step] = []
    position = 0
    while position < len(operations):
        loop = _loop_at(operations, position, sizes, output)
        if loop is None:
            steps.append(operations[position])
            position += 1
        else:
            steps.append(loop)
            position += loop.count * len(loop.body)
    return tuple(steps)


def reads(operation: Operation) -> set[str]:
    """Names of the values that ``operation`` reads."""
    return set(references((*operation.args, *(value for _, value in operation.kwargs))))


def _indexed(operation: Operation, sizes: dict[str, int]) -> tuple[str, int] | None:
    """(container, index) if the operation calls a direct child of a container."""
    container, _, index = operation.target.rpartition(".")
    if operation.op == "module" and index.isdigit() and container in sizes:
        return container, int(index)
    return None


def _loop_at(
    operations: Sequence[Operation], start: int, sizes: dict[str, int], output: set[str]
) -> Loop | None:
    for offset in range(start, min(start + 8, len(operations))):
        first = _indexed(operations[offset], sizes)
        if first is None:
            continue
        container, index = first
        if index != 0 or sizes[container] < 2:
            return None
        second = next(
            (
                later
                for later in range(offset + 1, len(operations))
                if _indexed(operations[later], sizes) == (container, 1)
            ),
            None,
        )
        if second is None:
            return None
        return _check(operations, start, second - offset, container, sizes[container], output)
    return None


def _check(
    operations: Sequence[Operation],
    start: int,
    period: int,
    container: str,
    count: int,
    output: set[str],
) -> Loop | None:
    """The loop of ``count`` turns of ``period`` operations at ``start``, if it is one."""
    stop = start + period * count
    if stop > len(operations):
        return None
    body = operations[start : start + period]
    results = [operation.result for operation in body]
    handed: tuple[str, str] | None = None  # (value before the loop, value handed on)
    kept: set[str] = set()
    for turn in range(1, count):
        here = operations[start + turn * period : start + (turn + 1) * period]
        before = operations[start + (turn - 1) * period : start + turn * period]
        local = {operation.result: results[i] for i, operation in enumerate(here)}
        previous = {operation.result: results[i] for i, operation in enumerate(before)}
        for mine, theirs in zip(body, here, strict=True):
            pairs = _alike(mine, theirs, container, turn)
            if pairs is None:
                return None
            for one, other in pairs:
                if other in previous:
                    # In the first turn the value handed on is what stood before the loop.
                    if one in results or handed not in (None, (one, previous[other])):
                        return None
                    handed = (one, previous[other])
                elif local.get(other, other) != one:
                    return None
                elif one == other:
                    kept.add(one)
    if handed is None or handed[0] in kept:
        return None
    final = operations[stop - period + results.index(handed[1])].result
    gone = {operation.result for operation in operations[start:stop]} - {final} | {handed[0]}
    later = output.union(*(reads(operation) for operation in operations[stop:]))
    if gone & later:
        return None
    generic = tuple(replace(op, target=_generic(op.target, container, 0)) for op in body)
    return Loop(container, count, handed[0], handed[1], generic, final)


def _alike(
    one: Operation, other: Operation, container: str, turn: int
) -> list[tuple[str, str]] | None:
    """Pairs of references if both do the same to the first and the ``turn``-th child."""
    if (one.op, one.tensor) != (other.op, other.tensor):
        return None
    if _generic(one.target, container, 0) != _generic(other.target, container, turn):
        return None
    if [key for key, _ in one.kwargs] != [key for key, _ in other.kwargs]:
        return None
    return _pairs(
        (*one.args, *(value for _, value in one.kwargs)),
        (*other.args, *(value for _, value in other.kwargs)),
    )


def _generic(target: str, container: str, index: int) -> str:
    prefix = f"{container}.{index}"
    if target == prefix or target.startswith(f"{prefix}."):
        return f"{container}.{ITEM}{target[len(prefix) :]}"
    return target


def _pairs(one: Value, other: Value) -> list[tuple[str, str]] | None:
    """References at the same places of two values, or None where they differ otherwise."""
    if isinstance(one, Ref) and isinstance(other, Ref):
        return [(one.ref, other.ref)]
    if type(one) is not type(other):
        return None
    if isinstance(one, tuple) and isinstance(other, tuple):
        if len(one) != len(other):
            return None
        found: list[tuple[str, str]] = []
        for mine, theirs in zip(one, other, strict=True):
            inner = _pairs(mine, theirs)
            if inner is None:
                return None
            found += inner
        return found
    if isinstance(one, Items) and isinstance(other, Items):
        return _pairs(one.list, other.list)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        if [k for k, _ in one.dict] != [k for k, _ in other.dict]:
            return None
        return _pairs(tuple(v for _, v in one.dict), tuple(v for _, v in other.dict))
    if isinstance(one, Slice) and isinstance(other, Slice):
        return _pairs(one.slice, other.slice)
    return [] if one == other else None
