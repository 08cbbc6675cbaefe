"""Sharing by hand: the sites of repeated blocks are one tensor, embeddings are factorised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from planner.baselines.groups import repeated, shareable
from planner.baselines.ruled import Ruled, too_few
from planner.evidence import grouped_evidence
from planner.formulation import Parameters, SiteClass, formulate
from planner.ir import Evidence, Generator, Site
from planner.valuation import Decision, spending


@dataclass(frozen=True, slots=True)
class Tying:
    """Ties what repeats. The count is fixed, but for the rank of factorised embeddings.

    Attributes:
        first: whether the first block stays apart, as Perceiver's.
        factorise: whether embeddings are products, as ALBERT's, all of one rank: the largest that
            fits the budget. An embedding that the product would not make smaller stays as it is.
    """

    first: bool
    factorise: bool

    def decide(
        self, name: str, sites: Sequence[Site], evidence: Evidence, budget: int, seed: int
    ) -> Ruled:
        """Ties, and the largest rank that fits; the seed changes nothing.

        Raises:
            InfeasibleBudgetError: the count at rank 1 is above the budget.
        """
        del seed
        factorised = {site.name for site in sites if self.factorise and _embedding(site)}
        groups = repeated([site for site in sites if site.name not in factorised])
        if self.first:
            groups = [part for names in groups for part in (names[:1], names[1:])]
        # By itself, what does not repeat makes no class with others, and so cannot be tied.
        tied = {name for names in groups for name in names}
        groups += [[site.name] for site in shareable(sites) if site.name not in tied]
        priced = grouped_evidence(sites, groups, _levelled(evidence, groups))
        menu: tuple[Generator, ...] = (
            ("own", "lowrank", "tie") if self.factorise else ("own", "tie")
        )

        def at(rank: int) -> Ruled:
            problem = formulate(sites, priced, menu, parameters=Parameters(ranks=(rank,)))
            choices = tuple(_choice(sites, factorised, item) for item in problem.classes)
            decision = Decision(choices, (0,) * len(problem.groups))
            return Ruled(priced, problem, decision, menu)

        least = at(1)
        count = spending(least.problem, least.decision)
        if count > budget:
            raise too_few(name, budget, count, least.problem)
        ranks = [
            (site.size, sum(site.matrix)) for site in shareable(sites) if site.name in factorised
        ]
        rest = count - sum(min(size, unit) for size, unit in ranks)
        low, high = 1, max((size // unit for size, unit in ranks), default=0) + 2
        while high - low > 1:
            middle = (low + high) // 2
            fits = rest + sum(min(size, middle * unit) for size, unit in ranks) <= budget
            low, high = (middle, high) if fits else (low, middle)
        return at(low)


def _embedding(site: Site) -> bool:
    """Whether rows are looked up in it."""
    return (
        "Embedding" in site.owner
        and site.parameter == "weight"
        and len(site.shape) == 2
        and site.initial.std > 0
        and site.shareable
    )


def _choice(sites: Sequence[Site], factorised: set[str], item: SiteClass) -> tuple[int | None, int]:
    wanted = "lowrank" if sites[item.sites[0]].name in factorised else "tie"
    for index, option in enumerate(item.options):
        if option.generator == wanted:
            return index, len(item.sites)
    return None, 0


def _levelled(evidence: Evidence, groups: Sequence[Sequence[str]]) -> Evidence:
    """Equal importance within each group: sites that are one tensor must be one class."""
    importance = dict(evidence.importance)
    if not importance:
        return evidence
    for names in groups:
        mean = sum(importance.get(name, 1.0) for name in names) / max(1, len(names))
        importance.update(dict.fromkeys(names, mean))
    return replace(evidence, importance=tuple(importance.items()))
