"""The same architecture at less width: what a budget buys without sharing.

It is no allocation, as the tensors have other shapes. It is reported beside the allocators.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from planner.ir import Program, Site
from planner.topology import layer_graph, nearest, places

_STEPS = 10**6
_Call = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Narrow:
    """A model whose hidden widths are ``factor`` times the original's.

    Attributes:
        factor: in steps of a millionth; 0 if even hidden widths of 1 are above the budget.
        count: its trainable parameters.
        fits: whether they are within the budget.
    """

    factor: float
    count: int
    fits: bool


def narrow(program: Program, sites: Sequence[Site], budget: int) -> Narrow:
    """The widest that has at most ``budget`` trainable parameters.

    Hidden axes are those of ``hidden_axes``; a length L becomes max(1, round(factor · L)). That
    heads or groups would have to divide the widths is not asked.
    """
    hidden = hidden_axes(program, sites)
    trained = [site for site in sites if site.trainable]

    def count(steps: int) -> int:
        return sum(
            math.prod(
                max(1, (length * steps + _STEPS // 2) // _STEPS) if scaled else length
                for length, scaled in zip(site.shape, hidden[site.name], strict=True)
            )
            for site in trained
        )

    low, high = 0, _STEPS
    if count(0) > budget:
        return Narrow(0.0, count(0), fits=False)
    if any(any(axes) for axes in hidden.values()):
        while count(high) <= budget:
            low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(middle) <= budget else (low, middle)
    # Widths are whole, so that several factors give one model: 1 is the plainest.
    low = _STEPS if count(low) == count(_STEPS) else low
    return Narrow(low / _STEPS, count(low), fits=True)


def hidden_axes(program: Program, sites: Sequence[Site]) -> dict[str, tuple[bool, ...]]:
    """For each site, by name, which of its axes have a hidden width.

    What a layer makes is its first axis (the second where a convolution is transposed), what it
    reads the other. Both are hidden, unless the layer is the first with a matrix after an input, or
    the last before an output. Lengths of kernels, numbers of embeddings and axes of one element
    are kept. Vectors are hidden unless they scale inputs or outputs. A tensor that a block reads by
    itself has the axes hidden that are as long as a hidden axis of some layer.
    """
    graph = layer_graph(program)
    nodes = {path: path for path, _ in graph}
    own = {site.name for site in sites if site.name in nodes}
    # The layer that holds a site, or the site itself if a block reads it.
    where = {site.name: nearest(site.name, nodes) for site in sites}
    matrices = {
        nearest(name, nodes)
        for site in sites
        if min(site.matrix) > 1
        for name in (site.name, *site.aliases)
    } - own
    modules = {place.path for place in places(program)}
    starts = [node for node, degree in graph.in_degree() if not degree and node[0] in modules]
    stops = [node for node, degree in graph.out_degree() if not degree]
    first, before = _reached(graph.successors, starts, matrices)
    # A norm whose width no output has is no output: a tensor that is read by itself follows it.
    lengths = {length for output in program.example_outputs for length in output.shape}
    inner = {where[site.name] for site in sites if not lengths.intersection(site.shape)} - matrices
    stops = [node for node in stops if node[0] not in inner]
    last, after = _reached(graph.predecessors, stops, matrices)
    kept = before | after | last
    found: dict[str, tuple[bool, ...]] = {}
    widths: set[int] = set()
    for site in sites:
        path = where[site.name]
        if path in own:
            continue
        axes = [False] * len(site.shape)
        if len(axes) == 1:
            axes = [path not in kept]
        elif len(axes) > 1:
            made, read = (1, 0) if "Transpose" in site.owner else (0, 1)
            if "Embedding" in site.owner:
                made, read = 1, 0
            axes[made] = path not in last
            axes[read] = path not in first and "Embedding" not in site.owner
        found[site.name] = tuple(
            scaled and length > 1 for scaled, length in zip(axes, site.shape, strict=True)
        )
        if len(axes) > 1:
            widths.update(n for n, scaled in zip(site.shape, axes, strict=True) if scaled and n > 1)
    for site in sites:
        found.setdefault(site.name, tuple(length in widths for length in site.shape))
    return found


def _reached(
    neighbours: Callable[[_Call], Iterable[_Call]], ends: Iterable[_Call], matrices: set[str]
) -> tuple[set[str], set[str]]:
    """Paths of the nearest layers with a matrix from ``ends`` on, and of what lies before them."""
    found: set[str] = set()
    passed: set[str] = set()
    seen = set(pending := list(ends))
    while pending:
        node = pending.pop()
        if node[0] in matrices:
            found.add(node[0])
            continue
        passed.add(node[0])
        for other in neighbours(node):
            if other not in seen:
                seen.add(other)
                pending.append(other)
    return found, passed
