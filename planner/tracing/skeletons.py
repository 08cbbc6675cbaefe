"""Copies of a model whose tensors have no data, and what cannot be copied or captured at all."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from planner.errors import TraceError
from planner.ir import is_attribute
from planner.tracing.forwards import rebind
from planner.tracing.norms import weight_norms


def refuse_unseen(model: nn.Module) -> None:
    """Hooks and compiled modules: what no forward in Python shows.

    Raises:
        TraceError: names the module that has one.
    """
    for path, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise TraceError(
                f"module {path!r} ({module.original_name}) is TorchScript, which shows no forward "
                "in Python: give the module that it was compiled from",
                module=path,
            )
        if module._forward_hooks or set(module._forward_pre_hooks) - set(weight_norms(module)):
            raise TraceError(
                f"module {path!r} ({type(module).__name__}) has forward hooks, which a graph "
                "does not show: remove them, or move what they do into forward",
                module=path,
            )


def refuse_names(model: nn.Module) -> None:
    """Names that a program cannot hold.

    Raises:
        TraceError: names the module and the attribute.
    """
    for path, module in model.named_modules():
        for name in (*module._modules, *module._parameters, *module._buffers):
            if not is_attribute(name):
                raise TraceError(
                    f"module {path!r} ({type(module).__name__}) has an attribute {name!r}: give it "
                    "a name of letters, digits, '_' and '-'",
                    module=path,
                )


def copy_with(model: nn.Module, replace: Callable[[torch.Tensor], torch.Tensor]) -> nn.Module:
    """A copy of ``model`` in which ``replace`` has made every tensor; ties stay ties.

    ``replace`` gets detached tensors; what it returns becomes a parameter where one was.

    Raises:
        TraceError: the model refuses to be copied.
    """
    memo: dict[int, Any] = {}
    for parameter in model.parameters():
        memo[id(parameter)] = nn.Parameter(
            replace(parameter.detach()), requires_grad=parameter.requires_grad
        )
    for module in model.modules():
        for value in (*module._buffers.values(), *module.__dict__.values()):
            if isinstance(value, torch.Tensor) and id(value) not in memo:
                memo[id(value)] = replace(value.detach())
    try:
        twin = copy.deepcopy(model, memo)
        rebind(model, twin, memo)
    except Exception as error:  # whatever a user's __deepcopy__ or attribute raises
        raise TraceError(
            f"the model cannot be copied ({type(error).__name__}: {error}): remove attributes that "
            "copy.deepcopy refuses, such as locks, files or generators"
        ) from error
    return twin


def without_data(model: nn.Module) -> nn.Module:
    """A copy on the meta device; nothing of the original's size is copied."""
    return copy_with(model, lambda tensor: tensor.to("meta"))


def is_plain(module: nn.Module) -> bool:
    """Whether ``module`` is one of torch's own containers, and no subclass."""
    return type(module) in (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def runs_in_order(module: nn.Module) -> bool:
    """Whether calling ``module`` calls its children one after the other."""
    plain = "forward" not in module.__dict__ and type(module).forward is nn.Sequential.forward
    return plain and isinstance(module, nn.Sequential)
