"""Buffers as statements: what a model computes at construction, written as it computed it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from planner import operations
from planner.emission.expressions import Expression, Scope, call, change, identifier, literal
from planner.errors import PlanFormatError
from planner.ir import Buffer, Operation, references

_NESTED = 3
"""Calls within a call: more are hard to read."""


def constant(buffer: Buffer) -> tuple[tuple[str, ...], str]:
    """(statements, the expression that has the value of ``buffer`` after them).

    Raises:
        PlanFormatError: it has no value, or one that a constant cannot have.
    """
    if buffer.expression:
        writer = _Writer(buffer.expression)
        return tuple(writer.statements()), writer.read(buffer.expression[-1].result).text
    if buffer.data is None or not re.fullmatch(r"[A-Za-z0-9+/=]*", buffer.data):
        raise PlanFormatError(f"buffer {buffer.name!r} has neither an expression nor data")
    dtype, shape = identifier(buffer.dtype), literal(buffer.shape)
    return (), f'unpack("{buffer.data}", torch.{dtype}, {shape})'


class _Writer:
    """Results that are read once stand where they are read; all others get their names."""

    def __init__(self, expression: tuple[Operation, ...]) -> None:
        self.expression = expression
        self.inlined: dict[str, Operation] = {}
        self.depth: dict[str, int] = {}
        self.scope = Scope(self.read, _refuse)
        uses: dict[str, list[int]] = {}
        for position, operation in enumerate(expression):
            for name in references((operation.args, tuple(v for _, v in operation.kwargs))):
                uses.setdefault(name, []).append(position)
        uses.setdefault(expression[-1].result, []).append(len(expression))
        self.used = uses
        changes = [index for index, one in enumerate(expression) if _changes(one)]
        for position, operation in enumerate(expression):
            read = uses.get(operation.result, [])
            if len(read) != 1 or position in changes:
                continue
            # What changes in place is a variable, and a value is read before it changes.
            last = read[0] < len(expression)
            target = last and read[0] in changes and _changed(expression[read[0]])
            moved = any(position < other < read[0] for other in changes)
            given = references((operation.args, tuple(v for _, v in operation.kwargs)))
            depth = 1 + max((self.depth.get(name, 0) for name in given), default=0)
            if target != operation.result and not moved and depth <= _NESTED:
                self.inlined[operation.result] = operation
                self.depth[operation.result] = depth

    def read(self, name: str) -> Expression:
        if name in self.inlined:
            return call(self.inlined[name], self.scope, _refuse)
        return Expression(identifier(name))

    def statements(self) -> Iterator[str]:
        for operation in self.expression:
            if operation.result in self.inlined:
                continue
            target = _changed(operation) if _changes(operation) else None
            if target is not None and operation.result not in self.used:
                statement = change(operation, self.read(target).text, self.scope)
                yield statement or call(operation, self.scope, _refuse).text
            else:
                text = call(operation, self.scope, _refuse).text
                yield f"{identifier(operation.result)} = {text}"


def _changes(operation: Operation) -> bool:
    return operations.is_in_place(operation.op, operation.target, operation.kwargs)


def _changed(operation: Operation) -> str | None:
    """The name of what ``operation`` changes in place."""
    return next(iter(references(operation.args[:1])), None)


def _refuse(path: str) -> str:
    raise PlanFormatError(f"a constant cannot read {path!r}")
