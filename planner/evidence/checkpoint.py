"""Evidence from a trained dense checkpoint: which weights are alike, and what sharing will cost.

Each shareable site's trained tensor is read as its matrix, less the fixed mean that generators add.
Two sites are at the distance in [0, 1]

    d = (1 - c²) · min(1, (ln(s_a / s_b) / ln 50)² + ½ ∫|F_a - F_b| + ½ ∫|G_a - G_b|)

    s   root mean square of the weights
    F   share of the squared norm in the leading singular values, against their fraction in [0, 1]
    G   the same of the rows' squared norms, largest first
    c   for matrices of one shape, the cosine of the two once rows are matched; else 0

None of it changes when output channels are permuted: singular values and sorted row norms do not,
and rows are matched by the Hungarian method on their inner products (scipy). Beyond ``MATCHED``
rows they are paired as they stand, and c is not invariant. Input channels are taken as they are:
to match those as well would need the permutations of the layers before. Where sites have nothing in
common, c is near 0 and sharing retains what as many parameters of their own would, so that the
spectra decide.

Average-linkage clusters of the sites at the heights of shape evidence, split by its window of
standard deviations, are the candidate groups; each site stands alone, too. Dissimilarity is in
hundredths.

Importance is the flatness of the spectrum: exp(entropy of the singular values' shares of the
squared norm) over their number, the effective rank (Roy and Vetterli 2007), relative to the mean
over all elements, within [½, 2]. Of a flat spectrum a budget retains less, so a parameter is worth
more there. Sensitivity of the loss is not known from weights alone; it counts as equal for all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from planner.errors import EvidenceError
from planner.evidence.candidates import by_dtype, candidates, gathered
from planner.evidence.shape import clusters
from planner.evidence.tensors import read_data
from planner.ir import Evidence, Site

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

MATCHED = 512
"""Most rows that are matched: the Hungarian method takes their number cubed."""

_POINTS = 64
_WRAPPERS = ("state_dict", "model_state_dict", "model", "module")


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by its own keys. The content says what the file is, not its name.

    A safetensors file holds no code; all others are read by torch with ``weights_only``, which runs
    none. A state dict may stand in a dictionary under "state_dict", "model_state_dict", "model" or
    "module".

    Raises:
        EvidenceError: the file is missing, cut off, of another kind, or has no state dict.
    """
    import torch

    found: Any = read_data(Path(path))
    while isinstance(found, Mapping) and not _is_state(found):
        inner = next((found[key] for key in _WRAPPERS if isinstance(found.get(key), Mapping)), None)
        if inner is None:
            break
        found = inner
    if not isinstance(found, Mapping) or not _is_state(found):
        raise EvidenceError(
            f"{path} holds no state dict of tensors, also not under {', '.join(_WRAPPERS)}"
        )
    return {key: value for key, value in found.items() if isinstance(value, torch.Tensor)}


def match_weights(
    file: str, state: Mapping[str, Tensor], sites: Sequence[Site]
) -> dict[str, NDArray[np.float64]]:
    """The trained matrix (rows × columns) of each shareable site, less its fixed mean.

    Keys may all have one prefix ("module.", "model.", "_orig_mod."), whatever it is; a site is
    found under any of its names.

    Raises:
        EvidenceError: a trainable parameter is missing or has another shape, or a value is not a
            finite number.
    """
    import torch

    trained = [site for site in sites if site.trainable and site.size]
    prefix = _prefix(state, trained)
    keys = {
        site.name: next(
            (prefix + name for name in (site.name, *site.aliases) if prefix + name in state), None
        )
        for site in trained
    }
    missing = [name for name, key in keys.items() if key is None]
    if missing:
        raise EvidenceError(
            f"{file} lacks {len(missing)} of the model's {len(trained)} parameters, {missing[0]!r} "
            "first: give a checkpoint of this model"
        )
    found = {}
    for site in trained:
        value = state[keys[site.name] or ""]
        if tuple(value.shape) != site.shape:
            theirs, ours = ("x".join(map(str, s)) or "()" for s in (value.shape, site.shape))
            raise EvidenceError(
                f"{file}: {site.name} has shape {theirs}, the model's {ours}: build the model with "
                "the arguments that it was trained with"
            )
        if not value.is_floating_point() or value.is_sparse:
            raise EvidenceError(
                f"{file}: {site.name} is {value.dtype}, not floating-point: give a checkpoint that "
                "is not quantised"
            )
        if not bool(torch.isfinite(value).all()):
            raise EvidenceError(f"{file}: {site.name} holds NaN or infinity: training diverged")
        if site.shareable:
            # By way of float64, as numpy has no bfloat16.
            matrix = value.detach().double().reshape(site.matrix).numpy()
            found[site.name] = matrix - (site.initial.mean if site.initial.std > 0 else 0.0)
    return found


def checkpoint_evidence(
    sites: Sequence[Site], weights: Mapping[str, NDArray[np.float64]], source: str
) -> Evidence:
    """Candidate groups, dissimilarity and importance; the module's text says how.

    Args:
        sites: all sites of the model, in its order.
        weights: trained matrices by site, of :func:`match_weights`.
        source: what the evidence is called.
    """
    shareable = [site for site in sites if site.shareable]
    spectra = {site.name: _spectrum(weights[site.name]) for site in shareable}
    found = []
    for members in by_dtype(sites):
        distances = _distances(members, weights, spectra)
        found += candidates(members, distances, clusters(distances))
    return replace(gathered(source, found, sites), importance=_importance(shareable, spectra))


def _importance(
    sites: Sequence[Site], spectra: Mapping[str, NDArray[np.float64]]
) -> tuple[tuple[str, float], ...]:
    flat = {}
    for site in sites:
        shares = spectra[site.name]
        shares = shares[shares > 0]
        entropy = -float((shares * _log(shares)).sum())
        flat[site.name] = math.exp(entropy) / max(1, min(site.matrix))
    elements = sum(site.size for site in sites)
    mean = sum(flat[site.name] * site.size for site in sites) / max(1, elements) or 1.0
    return tuple(
        (site.name, round(min(2.0, max(0.5, flat[site.name] / mean)), 2)) for site in sites
    )


def _log(values: NDArray[np.float64]) -> NDArray[np.float64]:
    import numpy as np

    result: NDArray[np.float64] = np.log(values)
    return result


def _spectrum(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shares of the squared norm, greatest first: equal ones where the tensor is all zero."""
    import numpy as np

    small = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    energies = np.clip(np.linalg.eigvalsh(small @ small.T)[::-1], 0.0, None)
    total = energies.sum()
    result: NDArray[np.float64] = (
        energies / total if total > 0 else np.full(len(energies), 1.0 / len(energies))
    )
    return result


def _curve(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cumulative shares, greatest first, at equal steps of the fraction of their number."""
    import numpy as np

    total = shares.sum()
    ordered = np.sort(shares)[::-1] / total if total > 0 else np.full(len(shares), 1 / len(shares))
    along = np.linspace(0.0, 1.0, len(shares) + 1)
    result: NDArray[np.float64] = np.interp(
        (np.arange(_POINTS) + 0.5) / _POINTS, along, np.concatenate([[0.0], np.cumsum(ordered)])
    )
    return result


def _distances(
    members: Sequence[Site],
    weights: Mapping[str, NDArray[np.float64]],
    spectra: Mapping[str, NDArray[np.float64]],
) -> NDArray[np.float64]:
    """Pairwise distances of sites, by the formula of the module's docstring."""
    import numpy as np

    matrices = [weights[site.name] for site in members]
    floor = np.finfo(np.float64).tiny
    scales = np.log([max(floor, float(np.sqrt(np.mean(one**2)))) for one in matrices])
    total = np.minimum(1.0, (np.abs(scales[:, None] - scales[None, :]) / math.log(50)) ** 2)
    for curves in (
        np.array([_curve(spectra[site.name]) for site in members]),
        np.array([_curve((one**2).sum(axis=1)) for one in matrices]),
    ):
        total += 0.5 * np.abs(curves[:, None] - curves[None, :]).mean(axis=2)
    total = np.minimum(1.0, total)
    for a, one in enumerate(members):
        for b in range(a):
            if one.shape == members[b].shape:
                likeness = _cosine(matrices[a], matrices[b]) ** 2
                total[a, b] = total[b, a] = total[a, b] * (1.0 - likeness)
    # Rounding makes equal distances equal whatever the order of summation.
    rounded: NDArray[np.float64] = np.round(total, 6)
    return rounded


def _cosine(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """The cosine of two matrices, the rows of one permuted to come nearest to the other."""
    import numpy as np

    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    if norms == 0.0:
        return 0.0
    if len(a) > MATCHED:
        return min(1.0, abs(float((a * b).sum())) / norms)
    from scipy.optimize import linear_sum_assignment

    products = a @ b.T
    rows, columns = linear_sum_assignment(products, maximize=True)
    return min(1.0, max(0.0, float(products[rows, columns].sum()) / norms))


def _prefix(state: Mapping[str, Tensor], sites: Sequence[Site]) -> str:
    """The prefix under which most of the sites' names are keys, the shortest of equal ones."""
    if not sites:
        return ""
    first = sites[0].name
    others = {key.removesuffix(first) for key in state if key.endswith(f".{first}")}
    return max(
        sorted({"", *others}, key=lambda one: (len(one), one)),
        key=lambda prefix: sum(prefix + site.name in state for site in sites),
    )


def _is_state(found: Mapping[Any, Any]) -> bool:
    """Whether it maps names to tensors; metadata without tensors may stand among them."""
    import torch

    return any(isinstance(value, torch.Tensor) for value in found.values()) and all(
        isinstance(key, str) and not isinstance(value, Mapping) for key, value in found.items()
    )
