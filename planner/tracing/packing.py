"""Sequences of several lengths, packed for recurrent layers: one call of torch's each.

How much a pack holds depends on the lengths' values. While a run is recorded, all sequences count
as long as they can be; sizes read off the results remember that they are theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence
from torch.utils._python_dispatch import _disable_current_modes


def _packed(
    input: torch.Tensor,  # noqa: A002  as torch calls it
    lengths: Any,  # noqa: ARG001  has no values
    batch_first: bool = False,
    enforce_sorted: bool = True,
) -> PackedSequence:
    steps = input.transpose(0, 1) if batch_first else input
    time, batch = steps.shape[:2]
    with _disable_current_modes():  # the one part of a pack that stays on the CPU, with its values
        sizes = torch.full((time,), batch, dtype=torch.int64, device="cpu")
    order = None if enforce_sorted else steps.new_empty((batch,), dtype=torch.int64)
    back = None if order is None else torch.empty_like(order)
    return PackedSequence(steps.flatten(0, 1), sizes, order, back)


def _padded(
    sequence: PackedSequence,
    batch_first: bool = False,
    padding_value: float = 0.0,  # noqa: ARG001
    total_length: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    time = len(sequence.batch_sizes)
    steps = torch.unflatten(sequence.data, 0, (time, -1))
    if total_length is not None:
        steps = F.pad(steps, (0, 0) * (steps.dim() - 1) + (0, total_length - time))
    lengths = steps.new_empty((steps.shape[1],), dtype=torch.int64)
    return (steps.transpose(0, 1) if batch_first else steps), lengths


SHAPES: Mapping[Callable[..., Any], Callable[..., Any]] = MappingProxyType(
    {pack_padded_sequence: _packed, pad_packed_sequence: _padded}
)
"""Functions whose results' sizes depend on values, and what they give for tensors without any."""


def map_packed(value: PackedSequence, change: Callable[[Any], Any]) -> PackedSequence:
    """``value`` with its tensors changed, but for the sizes, which stay on the CPU."""
    data, order, back = map(change, (value.data, value.sorted_indices, value.unsorted_indices))
    return PackedSequence(data, value.batch_sizes, order, back)
