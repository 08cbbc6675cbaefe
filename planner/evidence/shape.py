"""Evidence from structure alone: which sites are alike enough to share a bank.

Sites of one owner type, parameter name, shape, dtype and initialiser form a *class*. The distance
of two classes in [0, 1] is a sum of terms, capped at 1 (``_distances``):

    d = (ln(σ_a / σ_b) / ln 50)²            standard deviations of the initialisers
      + 0.10 · [owner types differ]
      + 0.06 · [parameter names differ]
      + 0.10 · |ln(k_a / k_b)| / ln 49      k: elements per pair of channels (kernel size)
      + 0.05 · |ln(aspect_a / aspect_b)| / ln 1000
      + 0.05 · |ln(n_a / n_b)| / ln 1000
      + 0.03 · [roles differ] + 0.03 · |depth_a - depth_b| / greatest depth

Average-linkage clustering of the classes, cut at ``HEIGHTS``, gives clusters; each cluster, split
where its standard deviations span more than ``STD_WINDOW``, gives candidate groups. The split is
what sharing must not ignore: a bank is stored at one standard deviation, and the square of a site's
fixed factor σ_site / σ_bank multiplies the learning rate of all that it reads. With the bank at the
middle of a window of 2, a step of gradient descent moves a generated weight by 1/2 to 2 times what
it moves the dense one. The rest is a preference, weak enough for sharing across kinds when the
budget is low.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from planner.ir import CandidateGroup, Evidence, Initial, Site, significant

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

STD_WINDOW = 2.0
"""Greatest ratio of the standard deviations within a group."""
HEIGHTS = (0.01, 0.03, 0.06, 0.1, 0.16, 0.25, 0.4, 0.65)

_STD_RATIO = 50.0
_OWNER, _PARAMETER, _KERNEL, _ASPECT, _SIZE, _ROLE, _DEPTH = (
    0.10,
    0.06,
    0.10,
    0.05,
    0.05,
    0.03,
    0.03,
)


@dataclass(frozen=True, slots=True)
class Kind:
    """Sites that structure cannot tell apart, by index."""

    sites: tuple[int, ...]
    first: Site
    depth: float

    @property
    def elements(self) -> int:
        """Of all its sites."""
        return self.first.size * len(self.sites)


def shape_evidence(sites: Sequence[Site]) -> Evidence:
    """Candidate groups from shapes, kinds, initialisers, roles and depths; no data is needed.

    Groups are classes on their own, clusters at each of ``HEIGHTS``, and all shareable sites of one
    dtype, the latter two split by ``STD_WINDOW``. One class is in at most ``len(HEIGHTS) + 2`` of
    them. Names (``g0``, ``g1``, …) go from the largest group to the smallest.
    """
    found: dict[tuple[int, ...], tuple[float, ...]] = {}
    kinds = _kinds(sites)
    for dtype in sorted({kind.first.dtype for kind in kinds}):
        alike = [kind for kind in kinds if kind.first.dtype == dtype]
        distances = _distances(alike)
        wholes = clusters(distances)
        for cluster in sorted({part for whole in wholes for part in windows(alike, whole)}):
            unlike = _dissimilarity(alike, distances, cluster)
            pairs = [
                (site, value)
                for kind, value in zip(cluster, unlike, strict=True)
                for site in alike[kind].sites
            ]
            pairs.sort()
            found[tuple(site for site, _ in pairs)] = tuple(value for _, value in pairs)
    ordered = sorted(found.items(), key=lambda item: (-len(item[0]), item[0]))
    return Evidence(
        source="shape",
        groups=tuple(
            CandidateGroup(f"g{index}", tuple(sites[member].name for member in members), unlike)
            for index, (members, unlike) in enumerate(ordered)
        ),
    )


def dissimilarity(sites: Sequence[Site]) -> tuple[float, ...]:
    """How unlike the others each of ``sites`` would be in a group of them all, from shapes."""
    kinds = _kinds(sites)
    values = _dissimilarity(kinds, _distances(kinds), tuple(range(len(kinds))))
    of = {index: value for kind, value in zip(kinds, values, strict=True) for index in kind.sites}
    return tuple(of[index] for index in range(len(sites)))


def grouped_evidence(
    sites: Sequence[Site], groups: Sequence[Sequence[str]], like: Evidence
) -> Evidence:
    """Given groups, by names of shareable sites, at the price that shape evidence asks.

    Dissimilarity is the mean distance to the group's elements. It is 1, the greatest, for sites
    that ``STD_WINDOW`` keeps out of a group: their standard deviation is more than its square root
    away from where the bank is stored, in the middle of the group's. Source and importance are
    those of ``like``.
    """
    import numpy as np

    kinds = _kinds(sites)
    distances = _distances(kinds)
    kind_of = {sites[index].name: k for k, kind in enumerate(kinds) for index in kind.sites}
    found = []
    for number, members in enumerate(groups):
        here = [kind_of[name] for name in members]
        elements = np.zeros(len(kinds))
        for kind in here:
            elements[kind] += kinds[kind].first.size
        means = distances @ (elements / elements.sum())
        deviations = [sigma(kinds[kind].first) for kind in here]
        middle = math.sqrt(min(deviations) * max(deviations))
        furthest = 0.5 * math.log(STD_WINDOW) + 1e-5
        unlike = tuple(
            significant(min(1.0, float(means[kind])), 4)
            if abs(math.log(deviation / middle)) <= furthest
            else 1.0
            for kind, deviation in zip(here, deviations, strict=True)
        )
        found.append(CandidateGroup(f"g{number}", tuple(members), unlike))
    return Evidence(like.source, tuple(found), like.importance)


def sigma(site: Site) -> float:
    """The standard deviation a generated tensor is scaled for.

    A tensor that starts at a constant has none of its own: 1/√columns keeps the variance of what
    passes through it, so it stands in.
    """
    return site.initial.std if site.initial.std > 0 else 1.0 / math.sqrt(max(1, site.matrix[1]))


def _kinds(sites: Sequence[Site]) -> list[Kind]:
    grouped: dict[tuple[str, str, tuple[int, ...], str, Initial], list[int]] = {}
    for index, site in enumerate(sites):
        if site.shareable:
            key = (site.owner, site.parameter, site.shape, site.dtype, site.initial)
            grouped.setdefault(key, []).append(index)
    return [
        Kind(
            tuple(members),
            sites[members[0]],
            sum(sites[index].depth for index in members) / len(members),
        )
        for members in grouped.values()
    ]


def _distances(kinds: Sequence[Kind]) -> NDArray[np.float64]:
    """Pairwise distances of classes, by the formula of the module's docstring."""
    import numpy as np

    def spread(values: Sequence[float], whole: float) -> NDArray[np.float64]:
        column = np.array(values, dtype=np.float64)
        gaps: NDArray[np.float64] = np.abs(column[:, None] - column[None, :]) / whole
        return gaps

    def differs(values: Sequence[str]) -> NDArray[np.float64]:
        labels = {value: index for index, value in enumerate(dict.fromkeys(values))}
        column = np.array([labels[value] for value in values])
        unequal: NDArray[np.float64] = (column[:, None] != column[None, :]).astype(np.float64)
        return unequal

    first = [kind.first for kind in kinds]
    kernels = [math.log(max(1, math.prod(site.shape[2:]))) for site in first]
    aspects = [math.log(max(1, site.matrix[0]) / max(1, site.matrix[1])) for site in first]
    deepest = max((kind.depth for kind in kinds), default=0.0)
    total = spread([math.log(sigma(site)) for site in first], math.log(_STD_RATIO)) ** 2
    total += _OWNER * differs([site.owner for site in first])
    total += _PARAMETER * differs([site.parameter for site in first])
    total += _KERNEL * spread(kernels, math.log(49))
    total += _ASPECT * spread(aspects, math.log(1000))
    total += _SIZE * spread([math.log(site.size) for site in first], math.log(1000))
    total += _ROLE * differs([site.role for site in first])
    total += _DEPTH * spread([kind.depth for kind in kinds], max(1.0, deepest))
    # Rounding makes equal distances equal whatever the order of summation.
    capped: NDArray[np.float64] = np.minimum(1.0, np.round(total, 6))
    return capped


def clusters(distances: NDArray[np.float64]) -> list[tuple[int, ...]]:
    """Each class, the clusters at each cut height, and the whole: distinct, sorted index tuples."""
    from sklearn.cluster import AgglomerativeClustering

    count = len(distances)
    found = {(index,) for index in range(count)} | {tuple(range(count))}
    if count > 1:
        tree = AgglomerativeClustering(
            n_clusters=None, distance_threshold=0.0, metric="precomputed", linkage="average"
        ).fit(distances)
        # node[i] is the cluster that class i belongs to so far; merges come in order of height.
        nodes: dict[int, tuple[int, ...]] = {index: (index,) for index in range(count)}
        merges = list(zip(tree.children_, tree.distances_, strict=True))
        for height in HEIGHTS:
            while len(nodes) > 1 and merges and merges[0][1] <= height:
                (left, right), _ = merges.pop(0)
                merged = nodes.pop(int(left)) + nodes.pop(int(right))
                nodes[2 * count - 1 - len(merges) - 1] = tuple(sorted(merged))
            found.update(nodes.values())
    return sorted(found)


def windows(kinds: Sequence[Kind], cluster: tuple[int, ...]) -> list[tuple[int, ...]]:
    """``cluster`` cut into parts whose standard deviations span at most ``STD_WINDOW``.

    Cuts are made from the standard deviation with the most elements outwards, so that the bulk of
    a cluster stays together.
    """
    left = list(cluster)
    parts: list[tuple[int, ...]] = []
    while left:
        levels = sorted({sigma(kinds[index].first) for index in left})
        best: tuple[int, float, list[int]] | None = None
        for low in levels:
            inside = [
                index
                for index in left
                if low <= sigma(kinds[index].first) <= low * STD_WINDOW * (1 + 1e-5)
            ]
            mass = sum(kinds[index].elements for index in inside)
            if best is None or (mass, -low) > best[:2]:
                best = mass, -low, inside
        if best is None:
            break
        parts.append(tuple(best[2]))
        left = [index for index in left if index not in best[2]]
    return parts


def _dissimilarity(
    kinds: Sequence[Kind], distances: NDArray[np.float64], cluster: tuple[int, ...]
) -> tuple[float, ...]:
    """Mean distance of each class to the elements of the cluster, its own among them."""
    import numpy as np

    weights = np.array([float(kinds[index].elements) for index in cluster])
    means = distances[np.ix_(cluster, cluster)] @ (weights / weights.sum())
    return tuple(significant(min(1.0, float(mean)), 4) for mean in means)
