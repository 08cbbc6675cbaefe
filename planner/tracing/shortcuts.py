"""Shortcuts that torch takes in evaluation where no gradients are wanted and nobody watches.

``nn.TransformerEncoder`` runs as one fused operation then, which leaves zeros where padding lies.
Neither a graph nor what checks it sees that, so the model runs twice more, unwatched and watched.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from planner.tracing.nested import difference

LIMIT = 20_000_000
"""Parameters beyond which a model does not run for this: all their values are in memory."""

_TOLERANCE = 1e-3
"""Of a tensor's scale: fused operations add up in another order."""


class _Watching(TorchFunctionMode):
    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return func(*args, **(kwargs or {}))


def shortcut(run: Callable[[], Any]) -> str:
    """What differs in the outputs that ``run`` gives if nobody watches it; empty if nothing does.

    ``run`` gives the same each time, of a model with values in its parameters.
    """
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            unwatched = run()
            with _Watching():
                watched = run()
        except Exception:  # noqa: BLE001  anything may come out of a user's forward
            return ""
    told = difference(watched, unwatched, _TOLERANCE)
    if told is None:
        return ""
    return (
        f"without gradients torch takes a shortcut through the model in evaluation, which gives "
        f"{told}; the emitted file gives what the model gives with gradients"
    )


def may_take_one(model: nn.Module) -> bool:
    """Whether torch has shortcuts for a part of ``model``, and it is small enough to run."""
    count = sum(one.numel() for one in model.parameters())
    return count <= LIMIT and any(isinstance(one, _SHORTENED) for one in model.modules())


_SHORTENED = (nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerEncoder)
"""The layers that have a fast path, by torch's documentation of ``torch.backends.mha``."""
