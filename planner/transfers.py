"""How each operation changes a distribution: the rules of the recorder, by operator name."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from planner.distributions import (
    Distribution,
    constant,
    indicator,
    normal,
    truncated_normal,
    uniform,
)
from planner.observation import Observations

_Args = Sequence[Any]
_Rule = Callable[[Observations, _Args, Mapping[str, Any]], Distribution | None]

UNFILLED = frozenset(
    {"empty", "empty_like", "empty_strided", "empty_permuted", "new_empty", "new_empty_strided"}
)
"""Operators whose result holds no values yet."""


def transferred(
    seen: Observations, name: str, args: _Args, kwargs: Mapping[str, Any]
) -> Distribution | None:
    """Distribution of the result of operator ``aten::name``, or None where it isn't followed.

    For an in-place operator the result is its first argument after it.
    """
    rule = _RULES.get(name) or _RULES.get(name.removesuffix("_"))
    return None if rule is None else rule(seen, args, kwargs)


def _number(value: Any) -> float | None:
    """A Python number, or the value of a real tensor without axes."""
    if isinstance(value, torch.Tensor):
        if value.dim() or value.is_meta or value.is_complex():
            return None
        return float(value.item())
    return float(value) if isinstance(value, (bool, int, float)) else None


def _read(seen: Observations, value: Any) -> Distribution | None:
    return seen.read(value) if isinstance(value, torch.Tensor) else None


def _constant(position: int, keyword: str) -> _Rule:
    def rule(_seen: Observations, args: _Args, kwargs: Mapping[str, Any]) -> Distribution | None:
        value = _number(args[position] if len(args) > position else kwargs.get(keyword))
        return None if value is None or not math.isfinite(value) else constant(value)

    return rule


def _always(distribution: Distribution) -> _Rule:
    def rule(_seen: Observations, _args: _Args, _kwargs: Mapping[str, Any]) -> Distribution:
        return distribution

    return rule


def _sampled(
    make: Callable[[float, float], Distribution], names: tuple[str, str], defaults: _Args
) -> _Rule:
    """Of ``normal`` and ``uniform``: in place, or as a function of two numbers."""

    def rule(_seen: Observations, args: _Args, kwargs: Mapping[str, Any]) -> Distribution | None:
        given = [one for one in args[:3] if not isinstance(one, (list, tuple))]
        if given and isinstance(given[0], torch.Tensor):
            given = given[1:]
        values = []
        for index, (name, default) in enumerate(zip(names, defaults, strict=True)):
            values.append(given[index] if len(given) > index else kwargs.get(name, default))
        first, second = (_number(value) for value in values)
        return None if first is None or second is None else make(first, second)

    return rule


def _product(seen: Observations, args: _Args, _kwargs: Mapping[str, Any]) -> Distribution | None:
    for tensor, factor in ((args[0], args[1]), (args[1], args[0])):
        value, known = _number(factor), _read(seen, tensor)
        if value is not None and known is not None:
            return known.affine(value)
    return None


def _quotient(seen: Observations, args: _Args, kwargs: Mapping[str, Any]) -> Distribution | None:
    value, known = _number(args[1]), _read(seen, args[0])
    if not value or known is None or kwargs.get("rounding_mode") is not None:
        return None
    return known.affine(1.0 / value)


def _sum(sign: float, *, reverse: bool = False) -> _Rule:
    """``x + alpha·y`` with one of them a number; rsub is ``y - alpha·x``."""

    def rule(seen: Observations, args: _Args, kwargs: Mapping[str, Any]) -> Distribution | None:
        alpha = _number(args[2] if len(args) > 2 else kwargs.get("alpha", 1))
        left, right = (args[1], args[0]) if reverse else (args[0], args[1])
        if alpha is None:
            return None
        number, known = _number(right), _read(seen, left)
        if number is not None and known is not None:
            return known.affine(1.0, sign * alpha * number)
        number, known = _number(left), _read(seen, right)
        if number is not None and known is not None:
            return known.affine(sign * alpha, number)
        return None

    return rule


def _negative(seen: Observations, args: _Args, _kwargs: Mapping[str, Any]) -> Distribution | None:
    known = _read(seen, args[0])
    return None if known is None else known.affine(-1.0)


def _erfinv(seen: Observations, args: _Args, _kwargs: Mapping[str, Any]) -> Distribution | None:
    known = _read(seen, args[0])
    return None if known is None else known.erfinv()


def _clamp(seen: Observations, args: _Args, kwargs: Mapping[str, Any]) -> Distribution | None:
    known = _read(seen, args[0])
    low = args[1] if len(args) > 1 else kwargs.get("min")
    high = args[2] if len(args) > 2 else kwargs.get("max")
    bounds = (
        -math.inf if low is None else _number(low),
        math.inf if high is None else _number(high),
    )
    if known is None or bounds[0] is None or bounds[1] is None:
        return None
    return known.clamp(bounds[0], bounds[1])


def _same(seen: Observations, args: _Args, _kwargs: Mapping[str, Any]) -> Distribution | None:
    return _read(seen, args[0])


def _copied(seen: Observations, args: _Args, _kwargs: Mapping[str, Any]) -> Distribution | None:
    source = args[1]
    return seen.value(source) if isinstance(source, torch.Tensor) else None


def _joined(seen: Observations, args: _Args, _kwargs: Mapping[str, Any]) -> Distribution | None:
    known = [_read(seen, one) for one in args[0]]
    return known[0] if known and all(one == known[0] for one in known) else None


def _eye(_seen: Observations, args: _Args, _kwargs: Mapping[str, Any]) -> Distribution:
    rows = int(args[0])
    columns = int(args[1]) if len(args) > 1 and isinstance(args[1], int) else rows
    return indicator(1.0 / max(1, rows, columns), "eye_()")


_RULES: dict[str, _Rule] = {
    "zero": _always(constant(0.0)),
    **dict.fromkeys(("zeros", "zeros_like", "new_zeros"), _always(constant(0.0))),
    **dict.fromkeys(("ones", "ones_like", "new_ones"), _always(constant(1.0))),
    **dict.fromkeys(("fill", "full", "full_like"), _constant(1, "fill_value")),
    "new_full": _constant(2, "fill_value"),
    "scalar_tensor": _constant(0, "s"),
    **dict.fromkeys(("randn", "randn_like"), _always(normal(0.0, 1.0))),
    **dict.fromkeys(("rand", "rand_like"), _always(uniform(0.0, 1.0))),
    "normal": _sampled(normal, ("mean", "std"), (0.0, 1.0)),
    "uniform": _sampled(uniform, ("from", "to"), (0.0, 1.0)),
    "mul": _product,
    "div": _quotient,
    "add": _sum(1.0),
    "sub": _sum(-1.0),
    "rsub": _sum(-1.0, reverse=True),
    "neg": _negative,
    "erfinv": _erfinv,
    "clamp": _clamp,
    "copy": _copied,
    **dict.fromkeys(("clone", "_to_copy", "lift_fresh_copy", "repeat", "contiguous"), _same),
    **dict.fromkeys(("cat", "stack"), _joined),
    "eye": _eye,
}


# What torch.nn.init leaves out on the meta device: its own rules, from the arguments of the call.


def _orthogonal(tensor: torch.Tensor, given: Mapping[str, Any]) -> Distribution:
    """Orthonormal rows or columns of the greater length: E[w²] = gain² / max(rows, columns)."""
    rows, gain = max(1, tensor.shape[0]), float(given["gain"])
    std = abs(gain) / math.sqrt(max(1, rows, tensor.numel() // rows))
    return Distribution("normal", 0.0, std, formula="orthogonal_()" if gain == 1.0 else "")


def _dirac(tensor: torch.Tensor, given: Mapping[str, Any]) -> Distribution:
    groups = int(given["groups"])
    ones = groups * min(tensor.shape[0] // groups, tensor.shape[1])
    found = indicator(ones / max(1, tensor.numel()), "dirac_()")
    return found if groups == 1 else replace(found, formula="")


def _sparse(tensor: torch.Tensor, given: Mapping[str, Any]) -> Distribution:
    rows = max(1, tensor.shape[0])
    kept = 1.0 - math.ceil(float(given["sparsity"]) * rows) / rows
    return normal(0.0, float(given["std"]) * math.sqrt(max(0.0, kept)))


def _truncated(_tensor: torch.Tensor, given: Mapping[str, Any]) -> Distribution:
    return truncated_normal(*(float(given[name]) for name in ("mean", "std", "a", "b")))


SKIPPED: Mapping[object, Callable[[torch.Tensor, Mapping[str, Any]], Distribution]] = {
    torch.nn.init.orthogonal_.__code__: _orthogonal,
    torch.nn.init.dirac_.__code__: _dirac,
    torch.nn.init.sparse_.__code__: _sparse,
    torch.nn.init._no_grad_trunc_normal_.__code__: _truncated,
}
"""By code object, so that it doesn't matter under which name a model imported the function."""
