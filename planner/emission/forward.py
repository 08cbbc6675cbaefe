"""A captured forward as statements.

Names follow the flow: a result takes the name of the value that it replaces, so a chain of layers
reads ``x = self.conv1(x)``, ``x = self.bn1(x)``; a value that lives on keeps its name and the new
one gets another. Sizes and other small values that are read once stand where they are read.
"""

from __future__ import annotations

import keyword

from planner import operations
from planner.emission.expressions import (
    AUGMENTED,
    Expression,
    Scope,
    access,
    call,
    expression,
    identifier,
)
from planner.emission.loops import ITEM, Loop, Step, reads, roll
from planner.ir import Definition, Graph, Operation, Ref, references

_RESERVED = {"self", "F", "torch", "nn", "math", "operator", "Tensor", "Any", "int", "float", "len"}
_ALWAYS_INLINE = {"shape", "dtype", "device", "ndim"}
_ANONYMOUS = {"x", "input", "inputs", "h", "out", "hidden_states", "features"}
_INDENT = "    "


def statements(definition: Definition, graph: Graph, sizes: dict[str, int]) -> list[str]:
    """The lines of ``definition``'s forward in one mode, without indentation of their own.

    ``sizes`` are the containers that loops may run over, with their number of children.
    """
    return _Writer(definition, graph, roll(graph, sizes)).lines()


class _Writer:
    def __init__(self, definition: Definition, graph: Graph, steps: tuple[Step, ...]) -> None:
        self.graph = graph
        self.steps = steps
        self.names: dict[str, str] = {item.name: item.name for item in definition.inputs}
        self.tensors = {item.name for item in definition.inputs if item.type == "tensor"}
        # Inputs whose names say what they hold, such as "ids", keep them for it.
        self.telling = {item.name for item in definition.inputs} - _ANONYMOUS
        self.inlined: dict[str, Operation] = {}
        self.last: dict[str, int] = {}
        self.item: tuple[str, str] | None = None
        self.scope = Scope(self._lookup, "self.{}".format)
        self._plan()

    # ------------------------------------------------------------------ what to inline, who lives

    def _plan(self) -> None:
        uses: dict[str, list[int]] = {}
        in_loop: set[str] = set()
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
        if step.target == "builtins.getattr" and step.args[1] in _ALWAYS_INLINE:
            return True
        if len(uses) != 1:
            return False
        first = step.args[0] if step.args else None
        if (
            step.target == "operator.getitem"
            and isinstance(first, Ref)
            and first.ref in self.inlined
        ):
            if self.inlined[first.ref].op == "attribute":
                return True
        if step.tensor:
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

    # ------------------------------------------------------------------ lines

    def lines(self) -> list[str]:
        found: list[str] = []
        for position, step in enumerate(self.steps):
            if isinstance(step, Loop):
                found += self._loop(step, position)
            elif step.result not in self.inlined:
                found.append(self._line(step, position))
        found.append(f"return {expression(self.graph.output, self.scope).text}")
        return found

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
                return access(self.item[1], path[len(prefix) + 1 :])
        return access("self", path)

    def _line(self, step: Operation, position: int) -> str:
        name = step.target.rpartition(".")[2]
        if step.target.startswith("operator.") and name in AUGMENTED:
            target, value = step.args
            if isinstance(target, Ref) and self._dies(target.ref, position):
                if target.ref not in self.inlined:
                    self.names[step.result] = self.names[target.ref]
                    if step.tensor:
                        self.tensors.add(step.result)
                    text = expression(value, self.scope).text
                    return f"{self.names[target.ref]} {AUGMENTED[name]} {text}"
        text = call(step, self.scope, self._module).text
        if step.result not in self.last:
            return text
        self.names[step.result] = self._name(step, position)
        if step.tensor:
            self.tensors.add(step.result)
        return f"{self.names[step.result]} = {text}"

    def _dies(self, name: str, position: int) -> bool:
        return name in self.names and self.last.get(name, -1) <= position

    def _live(self, position: int) -> set[str]:
        """Names that must not be overwritten by the statement at ``position``."""
        return {text for value, text in self.names.items() if self.last.get(value, -1) > position}

    def _name(self, step: Operation, position: int) -> str:
        live = self._live(position)
        if step.tensor:
            for name in self._variables(step):
                reusable = name in self.tensors and self._dies(name, position)
                if reusable and self.names[name] not in live | self.telling:
                    return self.names[name]
            choices = [*self._attribute(step), "x", "out", "h"]
        else:
            choices = ["size"] if step.target in ("operator.getitem", "builtins.getattr") else []
        return _free([*choices, step.result], live)

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

    def _loop(self, loop: Loop, position: int) -> list[str]:
        carried = self.names[loop.initial]
        live = self._live(position) | {carried}
        found: list[str] = []
        if carried in self._live(position):
            carried = _free(["x", "out", "h", loop.final], live)
            found.append(f"{carried} = {self.names[loop.initial]}")
            live.add(carried)
        last = loop.container.rpartition(".")[2]
        item = last.removesuffix("s") if last.endswith("s") and len(last) > 1 else "module"
        item = _free([item, "module"], live)
        container = access("self", loop.container) if loop.container else "self"
        found.append(f"for {item} in {container}:")
        outer = dict(self.names)
        self.names[loop.initial] = carried
        self.item = (loop.container, item)
        live |= {item} | {outer[name] for name in self._reads(loop) if name in outer}
        for index, operation in enumerate(loop.body):
            later = any(loop.initial in reads(other) for other in loop.body[index + 1 :])
            text = call(operation, self.scope, self._module).text
            needed = operation.result == loop.result or any(
                operation.result in reads(other) for other in loop.body[index + 1 :]
            )
            if not needed:
                found.append(f"{_INDENT}{text}")
                continue
            if operation.result == loop.result and not later:
                name = carried
            else:
                name = _free(["out", "h", operation.result], live | {carried})
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


def _free(choices: list[str], live: set[str]) -> str:
    """The first name that is not taken; the last choice gets a number if all are."""
    for choice in choices:
        name = choice.lstrip("_") or "value"
        if name.isidentifier() and not keyword.iskeyword(name):
            if name not in live and name not in _RESERVED:
                return name
    base, count = identifier(choices[-1].lstrip("_") or "value"), 2
    while f"{base}_{count}" in live:
        count += 1
    return f"{base}_{count}"
