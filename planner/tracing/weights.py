"""Random values for parameters that have none, made when a function reads them.

Memory holds a few layers' values at a time, so that a model of any depth can run.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_PERIOD = 1_048_573  # a prime, so that no two rows of a matrix are equal
_CACHED = 1 << 27  # elements


class RandomWeights(TorchFunctionMode):
    """Inside this mode, every torch function gets values in place of ``parameters``.

    Matrices and kernels are normal with variance 1 / fan_in. Vectors are near 0.5, so that no scale
    hides what it multiplies and no bias is zero. A parameter that several modules hold has the same
    values in each.
    """

    def __init__(self, parameters: Iterable[torch.Tensor]) -> None:
        super().__init__()
        self._known = {id(one): (index, one) for index, one in enumerate(parameters)}
        generator = torch.Generator().manual_seed(0)
        self._normal = torch.randn(_PERIOD, generator=generator)
        self._made: dict[int, torch.Tensor] = {}
        self._versions: dict[int, int] = {}
        self._elements = 0
        self._changed: set[int] = set()

    def copies(self) -> list[torch.Tensor]:
        """Values for all parameters, in their order."""
        return [self._draw(*known) for known in self._known.values()]

    def changed(self) -> set[int]:
        """The ``id`` of each parameter whose values were changed in place."""
        return self._changed | {
            key for key, made in self._made.items() if made._version != self._versions[key]
        }

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call ``func`` with values."""
        return func(*self._with_values(args), **self._with_values(kwargs or {}))

    def _with_values(self, value: Any) -> Any:
        if id(value) in self._known:
            return self._values(value)
        if isinstance(value, list):  # graphs hand over lists of a type of their own
            return [self._with_values(item) for item in value]
        if type(value) is tuple:
            return tuple([self._with_values(item) for item in value])
        if isinstance(value, dict):
            return {key: self._with_values(item) for key, item in value.items()}
        return value

    def _values(self, parameter: torch.Tensor) -> torch.Tensor:
        if id(parameter) not in self._made:
            if self._elements + parameter.numel() > _CACHED:
                self._changed |= self.changed()
                self._made.clear()
                self._elements = 0
            made = self._made[id(parameter)] = self._draw(*self._known[id(parameter)])
            self._versions[id(parameter)] = made._version
            self._elements += parameter.numel()
        return self._made[id(parameter)]

    def _draw(self, index: int, parameter: torch.Tensor) -> torch.Tensor:
        size = parameter.numel()
        mean, std = 0.5, 0.1
        if parameter.dim() >= 2:
            mean, std = 0.0, (max(1, parameter.shape[0]) / max(1, size)) ** 0.5
        values = torch.empty(size)
        # The table goes round, from a start of the parameter's own.
        begin, start = 0, index * 7919 % _PERIOD
        while begin < size:
            end = min(size, begin + _PERIOD - start)
            torch.mul(self._normal[start : start + end - begin], std, out=values[begin:end])
            begin, start = end, 0
        return values.add_(mean).to(parameter.dtype).view(parameter.shape)
