"""Example inputs at other lengths and image sizes.

Which axes of the inputs may change, and which of them together, only the model can tell. What is
tried: all axes of one size at once, and the axes of one kind (height, width, length) by themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from planner.tracing.extents import Decision
from planner.tracing.functions import map_tensors, tensors_in

_TILE = 32
"""Models halve images a few times: sizes that are multiples of this stay so."""

_EXTREMES, _FAR = 6, 4
"""How many sizes of a group are extremes, and how many times larger than the example's."""

_IMAGES = {4: {2: "height", 3: "width"}, 5: {2: "frames", 3: "height", 4: "width"}}


@dataclass(frozen=True, slots=True)
class Axis:
    """An axis of an input tensor, by the tensor's position among the inputs."""

    tensor: int
    axis: int
    kind: str


@dataclass(frozen=True, slots=True)
class Group:
    """Axes that have one size and change together."""

    size: int
    axes: tuple[Axis, ...]

    @property
    def name(self) -> str:
        """What they are, with their size in the example: ``height and width 64``."""
        kinds = dict.fromkeys(axis.kind for axis in self.axes)
        return f"{' and '.join(kinds)} {self.size}"

    def sizes(self) -> tuple[int, ...]:
        """Other sizes, in the order to try them in: small ones first, which take less time."""
        if self.size % _TILE == 0:
            half = -(-self.size // (2 * _TILE)) * _TILE
            smaller = (half,) if half < self.size else ()
            return *smaller, self.size + _TILE, 2 * self.size, self.size - _TILE
        return self.size + 3, self.size - 3, 2 * self.size, self.size // 2

    def parts(self) -> tuple[Group, ...]:
        """The axes of each kind, if there are several kinds."""
        kinds = dict.fromkeys(axis.kind for axis in self.axes)
        if len(kinds) < 2:
            return ()
        return tuple(
            Group(self.size, tuple(axis for axis in self.axes if axis.kind == kind))
            for kind in kinds
        )


def groups(inputs: Any) -> Iterator[Group]:
    """The axes of the tensors in ``inputs`` by size, without each tensor's first axis."""
    found: dict[int, list[Axis]] = {}
    for index, tensor in enumerate(tensors_in(inputs)):
        for axis in range(1, tensor.dim()):
            known = _IMAGES.get(tensor.dim(), {})
            kind = known.get(axis, "channels" if known else "length" if axis == 1 else "width")
            found.setdefault(tensor.shape[axis], []).append(Axis(index, axis, kind))
    for size, axes in found.items():
        yield Group(size, tuple(axes))


def extremes(
    changeable: Sequence[Group], decisions: Sequence[Decision]
) -> Iterator[tuple[Group, int]]:
    """Sizes at which ``decisions`` may have another outcome: the least, and near their numbers."""
    numbers = {item for one in decisions for item in one.args if type(item) is int}
    near = {number + step for number in numbers for step in (0, 1, -1)}
    for group in changeable:
        own = {1, *near, *(other.size for other in changeable)} - {group.size}
        for size in sorted(own)[:_EXTREMES]:
            if 1 <= size <= _FAR * group.size:
                yield group, size


def resized(inputs: Any, changes: Sequence[tuple[Group, int]]) -> Any:
    """``inputs`` with another size for each of the groups; what is longer begins again."""
    position = -1

    def resize(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal position
        position += 1
        for group, size in changes:
            for one in group.axes:
                if one.tensor == position:
                    chosen = torch.arange(size, device=tensor.device) % group.size
                    tensor = tensor.index_select(one.axis, chosen)
        return tensor

    return map_tensors(inputs, resize)
