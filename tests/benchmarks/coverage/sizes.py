"""A case's inputs at other lengths and image sizes: what the original may take, it decides."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.coverage.case import Inputs

_TILE = 32
"""Sides of images that are multiples of this stay so: most models halve them five times."""


@dataclass(frozen=True, slots=True)
class Other:
    """Inputs of other sizes; ``told`` says which size became which."""

    told: str
    axes: str
    inputs: Inputs


def others(inputs: Inputs) -> Iterator[list[Other]]:
    """For each size that the inputs' axes have, but for the first axis: several others.

    Axes of one size change together; those of an image's height and width also one alone.
    """
    found = _tensors(inputs)
    sizes = {size for one in found for size in one.shape[1:]}
    for size in sorted(sizes, reverse=True):
        sides = [new for new in _choices(size) if new != size]
        yield [_other(inputs, size, new, "all") for new in sides]
        if any(one.dim() >= 4 and one.shape[-1] == one.shape[-2] == size for one in found):
            yield [_other(inputs, size, new, "last") for new in sides]


def _choices(size: int) -> list[int]:
    if size % _TILE == 0:
        return [size + _TILE, 2 * size, max(_TILE, size - _TILE)]
    return [size + 3, size + math.ceil(size / 2), max(1, size - 3), 2 * size]


def _other(inputs: Inputs, size: int, new: int, axes: str) -> Other:
    def change(value: object) -> object:
        if isinstance(value, Tensor):
            first = 1 if axes == "all" else value.dim() - 1
            for axis in range(max(first, 1), value.dim()):
                if value.shape[axis] == size:
                    value = value.index_select(axis, torch.arange(new) % size)
            return torch.randn_like(value) if value.is_floating_point() else value
        if isinstance(value, dict):
            return {key: change(item) for key, item in value.items()}
        if isinstance(value, (tuple, list)):
            return type(value)([change(item) for item in value])
        return value

    changed = change(inputs)
    assert isinstance(changed, (dict, tuple))
    return Other(f"{size} → {new}" + (" in width" if axes == "last" else ""), axes, changed)


def _tensors(value: object) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    items = value.values() if isinstance(value, dict) else value
    if isinstance(items, str) or not hasattr(items, "__iter__"):
        return []
    return [one for item in items for one in _tensors(item)]
