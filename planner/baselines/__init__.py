"""Rules of the literature as allocators: what the solver's plans are compared with.

A rule names groups and says how a site is made from a bank of a given size. From there all is as
with the solver: the groups are priced by ``planner.evidence``, ``planner.formulation`` lists the
options, the decision is placed, checked and worth what ``planner.valuation`` says.

=============== ==================================================================================
``uniform``     each site by itself, all at one share of their size (HashedNets, Chen et al. 2015)
``proportional``  one bank a group, as large as its layers; the groups of the evidence
``single-group``  the same with one group
``random``      the same with groups by lot
``by-shape``    the same with a group for each shape
``ring``        one bank for everything, hashed (ROAST, Desai et al. 2022; Recurrent Parameter
                Generators, Wang et al. 2021)
``albert``      repeated blocks are one, embeddings are factorised (Lan et al. 2020)
``perceiver``   repeated blocks are one, but for the first (Jaegle et al. 2021)
=============== ==================================================================================
"""

from __future__ import annotations

from collections.abc import Sequence

from planner.baselines import groups
from planner.baselines.sharing import Sharing, by_reference, by_ring, by_share
from planner.baselines.tying import Tying
from planner.ir import Allocation, Evidence, Site, Solution
from planner.placement import place
from planner.validation import check
from planner.valuation import scale_of, worth

SOLVER = "cp-sat"
_RULES: dict[str, Sharing | Tying] = {
    "uniform": Sharing(groups.alone, by_share),
    "proportional": Sharing(groups.by_evidence, by_reference),
    "single-group": Sharing(groups.together, by_reference),
    "random": Sharing(groups.by_lot, by_reference),
    "by-shape": Sharing(groups.by_shape, by_reference),
    "ring": Sharing(groups.together, by_ring),
    "albert": Tying(first=False, factorise=True),
    "perceiver": Tying(first=True, factorise=False),
}
BASELINES = tuple(_RULES)
ALLOCATORS = (SOLVER, *BASELINES)


def allocate_by(
    name: str, sites: Sequence[Site], evidence: Evidence, budget: int, *, seed: int = 0
) -> Allocation:
    """The allocation of at most ``budget`` parameters that a rule of ``BASELINES`` makes, checked.

    Args:
        name: of the rule.
        sites: all parameter tensors of the model, in its order.
        evidence: its importance weighs in the objective; ``proportional`` takes its groups.
        budget: parameters that the emitted model may have, everything counted.
        seed: of hashes, and of the lot that ``random`` draws.

    Raises:
        InfeasibleBudgetError: the rule needs more; the error carries the least that it needs.
    """
    rule = _RULES[name]
    ruled = rule.decide(name, sites, evidence, budget, seed)
    value = worth(ruled.problem, ruled.decision, scale_of(ruled.problem))
    banks, placements = place(sites, ruled.evidence, ruled.problem, ruled.decision, seed, name)
    solution = Solution(name, "RULE", value, value)
    allocation = Allocation(budget, banks, placements, solution, ruled.generators)
    check(sites, allocation)
    return allocation
