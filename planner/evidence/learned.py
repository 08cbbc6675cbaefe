"""Evidence from a trained probe: sites that came to mix their templates alike.

A probe (``planner.probing``) gives every shareable site K coefficients c, and mixes by
p = softmax(c). K-means (scikit-learn, squared Euclidean distance, 10 starts, a fixed seed) on the
p of one dtype makes k clusters. How many groups there are is

- ``silhouette``, the default: the k from 2 to ``MOST_GROUPS`` with the greatest mean silhouette
  (b - a) / max(a, b), a the mean distance to a site's own cluster, b to the nearest other
  (Rousseeuw 1987). Below ``STRUCTURE``, where Kaufman and Rousseeuw see no substantial structure,
  it is 1. Of equal ones the least k counts.
- N, as the user says (no more than there are distinct p).
- ``any``: the clusterings for all k = 1 … ``MOST_GROUPS`` are candidates, and the solver chooses
  among them by what the budget allows. It is no default because each site is then in up to
  ``MOST_GROUPS`` + 1 groups with distances of its own, which makes the search slow for models of
  hundreds of sites.

A site's distance to another is the total variation ½ Σ_k |p_k - q_k| in [0, 1]: the share of the
mixture in which the two differ. Clusters become candidate groups as ``planner.evidence.candidates``
says; sites also stand alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias

from planner.errors import EvidenceError
from planner.evidence.candidates import by_dtype, candidates, gathered
from planner.ir import Evidence, Site

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

SPREAD = 0.01
"""Standard deviation of a probe's coefficients at the start, as ``probe.py.jinja`` has it.

Below twice that, what is in a file cannot be told from the start, and is refused.
"""
MOST_GROUPS = 8
STRUCTURE = 0.25
"""Mean silhouette below which all sites are one group."""

Groups: TypeAlias = "int | Literal['silhouette', 'any']"

_KEY = re.compile(r"(?:.*\.)?(?:banks_?|parameter_banks)\.bank([0-9]{1,9})\.coefficients")


def read_coefficients(file: str, tensors: Mapping[str, Tensor]) -> list[NDArray[np.float64]]:
    """The coefficients of a probe's banks in their order, each flat.

    Raises:
        EvidenceError: there are none, or they are not vectors of finite numbers.
    """
    import numpy as np

    found: dict[int, NDArray[np.float64]] = {}
    for key, value in tensors.items():
        number = _KEY.fullmatch(key)
        if number is None:
            continue
        if int(number[1]) in found:
            raise EvidenceError(f"{file} has coefficients of bank{number[1]} twice")
        if not value.is_floating_point() or value.dim() != 1 or not value.numel():
            shape = "x".join(map(str, value.shape))
            raise EvidenceError(f"{file}: {key} is {value.dtype} of shape {shape}, not a vector")
        found[int(number[1])] = value.detach().double().numpy()
        if not np.isfinite(found[int(number[1])]).all():
            raise EvidenceError(
                f"{file}: {key} holds NaN or infinity: the probe's training diverged; train it "
                "again at a lower learning rate"
            )
    if not found:
        raise EvidenceError(
            f"{file} has no coefficients (banks.bank0.coefficients): give the state dict of a "
            "trained probe, which npas probe makes"
        )
    return [found[number] for number in sorted(found)]


def learned_evidence(
    sites: Sequence[Site],
    coefficients: Sequence[NDArray[np.float64]],
    source: str,
    groups: Groups = "silhouette",
) -> Evidence:
    """Candidate groups of sites that mix alike; the module's text says how.

    Args:
        sites: all sites of the model, in its order.
        coefficients: per bank of the probe, those of its S sites, K each: S · K numbers.
        source: what the evidence is called.
        groups: how many there are, a dtype.

    Raises:
        EvidenceError: the coefficients are those of another model, or hardly trained.
    """
    import numpy as np

    members = by_dtype(sites)
    expected = "; ".join(f"{len(one)} sites of {one[0].dtype}" for one in members) or "no sites"
    fault = f"evidence {source!r} is not of a probe of this model, which has {expected} to share: "
    if len(coefficients) != len(members):
        raise EvidenceError(f"{fault}it has {len(coefficients)} banks with coefficients")
    for one, flat in zip(members, coefficients, strict=True):
        if len(flat) % len(one) or len(flat) < 2 * len(one):
            raise EvidenceError(f"{fault}it has {len(flat)} coefficients for {len(one)} sites")
    if len({len(flat) // len(one) for one, flat in zip(members, coefficients, strict=True)}) > 1:
        raise EvidenceError(f"{fault}its banks differ in their number of templates")
    found = []
    for one, flat in zip(members, coefficients, strict=True):
        rows = flat.reshape(len(one), -1)
        if (rows - rows.mean(axis=1, keepdims=True)).std() < 2 * SPREAD:
            raise EvidenceError(
                f"evidence {source!r}: the probe's coefficients are still about where they started;"
                " train it longer, or its coefficients at a higher learning rate"
            )
        mixtures = softmax(rows)
        # Rounded, so that the last digits of a machine's exponential decide nothing.
        distances = np.round(0.5 * np.abs(mixtures[:, None] - mixtures[None, :]).sum(axis=2), 6)
        found += candidates(one, distances, clusters(mixtures, groups))
    return gathered(source, found, sites)


def softmax(coefficients: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each row."""
    import numpy as np

    powers = np.exp(coefficients - coefficients.max(axis=1, keepdims=True))
    result: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return result


def clusters(mixtures: NDArray[np.float64], groups: Groups) -> list[list[int]]:
    """Rows of ``mixtures`` that belong together."""
    import numpy as np
    from sklearn.metrics import silhouette_score

    points = np.round(mixtures, 6)
    distinct = len(np.unique(points, axis=0))
    if isinstance(groups, int):
        return _parts(_means(points, min(groups, distinct)))
    most = min(MOST_GROUPS, distinct)
    if groups == "any":
        labels = [_means(points, count) for count in range(1, most + 1)]
        return [part for one in labels for part in _parts(one)]
    best, chosen = STRUCTURE, np.zeros(len(points), dtype=int)
    for count in range(2, min(most, len(points) - 1) + 1):
        labelled = _means(points, count)
        score = round(float(silhouette_score(points, labelled)), 6)
        if score > best:
            best, chosen = score, labelled
    return _parts(chosen)


def _means(points: NDArray[np.float64], count: int) -> NDArray[np.int_]:
    from sklearn.cluster import KMeans

    labels: NDArray[np.int_] = KMeans(count, n_init=10, random_state=0).fit_predict(points)
    return labels


def _parts(labels: NDArray[np.int_]) -> list[list[int]]:
    """The clusters, each as sorted indices, in the order of their first."""
    found: dict[int, list[int]] = {}
    for index, label in enumerate(labels.tolist()):
        found.setdefault(label, []).append(index)
    return list(found.values())
