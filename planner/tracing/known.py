"""Values of tensors that a forward makes of literals alone, such as ``torch.arange(1, 4)``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.fx
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.fx.node import map_arg

from planner import operations

READS = frozenset("tolist item __bool__ __int__ __float__ __index__".split())
"""Methods that make Python's values of a tensor."""


def known_value(node: torch.fx.Node | None) -> torch.Tensor | None:
    """The value of ``node`` if it is the same whatever the model is given, else None."""
    if node is None:
        return None
    with unset_fake_temporarily(), torch.random.fork_rng(devices=[]):
        before = torch.get_rng_state()
        try:
            found = _value(node, {})
        except (LookupError, TypeError, RuntimeError, ValueError):
            return None
        drawn = not torch.equal(before, torch.get_rng_state())
    return None if drawn or not isinstance(found, torch.Tensor) else found


def _value(node: torch.fx.Node, made: dict[torch.fx.Node, Any]) -> Any:
    """Run ``node`` and what it is made of.

    Raises:
        LookupError: it is made of inputs, of weights or of no values, or changed afterwards.
    """
    if node in made:
        return made[node]
    if node.op not in ("call_function", "call_method") or any(map(_changes, node.users)):
        raise LookupError(node.name)
    target = node.target if isinstance(node.target, str) else operations.public_name(node.target)
    if target is None or _changes(node) or "empty" in target:
        raise LookupError(target)
    args, kwargs = map_arg((node.args, node.kwargs), lambda one: _value(one, made))
    made[node] = _called(node.target, args, kwargs)
    return made[node]


def _called(target: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    with torch.device("cpu"):
        if isinstance(target, str):
            return getattr(args[0], target)(*args[1:], **kwargs)
        return target(*args, **kwargs)


def _changes(node: torch.fx.Node) -> bool:
    op = node.op.removeprefix("call_")
    target = node.target if isinstance(node.target, str) else operations.public_name(node.target)
    return operations.is_in_place(op, target or "", tuple(node.kwargs.items()))
