"""Weight normalisation as plain operations: what torch keeps in a hook or in a private function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import nn
from torch.nn.utils.weight_norm import WeightNorm


def normalised(v: Any, g: Any, dim: int = 0) -> Any:
    """``v`` at the length ``g``; that over all axes but ``dim``, or over all of them for -1."""
    return v * (g / torch.norm_except_dim(v, 2, dim))


DECOMPOSED: Mapping[Callable[..., Any], Callable[..., Any]] = MappingProxyType(
    {torch._weight_norm: normalised, torch._is_all_true: torch.all}
)
"""Functions without a public name, and what computes the same by public ones."""


def weight_norms(module: nn.Module) -> dict[int, WeightNorm]:
    """The hooks of ``torch.nn.utils.weight_norm``, by their number among the module's hooks."""
    return {
        number: hook
        for number, hook in module._forward_pre_hooks.items()
        if isinstance(hook, WeightNorm)
    }


def write_out_norms(model: nn.Module) -> None:
    """Change ``model`` so that weight norms computed by hooks are computed by its forwards."""
    for module in model.modules():
        hooks = weight_norms(module)
        for number, hook in hooks.items():
            del module._forward_pre_hooks[number]
            module.__dict__.pop(hook.name, None)
        if hooks:
            reads = {hook.name: _read(hook) for hook in hooks.values()}
            kind = type(module)
            module.__class__ = type(f"WeightNorm{kind.__name__}", (kind,), reads)


def _read(hook: WeightNorm) -> property:
    def read(module: nn.Module) -> Any:
        v, g = (getattr(module, f"{hook.name}_{part}") for part in "vg")
        return normalised(v, g, hook.dim)

    return property(read)
