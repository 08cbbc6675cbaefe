"""Validity of an allocation, from the definitions of ``planner.ir`` alone.

Nothing here knows how an allocation is found: whatever the solver or a plan file says is counted,
covered and compared again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from planner.errors import AllocationError
from planner.ir import Allocation, Bank, Placement, Site

_WITH_COEFFICIENTS = frozenset({"mix", "interpolate", "repeat", "mask", "blend"})
_COMPARED_CHUNKS = 64

_Read = tuple[Site, Placement]


def parameter_count(sites: Sequence[Site], allocation: Allocation) -> int:
    """Trainable parameters of the emitted model: own tensors, banks and coefficients."""
    kept = {item.site for item in allocation.placements if item.generator == "own"}
    own = sum(site.size for site in sites if site.trainable and site.name in kept)
    return own + sum(bank.size + bank.coefficients for bank in allocation.banks)


def check(sites: Sequence[Site], allocation: Allocation) -> None:
    """Returns if the allocation is valid for these sites.

    Raises:
        AllocationError: a site without exactly one placement; a generator that the shapes or the
            bank rule out; more parameters than the budget; bank parameters that nothing reads;
            coefficients that overlap or are left over; two sites that would be one tensor.
    """
    _check_names(sites, allocation)
    readers: dict[str, list[_Read]] = {bank.name: [] for bank in allocation.banks}
    for site, placement in zip(sites, allocation.placements, strict=True):
        if placement.generator == "own":
            _require(placement.bank is None, site, "keeps its own parameters, yet names a bank")
            continue
        _require(site.trainable and site.kept is None, site, "must keep its own parameters")
        _require(placement.bank in readers, site, f"reads {placement.bank!r}, which is no bank")
        readers[placement.bank or ""].append((site, placement))
    for bank in allocation.banks:
        _check_bank(bank, readers[bank.name])
    count = parameter_count(sites, allocation)
    if count > allocation.budget:
        raise AllocationError(
            f"the allocation has {count} parameters, {count - allocation.budget} above its budget"
        )


def _require(holds: bool, site: Site, fault: str) -> None:
    if not holds:
        raise AllocationError(f"{site.name} {fault}")


def _check_names(sites: Sequence[Site], allocation: Allocation) -> None:
    names = [site.name for site in sites]
    placed = [placement.site for placement in allocation.placements]
    if names != placed:
        wrong = sorted({*names} ^ {*placed})
        raise AllocationError(
            "placements must be the model's sites, once each and in order"
            + (f"; {wrong[0]!r} is in one of them alone" if wrong else "")
        )
    banks = [bank.name for bank in allocation.banks]
    if len({*banks}) < len(banks):
        raise AllocationError("two banks have the same name")


def _check_bank(bank: Bank, reads: Sequence[_Read]) -> None:
    if bank.size < 1 or bank.chunk < 1 or not (math.isfinite(bank.std) and bank.std > 0):
        raise AllocationError(f"{bank.name} needs a size, a chunk and a standard deviation above 0")
    if not reads:
        raise AllocationError(f"no site reads {bank.name}")
    if len({site.dtype for site, _ in reads}) > 1:
        raise AllocationError(f"the sites of {bank.name} have several dtypes")
    for site, placement in reads:
        _check_placement(site, placement, bank)
    alone = [p.generator for _, p in reads if p.generator in {"lowrank", "tie"}]
    if (alone and len({p.generator for _, p in reads}) > 1) or alone.count("lowrank") > 1:
        raise AllocationError(f"{bank.name} must not be shared by {alone[0]} and others")
    _check_coefficients(bank, reads)
    _check_coverage(bank, reads)
    _check_distinct(bank, reads)


def _check_placement(site: Site, p: Placement, bank: Bank) -> None:
    """What the definition of each generator asks of its fields."""
    n, m = site.size, bank.size
    rows, columns = site.matrix
    _require(n > 0, site, "is empty and cannot be generated")
    _require(math.isfinite(p.mean), site, "has a mean that is not a number")
    _require(math.isfinite(p.scale) and p.scale > 0, site, "needs a scale above 0")
    _require(math.isfinite(p.step) and 0 < p.step <= 1, site, "needs a step in (0, 1]")
    _require(0 <= p.seed < 2**31, site, "needs a seed from 0 to 2^31 - 1")
    constant = site.initial.std == 0
    _require(p.zero == (constant and p.generator in _WITH_COEFFICIENTS), site, "starts wrongly")
    fits, count, extent = True, 0, m
    if p.generator == "mix":
        fits, count = n <= m and p.templates >= 1 and _differ(p, m), p.templates
    elif p.generator == "interpolate":
        fits = n > m and 1 <= p.rows <= rows and 1 <= p.columns <= columns
        fits = fits and p.rows * p.columns <= m and p.templates >= 1 and _differ(p, m)
        fits, count = fits and not constant, p.templates
    elif p.generator in {"repeat", "mask"}:
        window = -(-n // max(1, p.count))
        fits, count = m < n and window <= m, -(-n // window)
    elif p.generator == "hash":
        extent = -(-m // bank.chunk)
        period = max(1, min(n // bank.chunk, extent))
        fits = not constant and p.stride >= 1 and math.gcd(p.stride, period) == 1
    elif p.generator == "lowrank":
        fits = not constant and p.rank >= 1 and m == p.rank * (rows + columns) and m < n
    elif p.generator == "blend":
        fits, count = p.templates >= 2 and p.step == 1 and _differ(p, m), p.templates
    elif p.generator == "tie":
        fits = m == n and not constant
    _require(fits, site, f"cannot be made by {p.generator} from {bank.name} of {m} parameters")
    _require(p.count == count, site, f"has {p.count} coefficients where {count} are needed")
    _require(0 <= p.start < extent, site, f"starts at {p.start}, outside {bank.name}")


def _differ(p: Placement, m: int) -> bool:
    """Whether no two templates of a ring of ``m`` start at the same place."""
    return p.stride >= 0 and p.templates * math.gcd(p.stride, m) <= m


def _check_coefficients(bank: Bank, reads: Sequence[_Read]) -> None:
    """Coefficient ranges follow one another without gap or overlap, and are all there are."""
    ranges = sorted((p.coefficient, p.count, site.name) for site, p in reads if p.count)
    end = 0
    for start, count, name in ranges:
        if start != end:
            raise AllocationError(f"coefficients of {name} start at {start}, not at {end}")
        end += count
    if end != bank.coefficients:
        raise AllocationError(f"{bank.name} has {bank.coefficients} coefficients, {end} are used")


def _check_coverage(bank: Bank, reads: Sequence[_Read]) -> None:
    """Every parameter of the ring lies in an interval that a site reads."""
    pieces: list[tuple[int, int]] = []
    for start, length in (span for read in reads for span in _spans(bank, *read)):
        if length >= bank.size:
            return
        end = start + length
        pieces.append((start, min(end, bank.size)))
        if end > bank.size:
            pieces.append((0, end - bank.size))
    reached = 0
    for start, end in sorted(pieces):
        if start > reached:
            break
        reached = max(reached, end)
    if reached < bank.size:
        raise AllocationError(f"nothing reads parameter {reached} of {bank.name}")


def _spans(bank: Bank, site: Site, p: Placement) -> Iterator[tuple[int, int]]:
    """(start, length) of what a site reads, start within the ring."""
    n, m = site.size, bank.size
    if p.generator in {"mix", "interpolate", "blend"}:
        length = p.rows * p.columns if p.generator == "interpolate" else n
        for k in range(p.templates):
            yield (p.start + k * p.stride) % m, length
    elif p.generator in {"repeat", "mask"}:
        yield p.start, min(m, n)
    elif p.generator == "hash":
        chunks, full = -(-m // bank.chunk), n // bank.chunk
        period = max(1, min(full, chunks))
        if full >= chunks:
            yield 0, m
        else:
            # A run of chunks from start; the ring's last chunk wraps, as all that is read does.
            before = min(period if full else 0, chunks - p.start)
            yield p.start * bank.chunk, before * bank.chunk
            yield 0, ((period if full else 0) - before) * bank.chunk
            yield ((p.start + full) % chunks) * bank.chunk % m, n % bank.chunk
    else:
        yield 0, m


def _check_distinct(bank: Bank, reads: Sequence[_Read]) -> None:
    """No two sites read the same sequence without at least two coefficients to tell them apart."""
    seen: dict[tuple[object, ...], str] = {}
    for site, p in reads:
        if p.generator == "hash":
            key: tuple[object, ...] = (site.size, *_sequence(bank, site, p))
        elif p.generator == "mix" and p.templates == 1:
            key = ("mix", site.size, p.start)
        else:
            continue
        if key in seen:
            raise AllocationError(f"{site.name} and {seen[key]} would be the same tensor")
        seen[key] = site.name


def _sequence(bank: Bank, site: Site, p: Placement) -> Iterator[tuple[int, int]]:
    """Chunk and sign of the first chunks that a hash reads."""
    chunks, full = -(-bank.size // bank.chunk), site.size // bank.chunk
    period = max(1, min(full, chunks))
    for j in range(min(max(full, 1), _COMPARED_CHUNKS)):
        turn, place = divmod(j, period)
        word = ((j + 1) * 2654435761 + p.seed * 668265263) & 0xFFFFFFFF
        sign = (((word ^ (word // 32768)) * 1540483477) & 0xFFFFFFFF) >> 31
        yield (p.start + (p.stride * place + p.seed * turn) % period) % chunks, sign
