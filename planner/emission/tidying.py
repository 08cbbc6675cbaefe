"""The steps of a forward in the order and the form in which a person would write them.

A recorded run notes a size where it is first read, in between what it has nothing to do with; and a
tuple item by item. Neither changes once it is there, so both may stand elsewhere.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from planner import operations
from planner.emission.loops import Loop, Step, reads
from planner.ir import (
    Definition,
    Graph,
    Items,
    Leaf,
    Mapping,
    Operation,
    Ref,
    Slice,
    Switch,
    Value,
    references,
)

_SIZES = {"size", "dim", "numel", "builtins.len", "builtins.getattr"}
# Changes in place of a tensor's shape.
_RESHAPING = "resize_ resize_as_ set_ squeeze_ swapaxes_ swapdims_ t_ transpose_ unsqueeze_".split()

# Functions of a tensor and an axis that return two.
_PAIRS = "cummax cummin kthvalue median mode sort std_mean topk var_mean".split()
_TWO = ("GRU", "LSTM", "MultiheadAttention", "RNN")


def is_size(step: Operation, sizes: Collection[str]) -> bool:
    """Whether ``step`` gives a size, or what follows from the ``sizes`` alone."""
    if step.tensor or step.target == operations.CHECK:
        return False
    read = reads(step)
    return step.target in _SIZES or (step.op == "function" and bool(read) and read <= set(sizes))


def plainer(graph: Graph) -> Graph:
    """``graph`` without sums of a size and nothing."""
    sizes: set[str] = set()
    same: dict[str, Value] = {}
    kept: list[Operation] = []
    for operation in graph.operations:
        args = tuple(_replaced(value, same) for value in operation.args)
        kwargs = tuple((key, _replaced(value, same)) for key, value in operation.kwargs)
        step = replace(operation, args=args, kwargs=kwargs)
        if is_size(step, sizes):
            sizes.add(step.result)
            rest = [value for value in args if not (type(value) is int and value == 0)]
            if step.target == "operator.add" and len(args) == 2 and len(rest) == 1:
                same[step.result] = rest[0]
                continue
        kept.append(step)
    return Graph(tuple(kept), _replaced(graph.output, same))


def _replaced(value: Value, same: dict[str, Value]) -> Value:
    """``value`` with other values in place of some references."""
    if not same:
        return value
    if isinstance(value, Ref):
        return same.get(value.ref, value)
    if isinstance(value, tuple):
        return tuple(_replaced(item, same) for item in value)
    if isinstance(value, Items):
        return Items(tuple(_replaced(item, same) for item in value.list))
    if isinstance(value, Mapping):
        return Mapping(tuple((key, _replaced(item, same)) for key, item in value.dict))
    if isinstance(value, Slice):
        start, stop, step = (_replaced(item, same) for item in value.slice)
        return Slice((start, stop, step))
    if isinstance(value, Switch):
        return Switch(_replaced(value.train, same), _replaced(value.eval, same))
    return value


def early(steps: Sequence[Step]) -> tuple[Step, ...]:
    """``steps`` with each size right after the tensor that it is the size of."""
    flat = [one for step in steps for one in (step.body if isinstance(step, Loop) else (step,))]
    if any(one.target.rpartition(".")[2] in _RESHAPING for one in flat):
        return tuple(steps)
    after: dict[str, list[Operation]] = {}  # by what they stand after: "" is the beginning
    place: dict[str, str] = {}
    sizes: set[str] = set()
    rest: list[Step] = []
    known: dict[str, int] = {}
    for step in steps:
        if isinstance(step, Operation) and is_size(step, sizes):
            sizes.add(step.result)
            anchors = {place.get(name, name if name in known else "") for name in reads(step)}
            anchor = max(anchors, key=lambda name: known.get(name, -1), default="")
            place[step.result] = anchor
            after.setdefault(anchor, []).append(step)
            continue
        result = step.final if isinstance(step, Loop) else step.result
        known[result] = len(rest)
        rest.append(step)
    found: list[Step] = list(after.get("", ()))
    for step in rest:
        found.append(step)
        found += after.get(step.final if isinstance(step, Loop) else step.result, ())
    return tuple(found)


def unpacked(
    definition: Definition, graph: Graph, steps: Sequence[Step]
) -> dict[str, tuple[str, ...]]:
    """Results that are tuples of known length of which several items are read and nothing else.

    Returns:
        For each the results that are its items, "" for an item that is not read.
    """
    whole: set[str] = set(references(graph.output))
    items: dict[str, dict[int, str]] = {}
    for step in steps:
        first = step.args[0] if isinstance(step, Operation) and len(step.args) == 2 else None
        index = step.args[1] if isinstance(step, Operation) and len(step.args) == 2 else None
        taken = isinstance(step, Operation) and step.target == "operator.getitem" and step.tensor
        if taken and isinstance(first, Ref) and type(index) is int and index >= 0:
            known = items.setdefault(first.ref, {})
            if index in known:
                whole.add(first.ref)
            known[index] = step.result
        elif isinstance(step, Loop):
            whole.update(name for one in step.body for name in reads(one))
        else:
            whole.update(reads(step))
    found: dict[str, tuple[str, ...]] = {}
    for step in steps:
        if not isinstance(step, Operation) or step.tensor or step.result in whole:
            continue
        parts, length = items.get(step.result, {}), _length(step, definition)
        if length is not None and len(parts) > 1 and max(parts) < length:
            if "chunk" not in step.target or max(parts) == length - 1:
                found[step.result] = tuple(parts.get(index, "") for index in range(length))
    return found


def _length(step: Operation, definition: Definition) -> int | None:
    """How many items the result of ``step`` has, as far as that is certain (a chunk: at most)."""
    name = step.target.rpartition(".")[2]
    if step.op == "module":
        layer = dict(definition.children).get(step.target)
        return 2 if isinstance(layer, Leaf) and layer.type in _TWO else None
    second = step.args[1] if len(step.args) > 1 else None
    if name in _PAIRS:
        return 2
    if name == "chunk" and type(second) is int:
        return second
    if name in ("split", "split_with_sizes") and isinstance(second, (tuple, Items)):
        return len(second.list if isinstance(second, Items) else second)
    return None
