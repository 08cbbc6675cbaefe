"""Evidence from gradients: sites that want the same of the parameters that they share.

A probe's ``GradientRecorder`` averages the dot products M of the sites' gradients on the ring that
all of them read. With cos = M_ij / √(M_ii M_jj), the distance of two sites is (1 - cos) / 2, from 0
to 1. A count-sketch of w numbers estimates a cosine to within about 1/√w; what is below four times
that in size counts as 0. Most pairs have nothing to do with each other, and half of them would be
in conflict by chance. Sites in conflict (cos < 0, a distance above ½) are in no candidate group
together: complete linkage (scikit-learn) joins clusters by their furthest pair, and is cut at
``HEIGHTS``, the last of which joins whatever is not in conflict. (SuperWeights, WACV 2024, groups
by gradients in place of weights.)
A site without gradient agrees with none and conflicts with none: its distances are ½.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from planner.errors import EvidenceError
from planner.evidence.candidates import by_dtype, candidates, gathered
from planner.ir import Evidence, Site

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

HEIGHTS = (0.1, 0.2, 0.3, 0.4, 0.499, 0.5005)
_CHANCE = 4.0
"""Deviations of an estimate: one pair in thirty thousand looks like a conflict by chance."""
_CONFLICT = 0.501
"""Least distance of sites in conflict."""


@dataclass(frozen=True, slots=True, eq=False)
class Agreement:
    """Sites by name, mean dot products of their gradients by row, and the width of sketches."""

    file: str
    names: tuple[str, ...]
    products: NDArray[np.float64]
    width: int


def read_agreement(file: str, tensors: Mapping[str, Tensor]) -> Agreement:
    """What ``GradientRecorder.save`` wrote.

    Raises:
        EvidenceError: something is missing or not of the shape, dtype or values that it has there.
    """
    import numpy as np
    import torch

    for key in ("agreement", "sites", "steps", "width"):
        if key not in tensors:
            raise EvidenceError(f"{file} has no {key!r}: give what GradientRecorder.save wrote")
    text, products, steps = tensors["sites"], tensors["agreement"], tensors["steps"]
    if text.dtype != torch.uint8 or text.dim() != 1:
        raise EvidenceError(f"{file}: 'sites' holds no names, but {text.dtype}")
    if steps.numel() != 1 or steps.is_floating_point() or int(steps) < 1:
        raise EvidenceError(f"{file} has recorded no step: train within the recorder's context")
    width = tensors["width"]
    if width.numel() != 1 or width.is_floating_point() or int(width) < 1:
        raise EvidenceError(f"{file}: 'width' is not one number from 1")
    try:
        names = tuple(bytes(text.tolist()).decode().split("\n"))
    except UnicodeDecodeError:
        raise EvidenceError(f"{file}: 'sites' holds no names") from None
    if not products.is_floating_point() or products.shape != (len(names), len(names)):
        shape = "x".join(map(str, products.shape))
        raise EvidenceError(f"{file}: 'agreement' is {shape}, with {len(names)} sites")
    values = products.detach().double().numpy()
    if not np.isfinite(values).all():
        raise EvidenceError(f"{file}: 'agreement' holds NaN or infinity: the training diverged")
    if (values.diagonal() < 0).any() or not np.allclose(values, values.T):
        raise EvidenceError(f"{file}: 'agreement' is no matrix of dot products")
    return Agreement(file, names, values, int(width))


def gradient_evidence(sites: Sequence[Site], agreement: Agreement, source: str) -> Evidence:
    """Candidate groups of sites whose gradients agree.

    Raises:
        EvidenceError: the sites are not those of the file.
    """
    import numpy as np

    row = {name: index for index, name in enumerate(agreement.names)}
    wanted = {site.name for site in sites if site.shareable}
    if wanted != row.keys() or len(row) < len(agreement.names):
        odd = sorted(wanted ^ row.keys()) or ["a site twice"]
        raise EvidenceError(
            f"evidence {source!r} is not of a probe of this model: {odd[0]!r} is in one of them "
            "alone"
        )
    found = []
    for members in by_dtype(sites):
        places = [row[site.name] for site in members]
        distances = conflict(agreement.products[np.ix_(places, places)], agreement.width)
        found += candidates(members, distances, _clusters(distances))
    return gathered(source, found, sites)


def conflict(products: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """(1 - cos) / 2 of each pair, 0 of a site with itself; the cosine 0 where it may be chance."""
    import numpy as np

    norms = np.sqrt(products.diagonal())
    lengths = norms[:, None] * norms[None, :]
    cosines = np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)
    cosines[np.abs(cosines) < _CHANCE / np.sqrt(width)] = 0.0
    # Rounded for equal results on all machines; a conflict stays one, however slight.
    distances: NDArray[np.float64] = np.round((1 - np.clip(cosines, -1, 1)) / 2, 6)
    distances = np.where(cosines < 0, np.maximum(distances, _CONFLICT), distances)
    np.fill_diagonal(distances, 0.0)
    return distances


def _clusters(distances: NDArray[np.float64]) -> list[list[int]]:
    """Those at each of ``HEIGHTS``."""
    from sklearn.cluster import AgglomerativeClustering

    found: set[tuple[int, ...]] = set()
    if len(distances) < 2:
        return []
    for height in HEIGHTS:
        labels = AgglomerativeClustering(
            n_clusters=None, distance_threshold=height, metric="precomputed", linkage="complete"
        ).fit_predict(distances)
        parts: dict[int, list[int]] = {}
        for index, label in enumerate(labels.tolist()):
            parts.setdefault(label, []).append(index)
        found.update(tuple(part) for part in parts.values())
    return [list(part) for part in sorted(found)]
