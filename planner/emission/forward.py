"""A captured forward as statements.

Names follow the flow: a result takes the name of the value that it replaces, so a chain of layers
reads ``x = self.conv1(x)``, ``x = self.bn1(x)``; a value that lives on keeps its name and the new
one gets another. Sizes and other small values that are read once stand where they are read.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from planner import operations
from planner.emission.expressions import (
    NOT,
    OPPOSITES,
    Expression,
    Scope,
    access,
    call,
    change,
    child,
    expression,
    is_name,
    refusal,
)
from planner.emission.loops import ITEM, Loop, Step, reads, roll
from planner.emission.tidying import early, is_size, plainer, unpacked
from planner.errors import PlanFormatError
from planner.ir import Definition, Graph, Node, Operation, Ref, references

_RESERVED = {"self", "F", "torch", "nn", "math", "operator", "Tensor", "Any", "int", "float", "len"}
_ALWAYS_INLINE = {"shape", "dtype", "device", "ndim"}
_ANONYMOUS = {"x", "input", "inputs", "h", "out", "hidden_states", "features"}
_INDENT = "    "
_NESTED, _SHORT = 2, 2
_WIDTH = 92
"""Columns of a statement within a method."""


def statements(definition: Definition, graph: Graph, sizes: dict[str, int]) -> list[str]:
    """The lines of ``definition``'s forward in one mode, without indentation of their own.

    ``sizes`` are the containers that loops may run over, with their number of children.
    """
    graph = plainer(graph)
    steps = early(roll(graph, sizes))
    apart: set[str] = set()
    while True:
        writer = _Writer(definition, graph, steps, frozenset(apart))
        lines = writer.lines()
        if not writer.crowded - apart:
            return lines
        apart |= writer.crowded


class _Writer:
    def __init__(
        self,
        definition: Definition,
        graph: Graph,
        steps: tuple[Step, ...],
        apart: frozenset[str],
    ) -> None:
        """``apart`` are results that have lines of their own: what they stood in was too long."""
        self.definition = definition
        self.graph = graph
        self.steps = steps
        self.names: dict[str, str] = {item.name: item.name for item in definition.inputs}
        self.tensors = {item.name for item in definition.inputs if item.type == "tensor"}
        # Inputs whose names say what they hold, such as "ids", keep them for it.
        self.telling = {item.name for item in definition.inputs} - _ANONYMOUS
        self.inlined: dict[str, Operation] = {}
        self.buffers = {buffer.name for buffer in definition.buffers if is_name(buffer.name)}
        self.last: dict[str, int] = {}
        self.item: tuple[str, str] | None = None
        self.sizes: set[str] = set()
        self.changes: list[int] = []
        self.whole: set[str] = set()
        self.apart = apart
        self.crowded: set[str] = set()
        self._nested: dict[str, int] = {}
        self.tuples = unpacked(definition, graph, steps)
        self.parts = {part for parts in self.tuples.values() for part in parts if part}
        self.scope = Scope(self._lookup, "self.{}".format)
        self._plan()

    # ------------------------------------------------------------------ what to inline, who lives

    def _plan(self) -> None:
        uses: dict[str, list[int]] = {}
        in_loop: set[str] = set()
        self._find_changes()
        for position, step in enumerate(self.steps):
            for name in self._reads(step):
                uses.setdefault(name, []).append(position)
                if isinstance(step, Loop):
                    in_loop.add(name)
        for name in references(self.graph.output):
            uses.setdefault(name, []).append(len(self.steps))
        for position, step in enumerate(self.steps):
            if isinstance(step, Operation) and step.result not in in_loop:
                if self._inlines(step, position, uses.get(step.result, [])):
                    self.inlined[step.result] = step
        for position, step in enumerate(self.steps):
            for name in self._reads(step):
                self._lives(name, position)
        for name in references(self.graph.output):
            self._lives(name, len(self.steps))

    def _find_changes(self) -> None:
        """Where something may change in place, and which values are sizes, that never do."""
        changed: set[str] = set()
        for position, step in enumerate(self.steps):
            for operation in step.body if isinstance(step, Loop) else (step,):
                effect = operations.is_in_place(operation.op, operation.target, operation.kwargs)
                if effect or operation.op == "module":
                    self.changes.append(position)
                if effect:
                    changed.update(reads(operation))
            if isinstance(step, Operation) and not step.tensor:
                if is_size(step, self.sizes):
                    self.sizes.add(step.result)
                else:
                    self.whole.add(step.result)
        self.whole -= changed

    def _lives(self, name: str, position: int) -> None:
        if name in self.inlined:
            for inner in references(self._values(self.inlined[name])):
                self._lives(inner, position)
        self.last[name] = max(position, self.last.get(name, -1))

    @staticmethod
    def _values(operation: Operation) -> tuple[object, ...]:
        return (*operation.args, *(value for _, value in operation.kwargs))

    def _reads(self, step: Step) -> list[str]:
        if isinstance(step, Operation):
            return references(self._values(step))
        inner = {operation.result for operation in step.body}
        names = [name for operation in step.body for name in references(self._values(operation))]
        return [name for name in dict.fromkeys(names) if name not in inner]

    def _inlines(self, step: Operation, position: int, uses: list[int]) -> bool:
        if operations.is_in_place(step.op, step.target, step.kwargs):
            return False
        if step.op == "attribute":
            return len(uses) == 1
        if step.target == "builtins.getattr" and _ALWAYS_INLINE.intersection(step.args[1:]):
            return True
        if len(uses) != 1 or step.result in self.apart | self.parts | self.tuples.keys():
            return False
        first = step.args[0] if step.args else None
        if (
            step.target == "operator.getitem"
            and isinstance(first, Ref)
            and first.ref in self.inlined
        ):
            if self.inlined[first.ref].op == "attribute":
                return True
        if self._nests(step, position, uses[0]) or self._is_item(step, position, uses[0]):
            return True
        if step.tensor or not self._moves(step, position, uses[0]):
            return False
        if step.op == "module":
            # A layer with several results of which the next line takes one.
            following = self.steps[position + 1] if position + 1 < len(self.steps) else None
            return (
                uses == [position + 1]
                and isinstance(following, Operation)
                and following.target == "operator.getitem"
            )
        return True

    def _is_item(self, step: Operation, position: int, use: int) -> bool:
        """Whether ``step`` takes an item of a tuple, which is the same wherever it is taken.

        What makes a tuple without a name of its own goes along, and must be free to move.
        """
        first = step.args[0] if step.target == "operator.getitem" else None
        if not isinstance(first, Ref) or first.ref not in self.whole:
            return False
        return first.ref not in self.inlined or self._moves(step, position, use)

    def _nests(self, step: Operation, position: int, use: int) -> bool:
        """Whether ``step`` stands within the next line: ``self.bn1(self.conv1(x))``.

        Methods of a result chain, and what is returned needs no name. ``_nested`` counts what has
        become one expression: long ones are no easier to read than lines.
        """
        if use != position + 1:
            return False
        following = self.steps[use] if use < len(self.steps) else None
        if isinstance(following, Loop):
            return False
        if following is None:
            return self.graph.output == Ref(step.result)
        if operations.is_in_place(following.op, following.target, following.kwargs):
            return False
        read = references(self._values(step))
        inner = max((self._nested.get(name, 0) for name in read), default=0)
        short = len(self._values(step)) <= _SHORT and len(self._values(following)) <= _SHORT
        if following.op == "method" and following.args[0] == Ref(step.result):
            short = True
        nests = inner < _NESTED and short
        self._nested[step.result] = inner + 1 if nests else 0
        return nests

    def _moves(self, step: Operation, position: int, use: int) -> bool:
        """Whether ``step`` gives the same value where it is used: nothing changes in between.

        Layers count as changes: they may work in place, and random numbers come in order.
        """
        return step.result in self.sizes or not any(
            position < change < use for change in self.changes
        )

    # ------------------------------------------------------------------ lines

    def lines(self) -> list[str]:
        found: list[str] = []
        done: set[str] = set(self.parts)
        for position, step in enumerate(self.steps):
            if isinstance(step, Loop):
                found += self._loop(step, position)
            elif step.target == operations.CHECK:
                found += self._check(step)
            elif step.result in self.tuples:
                found.append(self._unpack(step, position))
            elif step.result not in self.inlined and step.result not in done:
                axes = self._axes(position)
                found.append(self._sizes(axes, position) if axes else self._line(step, position))
                done.update(axis.result for axis in axes)
        found.append(f"return {expression(self.graph.output, self.scope).text}")
        return found

    def _check(self, step: Operation) -> list[str]:
        """What stops the forward at sizes that it does not serve.

        Raises:
            PlanFormatError: it depends on something else than one condition.
        """
        (value,) = step.args if len(step.args) == 1 else (None,)
        if not isinstance(value, Ref):
            raise PlanFormatError("a check must have one argument, a value of its forward")
        condition = self._lookup(value.ref)
        known = self.inlined.get(value.ref)
        opposite = Expression(f"not {condition.within(NOT)}", NOT)
        if known is not None and known.target in OPPOSITES:
            turned = replace(known, target=OPPOSITES[known.target])
            opposite = call(turned, self.scope, self._module)
        return refusal(condition, opposite)

    def _lookup(self, name: str) -> Expression:
        if name in self.inlined:
            return call(self.inlined[name], self.scope, self._module)
        return Expression(self.names[name])

    def _module(self, path: str) -> str:
        if self.item is not None:
            prefix = f"{self.item[0]}.{ITEM}" if self.item[0] else ITEM
            if path == prefix:
                return self.item[1]
            if path.startswith(f"{prefix}."):
                first: Definition | Node | None = self.definition
                for part in f"{prefix[: -len(ITEM)]}0".split("."):
                    first = child(first, part)
                return access(self.item[1], path[len(prefix) + 1 :], first)
        return access("self", path, self.definition)

    def _line(self, step: Operation, position: int) -> str:
        statement = self._change(step, position, read=step.result in self.last)
        if statement is not None:
            return statement
        text = call(step, self.scope, self._module).text
        if step.result not in self.last:
            return text
        self.names[step.result] = self._name(step, position)
        if step.tensor:
            self.tensors.add(step.result)
        line = f"{self.names[step.result]} = {text}"
        if len(line) > _WIDTH:
            read = references(self._values(step))
            self.crowded.update(name for name in read if self._nested.get(name))
        return line

    def _unpack(self, step: Operation, position: int) -> str:
        """A result whose items are all that is read of it: ``a, b = x.chunk(2)``."""
        text = call(step, self.scope, self._module).text
        made = {one.result: one for one in self.steps if isinstance(one, Operation)}
        names: list[str] = []
        for part in self.tuples[step.result]:
            if part:
                self.names[part] = self._name(made[part], position, taken=names, parts=True)
                self.tensors.add(part)
            names.append(self.names[part] if part else "_")
        return f"{', '.join(names)} = {text}"

    def _axes(self, position: int) -> list[Operation]:
        """The sizes from the first axis on that the lines from ``position`` on read, if several."""
        found: list[Operation] = []
        for step in self.steps[position:]:
            if isinstance(step, Operation) and step.result in self.inlined:
                continue
            if not isinstance(step, Operation) or self._axis(step, found) != len(found):
                break
            found.append(step)
        return found if len(found) > 1 else []

    def _axis(self, step: Operation, before: list[Operation]) -> int | None:
        """Which size of a tensor ``step`` reads; None if not one of the tensor that is read."""
        if step.target != "operator.getitem" or step.result not in self.last:
            return None
        (shape, index), owners = step.args, []
        for one in (shape, *(other.args[0] for other in before)):
            read = self.inlined.get(one.ref) if isinstance(one, Ref) else None
            owners.append(read.args if read and read.args[1:] == ("shape",) else None)
        alike = owners[0] is not None and all(owner == owners[0] for owner in owners)
        return index if alike and isinstance(index, int) else None

    def _sizes(self, axes: list[Operation], position: int) -> str:
        """The first sizes of a tensor: ``batch, length = x.shape[:2]``."""
        shape = self._lookup(str(getattr(axes[0].args[0], "ref", ""))).text
        names: list[str] = []
        for axis in axes:
            names.append(self._name(axis, position, taken=names))
        self.names.update(zip((axis.result for axis in axes), names, strict=True))
        return f"{', '.join(names)} = {shape}[:{len(axes)}]"

    def _change(self, step: Operation, position: int, *, read: bool) -> str | None:
        """A change in place as a statement; the result has the name of what changes."""
        if step.target == "operator.setitem":
            return None if read else change(step, None, self.scope)
        target = step.args[0] if step.args else None
        if not read and isinstance(target, Ref) and self._is_buffer(target.ref):
            return change(step, self._lookup(target.ref).text, self.scope)
        if not isinstance(target, Ref) or target.ref not in self.names:
            return None
        name = self.names[target.ref]
        # A tensor stays the same object; of anything else the old value must not be needed.
        same = step.tensor and target.ref in self.tensors
        if not same and (not self._dies(target.ref, position) or name in self._live(position)):
            return None
        statement = change(step, name, self.scope)
        if statement is not None:
            self.names[step.result] = name
            if step.tensor:
                self.tensors.add(step.result)
        return statement

    def _is_buffer(self, name: str) -> bool:
        """Whether ``name`` stands for a buffer of this module, which can be assigned to."""
        step = self.inlined.get(name)
        return step is not None and step.op == "attribute" and step.target in self.buffers

    def _dies(self, name: str, position: int) -> bool:
        return name in self.names and self.last.get(name, -1) <= position

    def _live(self, position: int) -> set[str]:
        """Names that must not be overwritten by the statement at ``position``."""
        return {text for value, text in self.names.items() if self.last.get(value, -1) > position}

    def _name(
        self, step: Operation, position: int, taken: Sequence[str] = (), *, parts: bool = False
    ) -> str:
        """The author's name for the result of ``step`` if it is free, or that of what it replaces.

        ``taken`` are names of the same line; ``parts`` says that ``step`` is one of several.
        """
        live = self._live(position).union(taken)
        own = [step.name] if step.name else []
        if own and _is_free(step.name, live):
            return step.name
        if not step.tensor:
            return _free([*own, "size"] if step.result in self.sizes else [step.result], live)
        for name in () if parts else self._variables(step):
            reusable = name in self.tensors and self._dies(name, position)
            if reusable and self.names[name] not in live | self.telling:
                return self.names[name]
        child = [step.target.rpartition(".")[2]] if step.op == "module" else []
        own = [*self._attribute(step), *(name for name in child if is_name(name))]
        return _free([*own, "x", "out", "h", "y", "z", step.result], live)

    def _attribute(self, step: Operation) -> list[str]:
        """The name of the module's own tensor that ``step`` takes a part of."""
        if step.op == "attribute":
            return [step.target.rpartition(".")[2]]
        first = step.args[0] if step.args else None
        if step.target == "operator.getitem" and isinstance(first, Ref):
            return self._attribute(self.inlined[first.ref]) if first.ref in self.inlined else []
        return []

    def _variables(self, step: Operation) -> list[str]:
        found: list[str] = []
        for name in references(self._values(step)):
            if name in self.inlined:
                found += self._variables(self.inlined[name])
            else:
                found.append(name)
        return found

    def _header(self, loop: Loop, live: set[str]) -> tuple[str, str]:
        """The loop's variable and its first line."""
        if loop.container is None:
            return "_", f"for _ in range({loop.count}):"
        last = loop.container.rpartition(".")[2]
        item = last.removesuffix("s") if last.endswith("s") and len(last) > 1 else "module"
        item = _free([item, "module"], live)
        container = access("self", loop.container, self.definition) if loop.container else "self"
        stop = "" if loop.whole else str(loop.start + loop.count)
        part = "" if loop.whole and not loop.start else f"[{loop.start or ''}:{stop}]"
        return item, f"for {item} in {container}{part}:"

    def _loop(self, loop: Loop, position: int) -> list[str]:
        carried = self.names[loop.initial]
        live = self._live(position) | {carried}
        found: list[str] = []
        if carried in self._live(position):
            carried = _free(["x", "out", "h", loop.final], live)
            found.append(f"{carried} = {self.names[loop.initial]}")
            live.add(carried)
        item, header = self._header(loop, live)
        found.append(header)
        outer = dict(self.names)
        self.names[loop.initial] = carried
        self.item = None if loop.container is None else (loop.container, item)
        live |= {item} | {outer[name] for name in self._reads(loop) if name in outer}
        for index, operation in enumerate(loop.body):
            rest = {name for other in loop.body[index + 1 :] for name in reads(other)}
            later = any(self.names.get(name) == carried for name in rest)
            needed = operation.result == loop.result or operation.result in rest
            if operation.target == operations.CHECK:
                found += [f"{_INDENT}{line}" for line in self._check(operation)]
                continue
            statement = None
            if operation.tensor or not needed:
                # What the loop has from outside stays as it is for the next turn.
                statement = self._change(operation, len(self.steps), read=needed)
            if statement is not None:
                found.append(f"{_INDENT}{statement}")
                continue
            text = call(operation, self.scope, self._module).text
            if operation.tensor:
                self.tensors.add(operation.result)
            if not needed:
                found.append(f"{_INDENT}{text}")
                continue
            if operation.result == loop.result and not later:
                name = carried
            else:
                own = [operation.name] if operation.name else []
                name = _free([*own, "out", "h", operation.result], live | {carried})
                live.add(name)
            self.names[operation.result] = name
            found.append(f"{_INDENT}{name} = {text}")
        if self.names[loop.result] != carried:
            found.append(f"{_INDENT}{carried} = {self.names[loop.result]}")
        self.item = None
        self.names = outer
        self.names[loop.final] = carried
        self.tensors.add(loop.final)
        return found


def _is_free(name: str, live: Collection[str]) -> bool:
    return is_name(name) and name not in live and name not in _RESERVED


def _free(choices: list[str], live: set[str]) -> str:
    """The first name that is not taken; the last choice gets a number if all are."""
    for choice in choices:
        name = choice.lstrip("_") or "value"
        if _is_free(name, live):
            return name
    # What a container of its own numbers is called from has results like "_2".
    base, count = choices[-1].lstrip("_"), 2
    base = base if is_name(base) else "value"
    while f"{base}_{count}" in live:
        count += 1
    return f"{base}_{count}"
