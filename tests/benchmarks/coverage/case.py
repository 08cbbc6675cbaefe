"""What a catalogue lists: a model, and inputs for it at any batch size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn

Inputs: TypeAlias = "tuple[object, ...] | dict[str, object]"
"""Positional or keyword arguments of a forward."""


@dataclass(frozen=True, slots=True)
class Case:
    """A model of a library, made only when it is asked for.

    Attributes:
        name: unique among all cases.
        library: where the model is from.
        task: what its kind is for, within the library.
        build: makes the model, with random weights.
        inputs: makes random inputs with so many samples.
        modes: values of ``training`` in which the forward takes these inputs.
        batches: the example's number of samples, and another.
    """

    name: str
    library: str
    task: str
    build: Callable[[], nn.Module]
    inputs: Callable[[int], Inputs]
    modes: tuple[bool, ...] = (False, True)
    batches: tuple[int, int] = (2, 3)


def tensors(*shapes: tuple[int, ...]) -> Callable[[int], Inputs]:
    """Inputs of normal noise; the shapes are those of one sample."""
    return lambda batch: tuple(torch.randn(batch, *shape) for shape in shapes)


def image(side: int, channels: int = 3) -> Callable[[int], Inputs]:
    """One square image a sample."""
    return tensors((channels, side, side))


def ids(batch: int, length: int, vocabulary: int, first: int = 3) -> Tensor:
    """Token ids that are no special ones: those below ``first`` often mean padding or an end."""
    return torch.randint(first, vocabulary, (batch, length))
