"""Normalised weights as plain operations: what torch keeps in a hook or in a private function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import nn
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm


def normalised(v: Any, g: Any, dim: int = 0) -> Any:
    """``v`` at the length ``g``; that over all axes but ``dim``, or over all of them for -1."""
    return v * (g / torch.norm_except_dim(v, 2, dim))


DECOMPOSED: Mapping[Callable[..., Any], Callable[..., Any]] = MappingProxyType(
    {torch._weight_norm: normalised, torch._is_all_true: torch.all}
)
"""Functions without a public name, and what computes the same by public ones."""


def weight_norms(module: nn.Module) -> dict[int, WeightNorm | SpectralNorm]:
    """Hooks that make a weight before each forward, by their number among the module's hooks.

    Those of ``torch.nn.utils.weight_norm`` and ``torch.nn.utils.spectral_norm``.
    """
    return {
        number: hook
        for number, hook in module._forward_pre_hooks.items()
        if isinstance(hook, (WeightNorm, SpectralNorm))
    }


def write_out_norms(model: nn.Module) -> None:
    """Change ``model`` so that norms of weights computed by hooks are computed by its forwards."""
    for module in model.modules():
        hooks = weight_norms(module)
        for number, hook in hooks.items():
            del module._forward_pre_hooks[number]
            module.__dict__.pop(hook.name, None)
        if hooks:
            reads: dict[str, Any] = {hook.name: _read(hook) for hook in hooks.values()}
            kind = type(module)
            norm = type(next(iter(hooks.values()))).__name__
            module.__class__ = type(f"{norm}{kind.__name__}", (kind,), reads)


def _read(hook: WeightNorm | SpectralNorm) -> property:
    def weight(module: nn.Module) -> Any:
        if isinstance(hook, SpectralNorm):
            return hook.compute_weight(module, do_power_iteration=module.training)
        v, g = (getattr(module, f"{hook.name}_{part}") for part in "vg")
        return normalised(v, g, hook.dim)

    return property(weight)
