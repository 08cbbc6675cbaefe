"""What a model did to make a tensor (:mod:`planner.origins`), as operations of a program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from keyword import iskeyword
from typing import Any

import torch

from planner import operations
from planner.ir import Items, Operation, Ref, Slice, Special, Value
from planner.ir import Mapping as Dict
from planner.origins import Handle, Opaque, Origins, Step
from planner.tracing.functions import NotPublicError, function_of
from planner.tracing.values import to_value

LONGEST = 64
"""Operations of one constant: more are no easier to read than numbers."""

# What copies a tensor, but is no public function.
_COPIES = ("__deepcopy__", "__copy__")


def derive(tensor: torch.Tensor, origins: Origins) -> tuple[Operation, ...]:
    """Operations that gave ``tensor`` when the model was built; none if no source could say so.

    They need not give it again: a function of random numbers is noted like any other.
    """
    found = origins.find(tensor)
    if found is None or not 0 < len(found[1]) <= LONGEST:
        return ()
    end, steps = found
    maker = _Maker(origins)
    try:
        for step in steps:
            maker.add(step)
        last = maker.values[end]
    except (KeyError, NotPublicError, TypeError):
        return ()
    made = maker.made
    final = made[-1]
    in_place = operations.is_in_place(final.op, final.target, final.kwargs)
    if final.result != last and not (
        in_place and final.args[0] == Ref(last) and final.target != "operator.setitem"
    ):
        # The last step changed a part of what an earlier one made.
        made.append(Operation(maker.free("value"), "method", "view_as", (Ref(last), Ref(last))))
    return tuple(made)


@dataclass(slots=True)
class _Maker:
    origins: Origins
    made: list[Operation] = field(default_factory=list)
    values: dict[Handle, str] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)

    def add(self, step: Step) -> None:
        kwargs = {key: item for key, item in step.kwargs.items() if not _is_default(key, item)}
        out = kwargs.pop("out", None)
        function: Any = step.function
        if function.__name__ in _COPIES:
            function, args = torch.clone, step.args[:1]
        else:
            args = step.args
        kind, target, args, kwargs = function_of(function, args, kwargs)
        alone = [handle for handle, place in step.results if place is None]
        name = self.free(next(map(self.origins.name, alone), "") or _last(target))
        self.made.append(
            Operation(
                name,
                "method" if kind == "call_method" else "function",
                target if kind == "call_method" else _public(target),
                tuple(map(self.value, args)),
                tuple((key, self.value(item)) for key, item in kwargs.items()),
            )
        )
        for handle, place in step.results:
            if place is None:
                self.values[handle] = name
            else:
                item = self.free(self.origins.name(handle) or f"{name}_{place}")
                self.made.append(
                    Operation(item, "function", "operator.getitem", (Ref(name), place))
                )
                self.values[handle] = item
        if out is not None:
            self.made.append(
                Operation(self.free("copy"), "method", "copy_", (self.value(out), Ref(name)))
            )

    def free(self, wanted: str) -> str:
        """``wanted``, with a number if it is taken or no name."""
        base = wanted if wanted.isidentifier() and not _is_taken(wanted) else "value"
        name, count = base, 2
        while name in self.names:
            name, count = f"{base}_{count}", count + 1
        self.names.add(name)
        return name

    def value(self, item: Any) -> Value:
        if isinstance(item, Handle):
            return Ref(self.values[item])
        if isinstance(item, Opaque):
            raise TypeError(item.type)
        if isinstance(item, tuple):
            return tuple(map(self.value, item))
        if isinstance(item, list):
            return Items(tuple(map(self.value, item)))
        if isinstance(item, slice):
            return Slice((self.value(item.start), self.value(item.stop), self.value(item.step)))
        return to_value(item)


def _is_taken(name: str) -> bool:
    return name == "self" or iskeyword(name) or operations.is_reserved(name)


def _is_default(key: str, item: Any) -> bool:
    """What says no more than that the tensor is a plain one on the CPU."""
    if key in ("device", "layout", "pin_memory"):
        return not isinstance(item, Handle)
    return (item is None and key != "dim") or (key == "requires_grad" and item is False)


def _last(target: Any) -> str:
    name = target if isinstance(target, str) else target.__name__
    return str(name).strip("_")


def _public(target: Any) -> str:
    name = operations.public_name(target)
    if name is None:
        raise NotPublicError(_last(target))
    return name


def evaluate(expression: tuple[Operation, ...]) -> torch.Tensor:
    """The value of the last of ``expression``'s operations, which are functions and methods.

    Raises:
        TypeError: it is no tensor; operations raise what they do.
    """
    values: dict[str, Any] = {}
    result: Any = None
    # Random numbers are never those that the model drew.
    with torch.random.fork_rng(devices=[]), torch.no_grad(), torch.device("cpu"):
        torch.default_generator.manual_seed(0x5EED)
        for call in expression:
            args = [_concrete(item, values) for item in call.args]
            kwargs = {key: _concrete(item, values) for key, item in call.kwargs}
            if call.op == "method":
                result = getattr(args[0], call.target)(*args[1:], **kwargs)
            else:
                result = operations.function(call.target)(*args, **kwargs)
            values[call.result] = result
    if not isinstance(result, torch.Tensor):
        raise TypeError("an expression without a tensor")
    return result


def _concrete(value: Value, values: Mapping[str, Any]) -> Any:
    if isinstance(value, Ref):
        return values[value.ref]
    if isinstance(value, tuple):
        return tuple(_concrete(item, values) for item in value)
    if isinstance(value, Items):
        return [_concrete(item, values) for item in value.list]
    if isinstance(value, Dict):
        return {key: _concrete(item, values) for key, item in value.dict}
    if isinstance(value, Slice):
        return slice(*(_concrete(item, values) for item in value.slice))
    if isinstance(value, Special):
        if value.special == "float":
            return float(value.text)
        if value.special == "ellipsis":
            return ...
        if value.special == "device":
            return torch.device(value.text)
        return getattr(torch, value.text)
    return value
