"""Repeated stretches of a forward become loops.

A model that runs ``for block in self.blocks: x = block(x, mask)`` is captured unrolled. A stretch
of operations that recurs with the next child of one container each time, or with the same module
(``for _ in range(12): x = self.block(x)``), whose other operands stay, and which hands one value
on, is that loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from planner.ir import Graph, Items, Mapping, Operation, Ref, Slice, Switch, Value, references


@dataclass(frozen=True, slots=True)
class Loop:
    """``for item in container``: the body reads ``initial`` and hands ``result`` on in its place.

    ``final`` is the value that the rest of the forward knows the last result by. Operations of the
    body have the container's path with ``ITEM`` in place of the index, which runs from ``start``
    over ``count`` children, ``whole`` if these are all that follow. Without a container the body is
    the same in each of ``count`` turns.
    """

    container: str | None
    start: int
    count: int
    whole: bool
    initial: str
    result: str
    body: tuple[Operation, ...]
    final: str


Step: TypeAlias = Operation | Loop

ITEM = "*"

_REACH = 8
"""Operations of a body before the first call of the container's child."""
_LONGEST = 64
"""Operations of a body."""
_TURNS = 3
"""Fewest turns of a loop over anything but a whole container."""


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
    """The longest loop whose first operation is at ``start``."""
    for offset in range(start, min(start + _REACH, len(operations))):
        if operations[offset].op != "module":
            continue
        items = _indexed(operations[offset], sizes)
        for container, index in (items, (None, 0)) if items else ((None, 0),):
            again = _again(operations, offset, container, index)
            if again is None:
                continue
            period = again - offset
            most = (len(operations) - start) // period
            rest = most if container is None else sizes[container] - index
            for count in range(min(most, rest), 1, -1):
                whole = container is not None and count == rest
                if count < _TURNS and (index > 0 or not whole):
                    break
                loop = _check(operations, start, period, (container, index, count), output)
                if loop is not None:
                    return replace(loop, whole=whole)
        if items:
            return None
    return None


def _again(
    operations: Sequence[Operation], offset: int, container: str | None, index: int
) -> int | None:
    """Where the module after the one at ``offset`` is called, or the same one once more."""
    wanted = operations[offset].target if container is None else f"{container}.{index + 1}"
    wanted = wanted.lstrip(".")
    return next(
        (
            later
            for later in range(offset + 1, min(offset + 1 + _LONGEST, len(operations)))
            if operations[later].op == "module" and operations[later].target == wanted
        ),
        None,
    )


def _check(
    operations: Sequence[Operation],
    start: int,
    period: int,
    items: tuple[str | None, int, int],
    output: set[str],
) -> Loop | None:
    """The loop of ``count`` turns of ``period`` operations at ``start``, if it is one."""
    container, index, count = items
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
            pairs = _alike(mine, theirs, container, index, turn)
            if pairs is None:
                return None
            for one, other in pairs:
                if other in previous:
                    # In the first turn the value handed on is what stood before the loop.
                    if one in results or handed not in (None, (one, previous[other])):
                        return None
                    handed = (one, previous[other])
                elif (local.get(other) if one in results else other) != one:
                    # Not the value of this turn, but of the first, or of none.
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
    generic = tuple(replace(op, target=_generic(op.target, container, index)) for op in body)
    return Loop(container, index, count, True, handed[0], handed[1], generic, final)


def _alike(
    one: Operation, other: Operation, container: str | None, index: int, turn: int
) -> list[tuple[str, str]] | None:
    """Pairs of references if both do the same, to child ``index`` and to the ``turn``-th after."""
    if (one.op, one.tensor) != (other.op, other.tensor):
        return None
    if _generic(one.target, container, index) != _generic(other.target, container, index + turn):
        return None
    if [key for key, _ in one.kwargs] != [key for key, _ in other.kwargs]:
        return None
    return _pairs(
        (*one.args, *(value for _, value in one.kwargs)),
        (*other.args, *(value for _, value in other.kwargs)),
    )


def _generic(target: str, container: str | None, index: int) -> str:
    if container is None:
        return target
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
    if isinstance(one, Switch) and isinstance(other, Switch):
        return _pairs((one.train, one.eval), (other.train, other.eval))
    return [] if one == other else None
