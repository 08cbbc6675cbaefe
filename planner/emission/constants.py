"""Buffers as statements: what a model computes at construction, written as it computed it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from planner import operations
from planner.emission.expressions import (
    AUGMENTED,
    Expression,
    Scope,
    call,
    change,
    expression,
    identifier,
    literal,
)
from planner.emission.tensors import digest, is_stored, key
from planner.errors import PlanFormatError
from planner.ir import Buffer, Operation, Ref, references

_NESTED = 3
"""Calls within a call: more are hard to read."""


def constant(buffer: Buffer, owner: str) -> tuple[tuple[str, ...], str]:
    """(statements, the expression that has the value of ``buffer`` after them).

    ``owner`` is the name of the buffer's class.

    Raises:
        PlanFormatError: it has no value, or one that a constant cannot have.
    """
    if buffer.expression:
        writer = _Writer(buffer.expression)
        return tuple(writer.statements()), writer.read(buffer.expression[-1].result).text
    if buffer.data is None or not re.fullmatch(r"[A-Za-z0-9+/=]*", buffer.data):
        raise PlanFormatError(f"buffer {buffer.name!r} has neither an expression nor data")
    dtype, shape = identifier(buffer.dtype), literal(buffer.shape)
    if is_stored(buffer):
        name = key(owner, buffer)
        return (), f'stored({name!r}, torch.{dtype}, {shape}, "{digest(buffer)}")'
    return (), f'unpack("{buffer.data}", torch.{dtype}, {shape})'


class _Writer:
    """Results that are read once stand where they are read; all others get their names."""

    def __init__(self, steps: tuple[Operation, ...]) -> None:
        self.steps = steps
        self.inlined: dict[str, Operation] = {}
        self.names: dict[str, str] = {}
        self.scope = Scope(self.read, _refuse)
        self.used: dict[str, list[int]] = {}
        for position, step in enumerate(steps):
            for name in _reads(step):
                self.used.setdefault(name, []).append(position)
        self.used.setdefault(steps[-1].result, []).append(len(steps))
        self._inline([index for index, step in enumerate(steps) if _changes(step)])

    def _inline(self, changes: list[int]) -> None:
        depths: dict[str, int] = {}
        for position, step in enumerate(self.steps):
            read = self.used.get(step.result, [])
            if len(read) != 1 or position in changes:
                continue
            # What changes in place is a variable, and a value is read before it changes.
            target = read[0] in changes and _changed(self.steps[read[0]])
            moved = any(position < other < read[0] for other in changes)
            depth = 1 + max((depths.get(name, 0) for name in _reads(step)), default=0)
            if target != step.result and not moved and depth <= _NESTED:
                self.inlined[step.result] = step
                depths[step.result] = depth

    def read(self, name: str) -> Expression:
        """How the value ``name`` reads."""
        if name in self.inlined:
            return call(self.inlined[name], self.scope, _refuse)
        return Expression(identifier(self.names.get(name, name)))

    def statements(self) -> Iterator[str]:
        """The lines before the last value."""
        position = 0
        while position < len(self.steps):
            step = self.steps[position]
            item = self._item(position)
            if item is not None:
                yield item
                position += 2
            elif step.result not in self.inlined:
                yield self._line(step)
            position += 1

    def _line(self, step: Operation) -> str:
        target = _changed(step) if _changes(step) else None
        if target is None:
            text = call(step, self.scope, _refuse).text
            return f"{self._free(step.result)} = {text}"
        # The result is the tensor that changes.
        self.names[step.result] = name = self.read(target).text
        return change(step, name, self.scope) or call(step, self.scope, _refuse).text

    def _item(self, position: int) -> str | None:
        """``x[i] += y``, for which Python reads an item, changes it and writes it back."""
        if position + 2 >= len(self.steps):
            return None
        item, changed, written = self.steps[position : position + 3]
        sign = AUGMENTED.get(changed.target.removeprefix("operator."))
        if item.target != "operator.getitem" or written.target != "operator.setitem":
            return None
        if sign is None or changed.args[:1] != (Ref(item.result),) or len(changed.args) != 2:
            return None
        if written.args[:2] != item.args or written.args[2] not in (
            Ref(item.result),
            Ref(changed.result),
        ):
            return None
        inside = {position + 1, position + 2}
        if not inside.issuperset(self.used[item.result] + self.used.get(changed.result, [])):
            return None
        text = call(replace(item, op="function"), self.scope, _refuse).text
        return f"{text} {sign} {expression(changed.args[1], self.scope).text}"

    def _free(self, result: str) -> str:
        """The name of a result: without its number, where that is not needed."""
        base = re.sub(r"_\d+$", "", result)
        taken = {*self.names.values(), *(step.result for step in self.steps[-1:])}
        others = {step.result for step in self.steps if step.result not in self.inlined} - {result}
        name = base if base not in taken | others and base.isidentifier() else result
        self.names[result] = name
        return name


def _changes(step: Operation) -> bool:
    return operations.is_in_place(step.op, step.target, step.kwargs)


def _changed(step: Operation) -> str | None:
    """The name of what ``step`` changes in place."""
    return next(iter(references(step.args[:1])), None)


def _reads(step: Operation) -> list[str]:
    return references((step.args, tuple(value for _, value in step.kwargs)))


def _refuse(path: str) -> str:
    raise PlanFormatError(f"a constant cannot read {path!r}")
