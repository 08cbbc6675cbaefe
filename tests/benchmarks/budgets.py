"""Separate allocations from the least budget to 400 %: what they use, and where worth falls.

    python -m benchmarks.budgets [--only NAME ...] [--count 20]

Each is checked. Ends with status 1 where a count is above its budget or below ``USED`` of it, or
the objective is below that of a smaller budget by more than the tolerance of its proof.
"""

import argparse
import sys

import site_lists
from planner.allocation import allocate
from planner.errors import InfeasibleBudgetError
from planner.evidence import shape_evidence
from planner.formulation import formulate
from planner.ir import MENU
from planner.validation import check, parameter_count
from planner.valuation import scale_of

USED = 0.999
LISTS = {
    "wide_resnet": site_lists.wide_resnet,
    "bert": site_lists.bert,
    "dense_net": site_lists.dense_net,
    "gpt": site_lists.gpt,
    "llama": site_lists.llama,
    "efficient_net": site_lists.efficient_net,
}


def least(sites, evidence):
    """The least budget that is possible."""
    try:
        allocate(sites, evidence, 0)
    except InfeasibleBudgetError as error:
        return error.minimum
    return 0


def spread(low, dense, count):
    """Budgets from ``low`` to four times the dense count, by equal ratios."""
    return [round(low * (4 * dense / low) ** (step / (count - 1))) for step in range(count)]


def faults(sites, count):
    """What is wrong at each of ``count`` budgets, as text."""
    evidence = shape_evidence(sites)
    tolerance = scale_of(formulate(sites, evidence, MENU)).tolerance
    best, found = None, []
    for budget in spread(max(1, least(sites, evidence)), site_lists.dense_count(sites), count):
        allocation = allocate(sites, evidence, budget)
        check(sites, allocation)
        used, value = parameter_count(sites, allocation), allocation.solution.objective
        if not USED * budget <= used <= budget:
            found.append(f"{budget}: {used} used, {used / budget:.4%}")
        if best is not None and value < best - tolerance:
            found.append(f"{budget}: worth {value}, below {best} of a smaller budget")
        best = value if best is None else max(best, value)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", default=[], choices=LISTS, metavar="NAME")
    parser.add_argument("--count", type=int, default=20)
    options = parser.parse_args()
    wrong = 0
    for name in options.only or LISTS:
        found = faults(LISTS[name](), options.count)
        wrong += len(found)
        print(
            f"{name}: {options.count} budgets, {len(found)} faults", *found, sep="\n  ", flush=True
        )
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
