"""From a solver's decision to banks and placements: where each site reads, and at what scale.

Rings are covered by *tapes*. The hash sites of a bank come first and read one run of chunks after
another; the windows of the other sites go on, in elements, from where the hashes stopped. A site
that reads the whole ring leaves the tape alone and starts at a golden fraction of its own, so that
no two of them see the ring alike.

Scales. A bank is stored at σ_b, the middle of its sites' σ times the fourth root of the reads per
parameter (``_bank_std`` says why), and a site multiplies what it reads by σ / (σ_b · gain).
Coefficients start at norm one (or ±1) and are multiplied by step = min(1, (σ · (n · count)^¼)⁻¹),
so that an optimiser's step on them moves the tensor no more than a step on the tensor itself
would.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from planner.evidence import sigma
from planner.formulation import Option, Problem
from planner.ir import Bank, Evidence, Placement, Site, significant
from planner.valuation import Decision

_GOLDEN = (math.sqrt(5) - 1) / 2
_LARGEST_STRIDE = 1 << 24
_DISTINCT_CHUNKS = 64

_Read = tuple[int, Option]


@dataclass(slots=True)
class _Plan:
    """A bank in the making: its sites (by index) with their options, in the model's order."""

    size: int
    unlike: float
    reads: list[_Read] = field(default_factory=list)


def place(
    sites: Sequence[Site],
    evidence: Evidence,
    problem: Problem,
    decision: Decision,
    seed: int,
    rule: str = "",
) -> tuple[tuple[Bank, ...], tuple[Placement, ...]]:
    """Banks, in the order of their first sites, and one placement per site in the sites' order.

    ``rule`` names the rule that decided, if it was not the solver.
    """
    plans = _plans(sites, evidence, problem, decision)
    placements = {site.name: _own(site, problem, index, rule) for index, site in enumerate(sites)}
    banks = []
    for number, plan in enumerate(plans):
        name = f"bank{number}"
        std = _bank_std(sites, plan)
        placed = list(_placed(sites, plan, problem.chunk, std, seed))
        offset = 0
        total = sum(_reads(option, sites[index], plan.size) for index, option in plan.reads)
        for placement in placed:
            placements[placement.site] = replace(
                placement,
                bank=name,
                reason=_reason(placement, name, len(placed), total / plan.size),
                coefficient=offset if placement.count else 0,
            )
            offset += placement.count
        banks.append(Bank(name, plan.size, offset, std, problem.chunk, plan.unlike))
    return tuple(banks), tuple(placements[site.name] for site in sites)


def _plans(
    sites: Sequence[Site], evidence: Evidence, problem: Problem, decision: Decision
) -> list[_Plan]:
    """Which sites make up a bank. Of a class that is split, the first sites keep their own."""
    shared: dict[int, list[_Read]] = {}
    plans = []
    for item, (choice, count) in zip(problem.classes, decision.choices, strict=True):
        if choice is None:
            continue
        option = item.options[choice]
        members = [(index, option) for index in item.sites[len(item.sites) - count :]]
        if option.group is not None:
            shared.setdefault(option.group, []).extend(members)
        elif option.generator == "tie":
            plans.append(_Plan(item.size, 0.0, members))
        else:
            plans += [_Plan(option.cost, 0.0, [member]) for member in members]
    for group, reads in shared.items():
        candidate = evidence.groups[group]
        unlike = dict(zip(candidate.members, candidate.dissimilarity, strict=True))
        elements = sum(sites[index].size for index, _ in reads)
        mean = sum(sites[index].size * unlike[sites[index].name] for index, _ in reads) / elements
        plans.append(_Plan(decision.sizes[group], significant(mean, 4), sorted(reads, key=_index)))
    return sorted(plans, key=lambda plan: plan.reads[0][0])


def _index(read: _Read) -> int:
    return read[0]


def _bank_std(sites: Sequence[Site], plan: _Plan) -> float:
    first, option = sites[plan.reads[0][0]], plan.reads[0][1]
    if option.generator == "lowrank":
        # The product of two factors of σ_b has σ_b² √r; with a scale of 1 / (σ √(O + I)) it is σ.
        rows, columns = first.matrix
        return significant(sigma(first) * ((rows + columns) / option.parameter) ** 0.25)
    # A step of gradient descent moves W by scale² times its own gradient and, as each parameter
    # is read c times with gradients that do not agree, by sqrt(c) times that in norm. With scales
    # around c^(-1/4) the move is as large as the dense weight's. The middle of the deviations keeps
    # all scales within sqrt(STD_WINDOW) of that.
    deviations = [sigma(sites[index]) for index, _ in plan.reads]
    reads = sum(_reads(option, sites[index], plan.size) for index, option in plan.reads)
    middle = math.sqrt(min(deviations) * max(deviations))
    return significant(middle * max(1.0, reads / plan.size) ** 0.25)


def _placed(
    sites: Sequence[Site], plan: _Plan, chunk: int, std: float, seed: int
) -> Iterator[Placement]:
    """Placements without bank, reason and offsets, hashes first."""
    chunks = -(-plan.size // chunk)
    tape, seen = 0, set[tuple[object, ...]]()
    hashes = [index for index, option in plan.reads if option.generator == "hash"]
    for index in hashes:
        full = sites[index].size // chunk
        yield _hash(sites[index], index, tape % chunks, chunks, full, std, seed, seen)
        tape += min(full, chunks)
    position = min(tape * chunk, plan.size) % plan.size
    whole, singles = 0, set[tuple[int, int]]()
    for index, option in plan.reads:
        if option.generator == "hash":
            continue
        site = sites[index]
        reads = _reads(option, site, plan.size)
        start = position
        if reads >= plan.size:
            start = whole * int(_GOLDEN * plan.size) % plan.size
            whole += 1
        else:
            position = (position + reads) % plan.size
        if option.generator == "mix" and option.parameter == 1:
            # The tape may come back to a start. All of the ring is read by then.
            while (site.size, start) in singles:
                start = (start + 1) % plan.size
            singles.add((site.size, start))
        # Tied sites are one tensor, and so have one deviation and mean.
        like = sites[plan.reads[0][0]] if option.generator == "tie" else site
        made = _windowed(like, option, start, plan.size, std)
        yield replace(made, site=site.name)


def _reads(option: Option, site: Site, size: int) -> int:
    """Elements of the bank that the site reads, at most those of its windows put together."""
    if option.generator == "mix":
        return option.parameter * site.size
    return min(site.size, size) if option.generator in {"repeat", "mask"} else site.size


def _hash(
    site: Site,
    index: int,
    start: int,
    chunks: int,
    full: int,
    std: float,
    seed: int,
    seen: set[tuple[object, ...]],
) -> Placement:
    """A permutation of its own for the site: no two sites of a bank may read the same sequence."""
    period = max(1, min(full, chunks))
    for attempt in range(1000):
        digest = hashlib.blake2b(f"{seed}/{index}/{attempt}".encode(), digest_size=8).digest()
        chosen = int.from_bytes(digest[:3], "big")
        stride = 1 + int.from_bytes(digest[3:], "big") % min(max(1, period - 1), _LARGEST_STRIDE)
        while math.gcd(stride, period) != 1:
            stride = stride % period + 1
        sequence = (site.size, *hash_reads(start, stride, chosen, chunks, full))
        if sequence not in seen:
            break
    seen.add(sequence)
    return Placement(
        site.name,
        "hash",
        "",
        start=start,
        stride=stride,
        seed=chosen,
        scale=significant(sigma(site) / std),
        mean=significant(site.initial.mean),
    )


def hash_reads(start: int, stride: int, seed: int, chunks: int, full: int) -> list[int]:
    """The first chunks that a hash reads, as ±(chunk + 1), by the formula of ``Placement``."""
    period = max(1, min(full, chunks))
    reads = []
    for j in range(min(full, _DISTINCT_CHUNKS)):
        chunk = (start + (stride * (j % period) + seed * (j // period)) % period) % chunks
        mixed = ((j + 1) * 2654435761 + seed * 668265263) % 2**32
        negative = ((mixed ^ (mixed >> 15)) * 1540483477 % 2**32) >> 31
        reads.append(-chunk - 1 if negative else chunk + 1)
    return reads


def _windowed(site: Site, option: Option, start: int, size: int, std: float) -> Placement:
    """The generators that read contiguous windows, and those with a bank of their own."""
    n, deviation = site.size, sigma(site)
    rows, columns = site.matrix
    placement = Placement(
        site.name,
        option.generator,
        "",
        scale=significant(deviation / std),
        mean=significant(site.initial.mean),
    )
    if option.generator == "tie":
        return placement
    if option.generator == "lowrank":
        scale = 1.0 / (deviation * math.sqrt(rows + columns))
        return replace(placement, rank=option.parameter, scale=significant(scale))
    count = option.cost
    placement = replace(
        placement,
        start=start,
        count=count,
        step=significant(min(1.0, 1.0 / (deviation * (n * count) ** 0.25))),
        zero=site.initial.std == 0,
    )
    if option.generator == "mix":
        k = option.parameter
        # Windows that together are longer than the ring are spread over it, else end to end.
        stride = n if k * n <= size else -(-(size - n) // (k - 1))
        return replace(placement, templates=k, stride=stride)
    if option.generator == "interpolate":
        high, wide = _resized(rows, columns, size)
        gain = _gain(rows, high) * _gain(columns, wide)
        return replace(
            placement,
            templates=option.parameter,
            rows=high,
            columns=wide,
            stride=size - high * wide,
            scale=significant(deviation / std / gain),
        )
    return placement


def _resized(rows: int, columns: int, size: int) -> tuple[int, int]:
    """Rows × columns of a template: two thirds of the ring, near the tensor's own aspect.

    Two templates then overlap by half and read the ring between them. That needs at least half of
    it, and less than all, or they would be one. Both hold for some template of any ring of two
    parameters or more.
    """
    best: tuple[float, int, int] | None = None
    for high in range(1, min(rows, size - 1) + 1):
        most = min(columns, (size - 1) // high)
        for wide in {most, min(most, max(1, 2 * size // (3 * high)))}:
            if 2 * high * wide < size:
                continue
            misfit = abs(math.log(3 * high * wide / (2 * size)))
            misfit += abs(math.log(high * columns / (wide * rows)))
            if best is None or (misfit, high, wide) < best:
                best = misfit, high, wide
    if best is None:
        raise AssertionError(f"no template of a ring of {size} resizes to {rows} by {columns}")
    return best[1], best[2]


def _gain(large: int, small: int) -> float:
    """Root mean square of a row that is linearly resized from ``small`` unit-variance elements.

    Output i lies at (i + ½) · small / large - ½, clamped to the row (align_corners is false); its
    two neighbours have weights f and 1 - f.
    """
    total = 0.0
    for i in range(large):
        at = max(0.0, (i + 0.5) * small / large - 0.5)
        f = at - math.floor(at) if at < small - 1 else 0.0
        total += f * f + (1 - f) * (1 - f)
    return math.sqrt(total / large)


def _own(site: Site, problem: Problem, index: int, rule: str) -> Placement:
    """The placement of a site that keeps its own parameters, with the reason why."""
    if site.kept is not None:
        reason = site.kept
    elif not site.trainable:
        reason = "it is not trained, and so costs nothing"
    elif pinned := next((one.pinned for one in problem.classes if index in one.sites), ""):
        reason = f"asked for: {pinned}"
    elif any(index in item.sites and not item.options for item in problem.classes):
        reason = "no generator of the menu can make it"
    elif rule:
        reason = f"the rule {rule!r} keeps it"
    else:
        reason = f"the solver keeps it: its {site.size} parameters are worth more than sharing them"
    return Placement(site.name, "own", reason)


def _reason(placement: Placement, bank: str, count: int, reads: float) -> str:
    """One line for people, on why the site is generated as it is."""
    if placement.generator == "lowrank":
        return f"a product of rank {placement.rank}, {bank}, by itself"
    others = f"{count - 1} other site" + ("s" if count != 2 else "")
    if placement.generator == "tie":
        return f"the same tensor as {others}, {bank}"
    if count == 1:
        return f"{bank} by itself, {reads:.3g} reads per parameter"
    return f"shares {bank} with {others}, {reads:.3g} reads per parameter"
