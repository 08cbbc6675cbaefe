"""Copies of a model to run, with random weights and inputs."""

from __future__ import annotations

import copy
import random
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from planner.tracing.forwards import rebind
from planner.tracing.functions import map_tensors
from planner.tracing.norms import write_out_norms
from planner.tracing.weights import RandomWeights


def without_data_of(model: nn.Module) -> dict[int, nn.Parameter]:
    """Parameters to take the place of the model's, by the ``id`` of those."""
    return {
        id(one): nn.Parameter(one.detach().to("meta"), requires_grad=one.requires_grad)
        for one in model.parameters()
    }


def twin_of(model: nn.Module, weights: Mapping[int, nn.Parameter]) -> nn.Module:
    """A copy of ``model`` on the CPU, with ``weights`` for its parameters."""
    known: dict[int, Any] = dict(weights)
    for module in model.modules():
        for value in (*module._buffers.values(), *module.__dict__.values()):
            if isinstance(value, torch.Tensor):
                known[id(value)] = value.detach().to("cpu", copy=True)
    twin = copy.deepcopy(model, known)
    rebind(model, twin, known)
    write_out_norms(twin)
    return twin


def at_batch(value: Any, own: int, size: int) -> Any:
    """``value`` with ``size`` in place of ``own`` as the first axis of its tensors."""

    def resize(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.dim() == 0 or tensor.shape[0] != own or own == size:
            return tensor
        return tensor[torch.arange(size, device=tensor.device) % max(own, 1)]

    return map_tensors(value, resize)


def filled(tensor: torch.Tensor) -> torch.Tensor:
    """Random floats on the CPU like ``tensor``; integers without data become zeros and ones."""
    if tensor.is_floating_point() or tensor.is_complex():
        return torch.randn(tensor.shape, dtype=tensor.dtype)
    if tensor.is_meta:
        return torch.randint(0, 2, tensor.shape).to(tensor.dtype)
    return tensor.to("cpu", copy=True)


@contextmanager
def undisturbed(seed: int) -> Iterator[None]:
    """Seed the random generators of the CPU, and put them back afterwards."""
    python, numpy = random.getstate(), sys.modules.get("numpy")
    numbers: Any = None if numpy is None else numpy.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        random.seed(seed)
        if numpy is not None:
            numpy.random.seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            if numpy is not None:
                numpy.random.set_state(numbers)


def output_of(
    model: nn.Module, values: RandomWeights, inputs: tuple[tuple[Any, ...], dict[str, Any]]
) -> Any:
    """What ``model`` gives in evaluation."""
    drawn = zip(model.parameters(), values.copies(), strict=True)
    twin = twin_of(model, {id(one): nn.Parameter(made, one.requires_grad) for one, made in drawn})
    with undisturbed(0):
        args, kwargs = map_tensors(inputs, filled)
        return twin.eval()(*args, **kwargs)
