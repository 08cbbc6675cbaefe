"""The figures of a plan: what a report prints, as plain values."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from planner.ir import (
    Bank,
    Generator,
    Placement,
    Program,
    Rung,
    Site,
    Verification,
    significant,
)
from planner.patterns import collapse_names
from planner.topology import places

if TYPE_CHECKING:
    from planner.plans import Plan

_BITS = {"float64": 64, "float32": 32, "float16": 16, "bfloat16": 16}


@dataclass(frozen=True, slots=True)
class Totals:
    """Parameters unless said otherwise.

    ``emitted`` is the sum of ``banks``, ``coefficients`` and ``kept``; with ``unused`` it makes up
    ``budget``.

    Attributes:
        banks: parameters in banks.
        coefficients: mixing coefficients.
        kept: trainable parameters of sites that are not generated.
        frozen: parameters that are not trained, which no budget counts.
        unused: what the budget would still allow.
        compression: dense parameters per emitted one.
        gradient_bytes: what one step all-reduces.
        momentum_bytes: state of SGD with momentum, one value a trainable parameter.
        adam_bytes: state of Adam, two values a trainable parameter.
    """

    dense: int
    budget: int
    emitted: int
    banks: int
    coefficients: int
    kept: int
    frozen: int
    unused: int
    compression: float
    gradient_bytes: int
    momentum_bytes: int
    adam_bytes: int


@dataclass(frozen=True, slots=True)
class BankFigures:
    """A bank and its use.

    Attributes:
        templates: least and most that one site mixes; 1 where the bank is read as it is.
        elements: weights generated from it.
        reads: how often a parameter is read, on average, to generate them all once.
        compression: elements per parameter, coefficients included.
        std: standard deviation at which the bank is stored.
    """

    name: str
    parameters: int
    coefficients: int
    templates: tuple[int, int]
    sites: int
    elements: int
    reads: float
    compression: float
    std: float


@dataclass(frozen=True, slots=True)
class SiteFigures:
    """Sites that differ only by numbers in their names.

    Attributes:
        name: with the numbers gathered, ``layer3.{0..5}.conv1.weight``.
        count: how many they are.
        share: of the model's elements, all of them together.
    """

    name: str
    count: int
    shape: tuple[int, ...]
    generator: Generator
    detail: str
    bank: str | None
    elements: int
    share: float
    reason: str


@dataclass(frozen=True, slots=True)
class KeptFigures:
    """Sites that keep their own parameters for one reason, whatever numbers it mentions.

    Attributes:
        elements: parameters, of which ``trainable`` count against the budget.
    """

    reason: str
    sites: int
    elements: int
    trainable: int


@dataclass(frozen=True, slots=True)
class SolverFigures:
    """What the solver said; ``gap`` is relative, ``stopped`` what ended the search early."""

    allocator: str
    status: str
    objective: int
    bound: int
    gap: float
    stopped: str


@dataclass(frozen=True, slots=True)
class CaptureFigures:
    """How many modules were captured by one rung, and their classes in the emitted file."""

    rung: Rung
    modules: int
    classes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Summary:
    """All figures of a plan. ``dataclasses.asdict`` of it is plain JSON.

    ``obstacle`` says what stopped the capture of the model, which then cannot be emitted.
    ``verification`` is None where the plan does not say how its program was compared with the
    model.
    """

    model: str
    budget: str
    seed: int
    evidence: str
    digest: str
    captured: tuple[CaptureFigures, ...]
    obstacle: str
    verification: Verification | None
    totals: Totals
    banks: tuple[BankFigures, ...]
    generated: tuple[SiteFigures, ...]
    kept: tuple[KeptFigures, ...]
    notes: tuple[str, ...]
    constraints: tuple[str, ...]
    solver: SolverFigures


def _captured(program: Program) -> tuple[CaptureFigures, ...]:
    """Modules with a forward of their own, by the rung that captured them."""
    found: dict[Rung, list[str]] = {}
    rungs = {one.name: one.rung for one in program.definitions if one.train is not None}
    for place in places(program):
        if place.block and place.type in rungs:
            found.setdefault(rungs[place.type], []).append(place.type)
    return tuple(
        CaptureFigures(rung, len(types), tuple(dict.fromkeys(types)))
        for rung, types in sorted(found.items(), reverse=True)
    )


def summarise(plan: Plan, *, every_site: bool = False) -> Summary:
    """The figures of ``plan``; with ``every_site`` one row a site, its own or generated."""
    placements = {placement.site: placement for placement in plan.allocation.placements}
    pairs = [(site, placements[site.name]) for site in plan.sites]
    elements = max(1, sum(site.size for site in plan.sites))
    listed = [pair for pair in pairs if every_site or pair[1].generator != "own"]
    solution = plan.allocation.solution
    return Summary(
        model=plan.spec,
        budget=plan.budget,
        seed=plan.seed,
        evidence=plan.evidence,
        digest=plan.digest,
        captured=_captured(plan.program),
        obstacle=plan.program.obstacle,
        verification=plan.program.verification,
        totals=_totals(plan, pairs),
        banks=tuple(_bank(bank, pairs) for bank in plan.allocation.banks),
        generated=_rows(listed, elements, collapse=not every_site),
        kept=_kept(pairs),
        notes=plan.notes,
        constraints=plan.constraints,
        solver=SolverFigures(
            allocator=solution.allocator,
            status=solution.status,
            objective=solution.objective,
            bound=solution.bound,
            gap=significant(solution.gap),
            stopped=solution.stopped,
        ),
    )


def _totals(plan: Plan, pairs: Sequence[tuple[Site, Placement]]) -> Totals:
    dtypes = {placement.bank: site.dtype for site, placement in pairs if placement.bank}
    trainable = [
        (site.size, site.dtype)
        for site, placement in pairs
        if placement.generator == "own" and site.trainable
    ]
    trainable += [
        (bank.size + bank.coefficients, dtypes.get(bank.name, "float32"))
        for bank in plan.allocation.banks
    ]
    gradient_bytes = sum(size * _BITS.get(dtype, 32) // 8 for size, dtype in trainable)
    emitted = plan.parameter_count
    banks = sum(bank.size for bank in plan.allocation.banks)
    coefficients = sum(bank.coefficients for bank in plan.allocation.banks)
    return Totals(
        dense=plan.dense_parameters,
        budget=plan.budget_parameters,
        emitted=emitted,
        banks=banks,
        coefficients=coefficients,
        kept=sum(
            site.size
            for site, placement in pairs
            if placement.generator == "own" and site.trainable
        ),
        frozen=sum(site.size for site, _ in pairs if not site.trainable),
        unused=plan.budget_parameters - emitted,
        compression=significant(plan.dense_parameters / max(1, emitted)),
        gradient_bytes=gradient_bytes,
        momentum_bytes=gradient_bytes,
        adam_bytes=2 * gradient_bytes,
    )


def _bank(bank: Bank, pairs: Sequence[tuple[Site, Placement]]) -> BankFigures:
    users = [pair for pair in pairs if pair[1].bank == bank.name]
    elements = sum(site.size for site, _ in users)
    reads = sum(_reads(site, placement, bank) for site, placement in users)
    templates = [max(1, placement.templates) for _, placement in users] or [1]
    return BankFigures(
        name=bank.name,
        parameters=bank.size,
        coefficients=bank.coefficients,
        templates=(min(templates), max(templates)),
        sites=len(users),
        elements=elements,
        reads=significant(reads / max(1, bank.size)),
        compression=significant(elements / max(1, bank.size + bank.coefficients)),
        std=significant(bank.std),
    )


def _reads(site: Site, placement: Placement, bank: Bank) -> int:
    """Elements of the bank that are read to generate the site once."""
    if placement.generator == "mix":
        return placement.templates * site.size
    if placement.generator == "interpolate":
        return placement.templates * placement.rows * placement.columns
    if placement.generator == "lowrank":
        return bank.size
    return site.size


def _detail(placement: Placement) -> str:
    if placement.generator in ("mix", "interpolate"):
        return f"K={placement.templates}"
    if placement.generator == "mask":
        return f"c={placement.count}"
    if placement.generator == "lowrank":
        return f"r={placement.rank}"
    return ""


def _kept(pairs: Iterable[tuple[Site, Placement]]) -> tuple[KeptFigures, ...]:
    """One row a reason, numbers aside."""
    alike: dict[str, list[Site]] = {}
    for site, placement in pairs:
        if placement.generator == "own":
            alike.setdefault(_numberless(site.kept or placement.reason), []).append(site)
    rows = [
        KeptFigures(
            reason=reason,
            sites=len(members),
            elements=sum(site.size for site in members),
            trainable=sum(site.size for site in members if site.trainable),
        )
        for reason, members in alike.items()
    ]
    return tuple(sorted(rows, key=lambda row: (-row.elements, row.reason)))


def _numberless(reason: str) -> str:
    """``reason`` up to the colon that particulars follow, if they hold numbers."""
    head, _, particulars = reason.partition(":")
    return re.sub(r"[0-9][0-9.,_]*", "#", head if re.search("[0-9]", particulars) else reason)


def _rows(
    pairs: Sequence[tuple[Site, Placement]], elements: int, *, collapse: bool
) -> tuple[SiteFigures, ...]:
    """One row for all sites of equal shape, generator and bank, in the order of the first."""
    alike: dict[tuple[object, ...], list[tuple[Site, Placement]]] = {}
    for site, placement in pairs:
        key = (site.shape, placement.generator, _detail(placement), placement.bank)
        alike.setdefault(key if collapse else (site.name,), []).append((site, placement))
    position = {site.name: index for index, (site, _) in enumerate(pairs)}
    rows: list[tuple[int, SiteFigures]] = []
    for members in alike.values():
        names = [site.name for site, _ in members]
        site, placement = members[0]
        for pattern, matched in collapse_names(names):
            size = site.size * len(matched)
            row = SiteFigures(
                name=pattern,
                count=len(matched),
                shape=site.shape,
                generator=placement.generator,
                detail=_detail(placement),
                bank=placement.bank,
                elements=size,
                share=significant(size / elements),
                reason=placement.reason,
            )
            rows.append((position[matched[0]], row))
    return tuple(row for _, row in sorted(rows, key=lambda item: item[0]))
