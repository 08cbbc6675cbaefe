"""Candidate groups from clusters of sites that something other than structure has found."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from planner.evidence.shape import Kind, windows
from planner.ir import CandidateGroup, Evidence, Site

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def by_dtype(sites: Sequence[Site]) -> list[list[Site]]:
    """The shareable sites in order, one list a dtype in the order of their first sites."""
    found: dict[str, list[Site]] = {}
    for site in sites:
        if site.shareable:
            found.setdefault(site.dtype, []).append(site)
    return list(found.values())


def candidates(
    members: Sequence[Site], distances: NDArray[np.float64], clusters: Iterable[Sequence[int]]
) -> list[tuple[tuple[str, ...], tuple[float, ...]]]:
    """(names, dissimilarities) of each cluster, split by ``STD_WINDOW``, and of each site alone.

    A bank has one standard deviation, whatever else makes its sites alike: hence the split.
    Dissimilarity is the mean distance to the group's elements, a site's own among them, in
    hundredths: finer than that tells sites apart for the solver and means nothing.
    """
    import numpy as np

    kinds = [Kind((index,), site, site.depth) for index, site in enumerate(members)]
    parts: set[tuple[int, ...]] = {(index,) for index in range(len(members))}
    for cluster in clusters:
        parts.update(tuple(sorted(part)) for part in windows(kinds, tuple(sorted(cluster))))
    found = []
    for part in parts:
        weights = np.array([float(members[index].size) for index in part])
        means = distances[np.ix_(part, part)] @ (weights / weights.sum())
        names = tuple(members[index].name for index in part)
        found.append((names, tuple(round(min(1.0, float(mean)), 2) for mean in means)))
    return found


def gathered(
    source: str, found: Iterable[tuple[tuple[str, ...], tuple[float, ...]]], sites: Sequence[Site]
) -> Evidence:
    """Evidence with the groups ``found``, named from the largest to the smallest."""
    place = {site.name: index for index, site in enumerate(sites)}
    ordered = sorted(found, key=lambda one: (-len(one[0]), [place[name] for name in one[0]]))
    return Evidence(
        source,
        tuple(
            CandidateGroup(f"g{index}", names, unlike)
            for index, (names, unlike) in enumerate(ordered)
        ),
    )
