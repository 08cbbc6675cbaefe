"""Outputs compared field by field, whatever they are nested in."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

TOLERANCE = 1e-5
"""Of the largest finite magnitude of a tensor."""


class DifferenceError(AssertionError):
    """Two outputs that are not equal; the message says where, and by how much."""


def deviation(expected: object, found: object) -> float:
    """The largest difference of two outputs, relative to the scale of the tensor that it is in.

    A dataclass may come back as a dict or a tuple of the same fields. Integers compare exactly.

    Raises:
        DifferenceError: the outputs differ by more than ``TOLERANCE``, or in their structure.
    """
    return _walk(expected, found, "output", _tensor_deviation)


def assert_same_shapes(expected: object, found: object) -> None:
    """The same structure, with tensors of the same shapes and dtypes.

    Raises:
        DifferenceError: they differ.
    """
    _walk(expected, found, "output", _shape_deviation)


def leaves(value: object) -> list[Tensor]:
    """The tensors in an output, in order."""
    if isinstance(value, Tensor):
        return [value]
    fields = _fields(value)
    if fields is not None:
        return [one for item in fields.values() for one in leaves(item)]
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [one for item in value for one in leaves(item)]
    return []


def _fields(value: object) -> dict[str, object] | None:
    """Named fields without those that are None; None if ``value`` has no named fields."""
    named: dict[str, object]
    if isinstance(value, Mapping):
        named = {str(key): item for key, item in value.items()}
    elif dataclasses.is_dataclass(value):
        named = {one.name: getattr(value, one.name) for one in dataclasses.fields(value)}
    elif isinstance(value, tuple) and hasattr(value, "_asdict"):
        named = value._asdict()
    else:
        return None
    return {key: item for key, item in named.items() if item is not None}


def _walk(
    expected: object, found: object, path: str, compare: Callable[[Tensor, Tensor, str], float]
) -> float:
    if isinstance(expected, Tensor):
        if not isinstance(found, Tensor):
            raise DifferenceError(f"{path} is a tensor, and {type(found).__name__} when emitted")
        return compare(expected, found, path)
    pairs = _pairs(expected, found, path)
    if pairs is None:
        if expected != found:
            raise DifferenceError(f"{path} is {expected!r}, and {found!r} when emitted")
        return 0.0
    return max((_walk(ours, theirs, where, compare) for where, ours, theirs in pairs), default=0.0)


def _pairs(expected: object, found: object, path: str) -> list[tuple[str, object, object]] | None:
    """(path, expected, found) of what is nested; None where nothing is."""
    fields = _fields(expected)
    if fields is not None:
        others = _fields(found)
        if others is None and isinstance(found, Sequence):
            given = [one for one in found if one is not None]
            others = dict(zip(fields, given, strict=True)) if len(given) == len(fields) else None
        if others is None or list(fields) != list(others):
            names = type(found).__name__ if others is None else list(others)
            raise DifferenceError(f"{path} has fields {list(fields)}, and {names} when emitted")
        return [(f"{path}.{key}", fields[key], others[key]) for key in fields]
    if isinstance(expected, Sequence) and not isinstance(expected, str):
        if not isinstance(found, Sequence) or len(expected) != len(found):
            raise DifferenceError(f"{path} has {len(expected)} items, other than when emitted")
        return [
            (f"{path}[{index}]", *pair)
            for index, pair in enumerate(zip(expected, found, strict=True))
        ]
    return None


def _shape_deviation(expected: Tensor, found: Tensor, path: str) -> float:
    ours, theirs = ((tuple(one.shape), one.dtype) for one in (expected, found))
    if ours != theirs:
        raise DifferenceError(f"{path} is {ours}, and {theirs} when emitted")
    return 0.0


def _tensor_deviation(expected: Tensor, found: Tensor, path: str) -> float:
    _shape_deviation(expected, found, path)
    if not expected.dtype.is_floating_point and not expected.dtype.is_complex:
        if not torch.equal(expected, found):
            raise DifferenceError(f"{path} differs in {int((expected != found).sum())} integers")
        return 0.0
    expected, found = expected.detach(), found.detach()
    finite = torch.isfinite(expected)
    if not torch.equal(finite, torch.isfinite(found)) or not torch.equal(
        expected[~finite].nan_to_num(), found[~finite].nan_to_num()
    ):
        raise DifferenceError(f"{path} is not finite elsewhere than in the original")
    if not finite.any():
        return 0.0
    scale = expected[finite].abs().max().item()
    worst = (expected[finite] - found[finite]).abs().max().item()
    relative = worst / scale if scale else worst
    if relative > TOLERANCE:
        raise DifferenceError(f"{path} differs by {relative:.1e} of its scale")
    return relative
