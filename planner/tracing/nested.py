"""Values that forwards take and give: tensors and numbers, nested in containers of any depth."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import torch

TOLERANCE = 1e-5
"""Of the largest magnitude in a tensor: what the order of float32 sums may change."""

_TOLERANCES = {torch.float64: 1e-10, torch.float16: 1e-2, torch.bfloat16: 5e-2}
_ATOMS = (str, bytes, type, type(None), torch.dtype, torch.device, torch.nn.Module)


def leaves(value: Any) -> Iterator[torch.Tensor | complex]:
    """The tensors and numbers in ``value``, in order; None, text and unknown objects hold none."""
    if isinstance(value, (torch.Tensor, bool, int, float, complex)):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from leaves(item)
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from leaves(item)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from leaves(getattr(value, field.name))


def tensors(value: Any) -> list[torch.Tensor]:
    """The tensors in ``value``, in order."""
    return [leaf for leaf in leaves(value) if isinstance(leaf, torch.Tensor)]


def snapshot(value: Any, known: dict[int, Any] | None = None) -> Any:
    """``value`` with copies of all that can change; what stands in it twice is copied once."""
    known = {} if known is None else known
    if id(value) in known:
        return known[id(value)]
    if isinstance(value, torch.Tensor):
        known[id(value)] = _copied(value)
    elif type(value) in (tuple, list):
        return type(value)(snapshot(item, known) for item in value)
    elif type(value) is dict:
        return {key: snapshot(item, known) for key, item in value.items()}
    elif isinstance(value, (*_ATOMS, bool, int, float, complex)):
        return value
    else:
        try:
            return copy.deepcopy(value, known)
        except Exception:  # noqa: BLE001  an object that refuses is taken as one that never changes
            return value
    return known[id(value)]


def _copied(tensor: torch.Tensor) -> torch.Tensor:
    """A copy that takes memory once one of the two is changed, where torch can do that."""
    try:
        return tensor.detach()._lazy_clone()
    except RuntimeError:  # memory that torch does not own, such as NumPy's
        return tensor.detach().clone()


def _same_memory(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether the elements are the same ones, or copies that nothing has changed so far."""
    # data_ptr() would end the sharing of copies.
    address = torch._C._data_address  # type: ignore[attr-defined]
    return one.stride() == other.stride() and address(one) == address(other)


def difference(expected: Any, found: Any, tolerance: float | None = None) -> str | None:
    """How ``found`` differs from ``expected``, as what "it gives"; None where they agree.

    ``tolerance`` is of a tensor's largest magnitude; by default it is what its dtype allows.
    """
    wanted, given = list(leaves(expected)), list(leaves(found))
    if len(wanted) != len(given):
        return f"{len(given)} tensors and numbers instead of {len(wanted)}"
    pairs = zip(wanted, given, strict=True)
    return next((told for pair in pairs if (told := _leaf_difference(*pair, tolerance))), None)


def _leaf_difference(expected: Any, found: Any, tolerance: float | None) -> str | None:
    if not (isinstance(expected, torch.Tensor) and isinstance(found, torch.Tensor)):
        if type(expected) is not type(found):
            return f"a {type(found).__name__} instead of a {type(expected).__name__}"
        # By their text NaN equals NaN.
        same = expected == found or repr(expected) == repr(found)
        return None if same else f"{found} instead of {expected}"
    if expected.shape != found.shape or expected.dtype != found.dtype:
        return f"{_kind(found)} instead of {_kind(expected)}"
    if _same_memory(expected, found) or torch.equal(expected, found):
        return None
    if not (expected.is_floating_point() or expected.is_complex()):
        return f"other values in {_kind(expected)}"
    size = expected.abs()
    scale = float(torch.where(size.isfinite(), size, 0).max())
    if tolerance is None:
        tolerance = _TOLERANCES.get(expected.dtype, TOLERANCE)
    if torch.allclose(found, expected, rtol=0.0, atol=tolerance * scale, equal_nan=True):
        return None
    apart = (found - expected).abs()
    relative = float(torch.where(apart.isfinite(), apart, 0).max()) / (scale or 1.0)
    return f"other values, {relative:.1e} of their scale apart, in {_kind(expected)}"


def _kind(tensor: torch.Tensor) -> str:
    shape = "x".join(map(str, tensor.shape)) or "scalar"
    return f"a tensor {shape} of {str(tensor.dtype).removeprefix('torch.')}"
