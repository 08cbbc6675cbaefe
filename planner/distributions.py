"""Distributions of tensors at construction, and how operations change them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

Family = Literal["constant", "normal", "uniform"]


@dataclass(frozen=True, slots=True)
class Distribution:
    """Identically distributed elements: moments, support, and how well they are known.

    ``samples`` is 0 where the moments are exact, else the number of elements that were measured.
    ``formula`` is the ``torch.nn.init`` call that made it, where the moments alone don't tell; it
    is empty where elements depend on one another in a way that no call's text says.
    A truncated normal is a ``normal`` with finite support and the moments of the truncated one.
    """

    family: Family
    mean: float
    std: float
    low: float = -math.inf
    high: float = math.inf
    samples: int = 0
    formula: str | None = None

    def affine(self, factor: float, offset: float = 0.0) -> Distribution:
        """Distribution of ``factor · x + offset``."""
        if factor == 0.0:
            return constant(offset)
        ends = sorted((self.low * factor + offset, self.high * factor + offset))
        return replace(
            self,
            mean=self.mean * factor + offset,
            std=self.std * abs(factor),
            low=ends[0],
            high=ends[1],
            formula=self.formula if (factor, offset) == (1.0, 0.0) or not self.formula else "",
        )

    def clamp(self, low: float, high: float) -> Distribution | None:
        """The same where the bounds cut nothing off, else None: not followed.

        Nothing means rounding, or less than a millionth of a normal (beyond five deviations).
        """
        slack = 1e-5 * max(self.std, abs(self.mean))
        reach = 5.0 * self.std if self.family == "normal" and not self.samples else math.inf
        lowest, highest = max(self.low, self.mean - reach), min(self.high, self.mean + reach)
        return self if lowest >= low - slack and highest <= high + slack else None

    def erfinv(self) -> Distribution | None:
        """Of a uniform within [-1, 1]: a truncated normal with σ = 1/sqrt(2)."""
        if self.family != "uniform" or self.low < -1.0 or self.high > 1.0:
            return None
        half = math.sqrt(0.5)
        return truncated_normal(0.0, half, half * _quantile(self.low), half * _quantile(self.high))


def constant(value: float) -> Distribution:
    """All elements equal ``value``."""
    return Distribution("constant", value, 0.0, value, value)


def normal(mean: float, std: float) -> Distribution:
    """N(mean, std²)."""
    return Distribution("normal", mean, std) if std > 0.0 else constant(mean)


def uniform(low: float, high: float) -> Distribution:
    """U(low, high): std = (high - low) / sqrt(12)."""
    if high <= low:
        return constant(low)
    return Distribution("uniform", (low + high) / 2, (high - low) / math.sqrt(12.0), low, high)


def truncated_normal(mean: float, std: float, low: float, high: float) -> Distribution:
    """N(mean, std²) restricted to [low, high], with the moments after truncation.

    With α, β the bounds in units of std, Z = Φ(β) - Φ(α), φ the density:
    mean + std·(φ(α) - φ(β))/Z and std²·(1 + (αφ(α) - βφ(β))/Z - ((φ(α) - φ(β))/Z)²).
    """
    if std <= 0.0 or high <= low:
        return constant(min(max(mean, low), high))
    unit = NormalDist()
    alpha, beta = (low - mean) / std, (high - mean) / std
    mass = unit.cdf(beta) - unit.cdf(alpha)
    if mass <= 1e-12:  # far in a tail: all that is left lies at the nearer bound
        return constant(low if alpha > 0.0 else high)
    at_low, at_high = unit.pdf(alpha), unit.pdf(beta)
    shift = (at_low - at_high) / mass
    edges = (alpha * at_low if at_low else 0.0) - (beta * at_high if at_high else 0.0)
    variance = max(0.0, 1.0 + edges / mass - shift * shift)
    return Distribution("normal", mean + std * shift, std * math.sqrt(variance), low, high)


def indicator(fraction: float, formula: str) -> Distribution:
    """Ones at ``fraction`` of the places and zeros elsewhere (identity matrices and kernels)."""
    std = math.sqrt(fraction * (1.0 - fraction))
    return Distribution("normal", fraction, std, 0.0, 1.0, formula=formula)


def mixture(parts: Sequence[tuple[int, Distribution]]) -> Distribution:
    """Moments of a tensor whose parts, of the given numbers of elements, differ."""
    first = parts[0][1]
    if all(one == first for _, one in parts):
        return first
    total = sum(count for count, _ in parts)
    mean = sum(count * one.mean for count, one in parts) / total
    square = sum(count * (one.std**2 + one.mean**2) for count, one in parts) / total
    std = math.sqrt(max(0.0, square - mean * mean))
    low, high = min(one.low for _, one in parts), max(one.high for _, one in parts)
    same = all(one.family == "uniform" and one.mean == first.mean for _, one in parts)
    return Distribution("uniform" if same else "normal", mean, std, low, high)


def measured(tensor: torch.Tensor) -> Distribution | None:
    """Distribution of a real tensor's values; None where they aren't finite or there are none.

    Constant if all are equal; else uniform if none is further from the mean than a uniform's
    bound, sqrt(3)·std, by more than 5 %; else normal.
    """
    import torch

    values = tensor.detach()
    if values.is_complex():
        values = torch.view_as_real(values)
    count = values.numel()
    if count == 0:
        return None
    values = values.double() if count <= 1 << 22 else values.float()
    low, high = (float(end) for end in torch.aminmax(values))
    if not (math.isfinite(low) and math.isfinite(high)):
        return None
    if low == high:
        return constant(low)
    variance, centre = torch.var_mean(values, correction=0)
    std, mean = math.sqrt(float(variance)), float(centre)
    reach = max(high - mean, mean - low)
    family: Family = "uniform" if reach <= math.sqrt(3.0) * std * 1.05 else "normal"
    return Distribution(family, mean, std, low, high, samples=count)


def _quantile(value: float) -> float:
    """Standard normal quantile of (value + 1) / 2, which is sqrt(2)·erfinv(value)."""
    if abs(value) >= 1.0:
        return math.copysign(math.inf, value)
    return NormalDist().inv_cdf((value + 1.0) / 2.0)
