"""Banks in proportion to what is made from them: the rules with groups.

A rule picks a site's option by the size of its bank. All banks have one ratio of parameters to
elements, but for what would make no sense: none is smaller than its sites need at the least, and
none is larger than what they read. The ratio is the greatest that the budget allows, and what
rounding leaves goes to banks that can use it without another option.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from planner.baselines.groups import Groups
from planner.baselines.ruled import Ruled, too_few
from planner.evidence import grouped_evidence
from planner.formulation import (
    Option,
    Parameters,
    Problem,
    SiteClass,
    formulate,
    templates_value,
)
from planner.ir import Evidence, Generator, Site
from planner.valuation import Decision, spending

MOST_TEMPLATES = 8
"""Of a mix: the reference's limit."""

_PARAMETERS = Parameters(
    templates={k: templates_value(k) for k in range(1, MOST_TEMPLATES + 1)},
    copies=tuple(range(2, 129)),
)
_RATIOS = 64
"""Ratios that are tried between the least and the greatest before the best is narrowed down."""


class Ways:
    """The options of a class, by generator."""

    def __init__(self, item: SiteClass) -> None:
        self.item = item
        self.size = item.size
        self.group = next((o.group for o in item.options if o.group is not None), None)
        self.least = min((o.need for o in item.options), default=0)

    @cached_property
    def _by_kind(self) -> dict[tuple[Generator, int], int]:
        return {(o.generator, o.parameter): index for index, o in enumerate(self.item.options)}

    def find(self, generator: Generator, bank: int, parameter: int = 0) -> int | None:
        """The index of an option, if a bank of that size allows it and it saves anything."""
        index = self._by_kind.get((generator, parameter))
        if index is None:
            return None
        option = self.item.options[index]
        fits = option.need <= bank and (option.room is None or bank <= option.room)
        return index if fits and option.cost < self.size else None


Choose = Callable[[Ways, int], int | None]


def by_reference(ways: Ways, bank: int) -> int | None:
    """As the reference of Neural Parameter Allocation Search: templates, or upsampling.

    A bank that holds the site mixes K = min(⌊bank / site⌋, ``MOST_TEMPLATES``) templates of it; a
    smaller one is resized, or where a tensor starts at zero and cannot be, repeated with masks.
    """
    if bank >= ways.size:
        return ways.find("mix", bank, min(bank // ways.size, MOST_TEMPLATES))
    copies = -(-ways.size // max(1, bank))
    found = ways.find("interpolate", bank, 2)
    found = ways.find("mask", bank, copies) if found is None else found
    return ways.find("repeat", bank, copies) if found is None else found


def by_ring(ways: Ways, bank: int) -> int | None:
    """Hashed; what is too small for a hash, or starts at zero, as the reference has it."""
    found = ways.find("hash", bank)
    return by_reference(ways, bank) if found is None else found


def by_share(ways: Ways, bank: int) -> int | None:
    """Hashed from a smaller bank, own parameters, or as many templates as a larger bank is read by.

    Two templates need a bank of one and a half times the site.
    """
    if bank < ways.size:
        return by_ring(ways, bank)
    return (
        ways.find("mix", bank, min(-(-bank // ways.size), MOST_TEMPLATES))
        if (bank > ways.size)
        else None
    )


@dataclass(frozen=True, slots=True)
class Sharing:
    """Groups, and how a site is made from its group's bank."""

    groups: Callable[[Sequence[Site], Evidence, int], Groups]
    choose: Choose

    def decide(
        self, name: str, sites: Sequence[Site], evidence: Evidence, budget: int, seed: int
    ) -> Ruled:
        """The decision at the greatest ratio of parameters to elements.

        Raises:
            InfeasibleBudgetError: no ratio gives a count within the budget.
        """
        groups = self.groups(sites, evidence, seed)
        priced = grouped_evidence(sites, groups, evidence)
        menu: tuple[Generator, ...] = ("own", "mix", "interpolate", "repeat", "mask")
        if self.choose is not by_reference:
            menu = (*menu, "hash")
        problem = formulate(sites, priced, menu, parameters=_PARAMETERS)
        banks = _Banks(problem, self.choose)
        decision = banks.greatest(budget)
        if decision is None:
            raise too_few(name, budget, banks.minimum, problem)
        return Ruled(priced, problem, decision, menu)


class _Banks:
    """Decisions by the total that is divided among the banks."""

    def __init__(self, problem: Problem, choose: Choose) -> None:
        self.problem, self.choose = problem, choose
        self.ways = [Ways(item) for item in problem.classes]
        count = len(problem.groups)
        self.elements, self.least = [0] * count, [0] * count
        most = 0
        for ways, item in self._members():
            self.elements[ways.group or 0] += item.size * len(item.sites)
            self.least[ways.group or 0] = max(self.least[ways.group or 0], ways.least)
            most += max(option.reads for option in item.options) * len(item.sites)
        self.whole = max(1, sum(self.elements))
        # The same totals for all budgets, so that what is possible under one is under a larger.
        self.totals = sorted({round(most ** (step / _RATIOS)) for step in range(1, _RATIOS + 1)})
        self.totals = [0, *self.totals] if most else [0]

    def _members(self) -> Iterator[tuple[Ways, SiteClass]]:
        return (
            (ways, item)
            for ways, item in zip(self.ways, self.problem.classes, strict=True)
            if ways.group is not None
        )

    @cached_property
    def counts(self) -> list[int]:
        """Parameters at each of the totals."""
        return [spending(self.problem, self.at(total)) for total in self.totals]

    @property
    def minimum(self) -> int:
        """The least count."""
        return min(self.counts)

    def greatest(self, budget: int) -> Decision | None:
        """The decision with the largest banks within ``budget``."""
        fitting = [index for index, count in enumerate(self.counts) if count <= budget]
        if not fitting:
            return None
        low = self.totals[fitting[-1]]
        high = self.totals[fitting[-1] + 1] if fitting[-1] + 1 < len(self.totals) else low + 1
        while high - low > 1:
            middle = (low + high) // 2
            fits = spending(self.problem, self.at(middle)) <= budget
            low, high = (middle, high) if fits else (low, middle)
        return self._topped(self.at(low), budget)

    def at(self, total: int) -> Decision:
        """Banks that share ``total``, with the options that they allow."""
        sizes = [
            max(least, total * elements // self.whole)
            for least, elements in zip(self.least, self.elements, strict=True)
        ]
        while True:
            choices = [
                None if ways.group is None else self.choose(ways, sizes[ways.group])
                for ways in self.ways
            ]
            reads = [0] * len(sizes)
            for option, count in self._chosen(choices):
                reads[option.group or 0] += option.reads * count
            if all(size <= read for size, read in zip(sizes, reads, strict=True)):
                break
            # What nothing reads would never learn. Fewer templates may fit what is left.
            sizes = [min(pair) for pair in zip(sizes, reads, strict=True)]
        taken = (
            (choice, 0 if choice is None else len(item.sites))
            for choice, item in zip(choices, self.problem.classes, strict=True)
        )
        return Decision(tuple(taken), tuple(sizes))

    def _chosen(self, choices: Sequence[int | None]) -> Iterator[tuple[Option, int]]:
        for item, choice in zip(self.problem.classes, choices, strict=True):
            if choice is not None:
                yield item.options[choice], len(item.sites)

    def _topped(self, decision: Decision, budget: int) -> Decision:
        """``decision`` with what is left of the budget in the banks whose options allow it."""
        sizes = list(decision.sizes)
        limits = [0] * len(sizes)
        rooms: dict[int, int] = {}
        for option, count in self._chosen([choice for choice, _ in decision.choices]):
            group = option.group or 0
            limits[group] += option.reads * count
            if option.room is not None:
                rooms[group] = min(option.room, rooms.get(group, option.room))
        limits = [min(limit, rooms.get(group, limit)) for group, limit in enumerate(limits)]
        left = budget - spending(self.problem, decision)
        while left > 0:
            growing = [group for group, size in enumerate(sizes) if size < limits[group]]
            if not growing:
                break
            whole = sum(self.elements[group] for group in growing)
            start = left
            for group in growing:
                part = max(1, start * self.elements[group] // whole)
                part = min(part, limits[group] - sizes[group], left)
                sizes[group] += part
                left -= part
        return Decision(decision.choices, tuple(sizes))
