"""Noting what every operation does to the distribution of tensors' values.

A ``TorchDispatchMode`` sees every operation that reaches the dispatcher, under whatever name a
model called it, and on the meta device as well. What ``torch.nn.init`` skips on the meta device
is seen one level up, by a ``TorchFunctionMode``, when it asks whether the tensor is a meta one.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from planner.distributions import Distribution
from planner.observation import Observations, address
from planner.transfers import SKIPPED, UNFILLED, transferred

_IS_META = torch.Tensor.is_meta.__get__  # type: ignore[attr-defined]


@contextmanager
def observing(observations: Observations) -> Iterator[None]:
    """Note in ``observations`` what every operation inside does."""
    with _Skipped(observations), _Dispatched(observations):
        yield


class _Dispatched(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, observations: Observations) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._seen = observations

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        schema = func._schema  # noqa: SLF001
        name = schema.name.removeprefix("aten::")
        # Before the operation, while in-place ones have not yet overwritten what they read.
        distribution = transferred(self._seen, name, args, kwargs)
        try:
            result = func(*args, **kwargs)
        except RuntimeError as error:
            # A tensor too large for this machine: its shape is needed, its values are not.
            if "can't allocate memory" not in str(error) or "device" not in kwargs:
                raise
            result = func(*args, **{**kwargs, "device": torch.device("meta")})
        written = [
            tensor
            for index, argument in enumerate(schema.arguments)
            if argument.is_write
            for tensor in _tensors(args[index] if index < len(args) else kwargs.get(argument.name))
        ]
        for tensor in written:
            self._seen.write(tensor, distribution)
        if not written:
            self._create(result, (args, tuple(kwargs.values())), name, distribution)
        return result

    def _create(
        self, result: Any, inputs: Any, name: str, distribution: Distribution | None
    ) -> None:
        known = {address(tensor) for tensor in _tensors(inputs)}
        for tensor in _tensors(result):
            if address(tensor) not in known:  # else it is a view
                self._seen.create(tensor, distribution, empty=name in UNFILLED)


class _Skipped(TorchFunctionMode):
    def __init__(self, observations: Observations) -> None:
        super().__init__()
        self._seen = observations

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func == _IS_META and result:
            frame = sys._getframe(1)  # noqa: SLF001
            tensor: torch.Tensor = args[0]
            skipped = SKIPPED.get(frame.f_code)
            if skipped is not None and frame.f_locals.get("tensor") is tensor:
                self._seen.write(tensor, skipped(tensor, frame.f_locals))
        return result


def _tensors(value: Any) -> list[torch.Tensor]:
    """Tensors in nested lists and tuples."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, (list, tuple)):
        return [tensor for item in value for tensor in _tensors(item)]
    return []
