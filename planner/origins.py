"""How tensors came about: the public functions that a model called while it was built.

A tensor's origin is the part of what was called that its values depend on, views and changes in
place included. Tensors are held weakly, so that recording keeps none of them alive.
"""

from __future__ import annotations

import numbers
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_LONGEST = 64
"""Items of a list that may be an argument."""

_LITERALS = (str, numbers.Number, torch.dtype, torch.device, torch.memory_format, torch.layout)


@dataclass(frozen=True, slots=True)
class Handle:
    """Stands for a tensor in what was recorded."""

    number: int


@dataclass(frozen=True, slots=True)
class Opaque:
    """Stands for an argument that no source can write down."""

    type: str


@dataclass(frozen=True, slots=True)
class Step:
    """One call of a function.

    ``results`` are the tensors that it returned, with their place in a tuple, or None for a tensor
    alone; ``changed`` the tensors that it changed in place.
    """

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    results: tuple[tuple[Handle, int | None], ...]
    changed: tuple[Handle, ...]


class Origins(TorchFunctionMode):
    """Inside this mode, every call of a torch function is noted."""

    def __init__(self) -> None:
        super().__init__()
        self._steps: list[Step] = []
        self._handles: Any = torch.utils.weak.WeakTensorKeyDictionary()
        self._storages: dict[Handle, int] = {}
        self._count = 0
        self._names: dict[Handle, str] = {}
        # The last tensor of a place in memory: a parameter stands where what it was made from did.
        self._places: dict[tuple[object, ...], Handle] = {}

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Call ``func`` and note it if it makes or changes a tensor."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        made = list(_places(result))
        changes = _changes(func)
        if not made and not changes:
            return result
        given = [one for one in (*args, *kwargs.values()) if isinstance(one, torch.Tensor)]
        changed = given[:1] if changes else []
        out = kwargs.get("out")
        if isinstance(out, torch.Tensor):
            changed.append(out)
        self._learn_names()
        noted = self._noted(args), {key: self._noted(value) for key, value in kwargs.items()}
        results = tuple(
            (self._handle(one, given), place)
            for one, place in made
            if not any(one is other for other in changed)
        )
        self._steps.append(Step(func, *noted, results, tuple(map(self._handle, changed))))
        return result

    def name(self, handle: Handle) -> str:
        """What the model's source calls the tensor; empty if it has no name there."""
        return self._names.get(handle, "")

    def find(self, tensor: torch.Tensor) -> tuple[Handle, tuple[Step, ...]] | None:
        """``tensor`` and the steps that its values depend on, in order; None if it was not seen."""
        end: Handle | None = self._handles.get(tensor)
        if end is None or not any(end in (one for one, _ in step.results) for step in self._steps):
            end = self._written(end) or self._places.get(_place(tensor))
        if end is None:
            return None
        needed, storages = {end}, {self._storages[end]}
        found: list[Step] = []
        for step in reversed(self._steps):
            makes = any(handle in needed for handle, _ in step.results)
            if makes or any(self._storages[one] in storages for one in step.changed):
                found.append(step)
                read = set(_handles((step.args, tuple(step.kwargs.values()))))
                needed |= read
                storages |= {self._storages[one] for one in read}
        return end, tuple(reversed(found))

    def _written(self, handle: Handle | None) -> Handle | None:
        """The tensor that was copied into all of a parameter at last."""
        for step in reversed(self._steps):
            if handle is not None and handle in step.changed:
                given = step.args[1] if len(step.args) > 1 else None
                whole = step.function.__name__ == "copy_" and step.args[0] == handle
                return given if whole and isinstance(given, Handle) else None
        return None

    def _handle(self, tensor: torch.Tensor, given: list[torch.Tensor] | None = None) -> Handle:
        known: Handle | None = self._handles.get(tensor)
        if known is not None:
            return known
        handle = self._handles[tensor] = Handle(self._count)
        self._count += 1
        self._storages[handle] = handle.number
        for other in given or ():
            if _storage(other) is not None and _storage(other) == _storage(tensor):
                self._storages[handle] = self._storages[self._handle(other)]
        self._places[_place(tensor)] = handle
        return handle

    def _noted(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return self._handle(value)
        if isinstance(value, (tuple, list)) and len(value) <= _LONGEST:
            items = [self._noted(item) for item in value]
            return items if isinstance(value, list) else tuple(items)
        if isinstance(value, slice):
            return slice(*(self._noted(one) for one in (value.start, value.stop, value.step)))
        if value is None or value is Ellipsis or isinstance(value, _LITERALS):
            return value
        return Opaque(type(value).__name__)

    def _learn_names(self) -> None:
        """Names of tensors in the function that is running: what its author calls them."""
        frame = _frame()
        if frame is None:
            return
        for name, value in frame.f_locals.items():
            if isinstance(value, torch.Tensor) and name.isidentifier():
                handle = self._handles.get(value)
                if handle is not None:
                    self._names[handle] = name


def _frame() -> FrameType | None:
    """The frame of the model's own code."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if module.partition(".")[0] not in ("torch", "planner"):
            return frame
        frame = frame.f_back
    return None


def _places(result: Any) -> Iterator[tuple[torch.Tensor, int | None]]:
    if isinstance(result, torch.Tensor):
        yield result, None
    elif isinstance(result, (tuple, list)):
        for index, item in enumerate(result):
            if isinstance(item, torch.Tensor):
                yield item, index


def _handles(value: Any) -> Iterator[Handle]:
    if isinstance(value, Handle):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _handles(item)
    elif isinstance(value, slice):
        yield from _handles((value.start, value.stop, value.step))


def _changes(func: Any) -> bool:
    """Whether ``func`` changes its first argument."""
    name = getattr(func, "__name__", "")
    if name.startswith("__"):
        inner = name.strip("_")
        return inner in ("setitem", "set") or (
            inner[:1] == "i" and inner not in ("invert", "index", "iter", "init")
        )
    return name.endswith("_") and not name.startswith("_")


def _place(tensor: torch.Tensor) -> tuple[object, ...]:
    return _storage(tensor), tensor.storage_offset(), tensor.shape, tensor.stride()


def _storage(tensor: torch.Tensor) -> int | None:
    try:
        return int(tensor.untyped_storage()._cdata)  # noqa: SLF001
    except (NotImplementedError, RuntimeError, ValueError):  # sparse, wrapped or lazy
        return None
