"""How far generated tensors will be from a checkpoint's, before anything is emitted.

The error of a site is ‖W - Ŵ‖ / ‖W‖, Ŵ after ``load_dense_state_dict``, the least-squares fit:

- ``own``: 0. ``lowrank``: the tail of the singular values, exactly (Eckart and Young 1936).
- ``tie``: the distance from the mean of all that tie, exactly.
- ``hash``: what is expected if the elements that meet in one bank parameter are uncorrelated. With
  factors s_j, mean squares e_j and r_j = n_j / m reads of a bank of m by site j, a parameter that
  site i reads has the denominator D = s_i² max(1, r_i) + Σ_{j≠i} r_j s_j², and
  error² · e_i = e_i - 2 s_i² e_i / D + s_i² (s_i² max(1, r_i) e_i + Σ_{j≠i} r_j s_j² e_j) / D².
- ``mix``: of the sites of one size, the part outside the leading m · S / N directions of their S
  tensors, N the elements that read the bank: the singular spectrum of the group. Exact for
  templates that do not overlap, with factors of one size.
- ``interpolate``, ``repeat``, ``mask``: √(1 - m / N), as of uncorrelated elements.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from planner.ir import Allocation, Bank, Placement, Site

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def expected_errors(
    sites: Sequence[Site], allocation: Allocation, weights: Mapping[str, NDArray[np.float64]]
) -> dict[str, float]:
    """The relative error of each generated site, by its name.

    Args:
        sites: all sites of the model.
        allocation: their generators.
        weights: trained matrices (rows × columns) of the shareable sites, less their fixed mean.
    """
    size = {site.name: site.size for site in sites}
    readers: dict[str, list[Placement]] = {}
    for placement in allocation.placements:
        if placement.bank is not None:
            readers.setdefault(placement.bank, []).append(placement)
    found: dict[str, float] = {}
    for bank in allocation.banks:
        here = readers.get(bank.name, [])
        elements = sum(size[one.site] for one in here)
        mixed = [one for one in here if one.generator == "mix"]
        found.update(_mixed(bank, mixed, elements, weights))
        for one in here:
            if one.generator == "lowrank":
                found[one.site] = _lowrank(weights[one.site], one.rank)
            elif one.generator == "tie":
                found[one.site] = _tied(one, here, weights)
            elif one.generator == "hash":
                found[one.site] = _hashed(one, here, bank, weights)
            elif one.generator != "mix":
                found[one.site] = math.sqrt(max(0.0, 1.0 - bank.size / elements))
    return {site.name: found[site.name] for site in sites if site.name in found}


def with_errors(allocation: Allocation, errors: Mapping[str, float]) -> Allocation:
    """The allocation with each generated site's expected error in its reason."""
    return replace(
        allocation,
        placements=tuple(
            replace(one, reason=f"{one.reason}; expected error {errors[one.site]:.2f}")
            if one.site in errors
            else one
            for one in allocation.placements
        ),
    )


def summary_note(
    errors: Mapping[str, float], weights: Mapping[str, NDArray[np.float64]], source: str
) -> str:
    """One line: the error of all weights together, and the worst site."""
    norms = {name: float((weights[name] ** 2).sum()) for name in weights}
    lost = sum(errors[name] ** 2 * norms[name] for name in errors)
    whole = math.sqrt(lost / (sum(norms.values()) or 1.0))
    if not errors:
        return f"nothing is generated: {source} is kept as it is"
    worst = max(errors, key=lambda name: errors[name])
    return (
        f"fitted to {source}, the weights are expected to be off by {whole:.2f} of their norm, "
        f"most in {worst} ({errors[worst]:.2f})"
    )


def _lowrank(matrix: NDArray[np.float64], rank: int) -> float:
    import numpy as np

    values = np.linalg.svd(matrix, compute_uv=False) ** 2
    return math.sqrt(float(values[rank:].sum()) / (float(values.sum()) or 1.0))


def _tied(
    one: Placement, group: Sequence[Placement], weights: Mapping[str, NDArray[np.float64]]
) -> float:
    import numpy as np

    flat = [weights[other.site].reshape(-1) * other.scale for other in group]
    shared = sum(flat[1:], flat[0]) / sum(other.scale**2 for other in group)
    target = weights[one.site].reshape(-1)
    norm = float(np.linalg.norm(target))
    return float(np.linalg.norm(target - one.scale * shared)) / norm if norm else 0.0


def _hashed(
    one: Placement,
    group: Sequence[Placement],
    bank: Bank,
    weights: Mapping[str, NDArray[np.float64]],
) -> float:
    def square(placement: Placement) -> float:
        return float((weights[placement.site] ** 2).mean())

    own, reads = one.scale**2, weights[one.site].size / bank.size
    mine = square(one)
    if mine == 0.0:
        return 0.0
    weight, spread = own * max(1.0, reads), own * max(1.0, reads) * mine
    for other in group:
        if other is not one:
            part = weights[other.site].size / bank.size * other.scale**2
            weight += part
            spread += part * square(other)
    squared = mine - 2.0 * own * mine / weight + own * spread / weight**2
    return math.sqrt(max(0.0, squared / mine))


def _mixed(
    bank: Bank,
    mixed: Sequence[Placement],
    elements: int,
    weights: Mapping[str, NDArray[np.float64]],
) -> dict[str, float]:
    import numpy as np

    found: dict[str, float] = {}
    sizes = sorted({weights[one.site].size for one in mixed})
    for size in sizes:
        names = [one.site for one in mixed if weights[one.site].size == size]
        stacked = np.stack([weights[name].reshape(-1) for name in names])
        values, vectors = np.linalg.eigh(stacked @ stacked.T)
        values, vectors = np.clip(values[::-1], 0.0, None), vectors[:, ::-1]
        kept = np.clip(bank.size * len(names) / elements - np.arange(len(names)), 0.0, 1.0)
        lost = (vectors**2 * (values * (1.0 - kept))[None, :]).sum(axis=1)
        norms = (stacked**2).sum(axis=1)
        for name, part, norm in zip(names, lost, norms, strict=True):
            found[name] = math.sqrt(float(part) / float(norm)) if norm else 0.0
    return found
