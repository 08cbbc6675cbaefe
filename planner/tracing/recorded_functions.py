"""Functions that a forward calls while it is recorded, as nodes of its graph."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.fx
from torch import nn
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.autograd import Function
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import CheckpointFunction

from planner.tracing.backward import imitate, kind_of
from planner.tracing.checks import DECISION
from planner.tracing.decisions import decided
from planner.tracing.extents import (
    Decision,
    Place,
    plain,
    shape_of,
    traced,
)
from planner.tracing.faults import UnseenError
from planner.tracing.functions import (
    function_of,
    is_in_place,
    shaped,
    tensors_in,
    typed,
)
from planner.tracing.known import READS, known_value
from planner.tracing.norms import DECOMPOSED
from planner.tracing.packing import SHAPES
from planner.tracing.recorded_values import Values


class Functions(Values, TorchFunctionMode):
    """Inside this mode every function of torch is recorded, unless recording is paused.

    Args:
        model: its parameters may not be changed.
        turned: where comparisons of sizes have the other outcome.
    """

    def __init__(self, model: nn.Module, turned: Place | None) -> None:
        super().__init__(model)
        self.turned = turned
        self.paused = False
        self.memory = frozenset(map(_memory, model.parameters()))

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if self.paused or not self.frames:
            return func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        answer = decided(name, args)
        if answer is not None:
            return answer
        if name in _UNFOLDED:
            with self:
                return _UNFOLDED[name](*args, **kwargs)
        known = known_value(self.frames[-1].nodes.get(id(args[0]))) if name in READS else None
        if known is not None:
            return getattr(known, name)()
        changes = is_in_place(func)
        if changes and args and self.is_weight(args[0]):
            raise UnseenError("it changes a parameter in place, which may be a generated one")
        result = shaped(func, plain(args), plain(kwargs))
        if isinstance(result, (torch.Size, int)):
            return _sizes(name, result, args)
        if not changes:
            if not tensors_in(result):
                return result
            result = self.fresh(result, (args, kwargs))
        frame = self.frames[-1]
        frame.note_names()
        kind, target, args, kwargs = function_of(func, args, kwargs)
        given, named = self.to_arguments(args, kwargs)
        node = frame.graph.create_node(kind, target, given, named)
        frame.refuse_autocast()
        detached = frame.context.gradients and not torch.is_grad_enabled()
        detached &= any(one.requires_grad for one in tensors_in((args, kwargs)))
        if changes and args and isinstance(args[0], torch.Tensor):
            if target is not operator.setitem:
                frame.learn(args[0], node)
        frame.learn(result, node, detached=detached)
        return result

    def is_weight(self, value: Any) -> bool:
        """Whether ``value`` is a parameter, a part of one, or its data."""
        return isinstance(value, torch.Tensor) and _memory(value) in self.memory

    def applied(self, function: type[Function], args: Any, run: Callable[..., Any]) -> Any:
        """What ``function.apply(*args)`` does; ``run`` is what it would do unrecorded."""
        if self.paused:
            return run(*args)
        if function is CheckpointFunction:
            # Gradients are those of the part that it computes again.
            part, _, *given = args
            return part(*given)
        with self.pause():
            kind = kind_of(function, args, run)
        return imitate(function, args, kind)

    def whole(
        self, function: Callable[..., Any], run: Callable[..., Any], args: Any, kwargs: Any
    ) -> Any:
        """What ``function(*args, **kwargs)`` gives, as one node; ``run`` does it unrecorded."""
        if self.paused or not self.frames:
            return run(*args, **kwargs)
        with self.pause():
            result = SHAPES[function](*plain(args), **plain(kwargs))
        frame = self.frames[-1]
        given, named = self.to_arguments(args, kwargs)
        frame.learn(result, frame.graph.call_function(function, given, named))
        return result

    def decided(self, decision: Decision) -> bool:
        """Note that the forward went the way of ``decision``: it serves the sizes that agree."""
        if self.paused or not self.frames:
            return decision.outcome
        frame = self.frames[-1]
        condition = frame.extents.condition(decision)
        if condition is not None:
            check = frame.graph.call_function(torch._check, (condition,))
            check.meta[DECISION] = decision
        turned = decision.forks and decision.place == self.turned
        return decision.outcome is not turned

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Inside, nothing is recorded."""
        before, self.paused = self.paused, True
        try:
            yield
        finally:
            self.paused = before

    def fresh(self, result: Any, given: Any) -> Any:
        """``result`` with tensors of its own where it hands back what it was given."""
        if isinstance(result, torch.Tensor):
            if any(result is one for one in tensors_in(given)):
                with self.pause():
                    return result.view_as(result)
            return result
        if type(result) in (tuple, list):
            return type(result)(self.fresh(item, given) for item in result)
        return result


def _sizes(name: str, result: Any, args: tuple[Any, ...]) -> Any:
    """Sizes of the tensor ``args[0]`` that remember it; any other number as it is."""
    if isinstance(result, torch.Size):
        return shape_of(args[0], result)
    if name == "size" and len(args) == 2:
        return shape_of(args[0], args[0].shape)[int(args[1])]
    if name in ("numel", "nelement"):
        return traced(result, torch.numel, args[0])
    return result


def _memory(tensor: torch.Tensor) -> int:
    """What tells the memory of ``tensor``, and of its views, from others'."""
    if is_functorch_wrapped_tensor(tensor) or tensor.layout is not torch.strided:
        return id(tensor)
    return int(tensor.untyped_storage()._cdata)


def _rows(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    return iter(tensor.unbind(0))


# Recorded as what they are made of, by name: torch has more than one object for a function.
_UNFOLDED: dict[str, Callable[..., Any]] = {
    "type": typed,
    **{function.__name__: made_of for function, made_of in DECOMPOSED.items()},
    "__iter__": _rows,
    "_is_all_true": torch.Tensor.all,
}
