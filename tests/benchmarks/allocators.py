"""The solver's objective beside every baseline's, on many models at many budgets.

    python -m benchmarks.allocators [--only NAME ...] [--json build/allocators.json]

Prints a row for each model and budget: the solver's objective, and each baseline's as a share of
it; ``-`` where the budget is too small for a rule. Ends with status 1 if one is above the solver's.
"""

import argparse
import json
import sys
import time
from pathlib import Path

from models import MODELS, WRN_16_2, ZOO
from planner.baselines import BASELINES, SOLVER
from planner.errors import InfeasibleBudgetError
from planner.pipeline import allocated, prepare
from planner.validation import parameter_count

PERCENT = (1, 5, 10, 25, 50, 100, 200)
HANDMADE = ("densenet_bc", "retrieval", "grounding", "perceiver")
CONFIGURED = ("bert_large_qa", "albert_large")


def subjects(only):
    """Name and prepared model, one after the other."""
    for model in (*MODELS.values(), WRN_16_2):
        if not only or model.name in only:
            yield model.name, prepare(model.spec, model.inputs(), arguments=model.arguments)
    for name in HANDMADE:
        if not only or name in only:
            yield name, prepare(f"{ZOO / name}.py:{name}")
    for name in CONFIGURED:
        if not only or name in only:
            yield name, prepare(f"hf:{ZOO / name}.json")


def row(subject, percent):
    """Figures of every allocator at one budget."""
    budget = subject.dense * percent // 100
    found = {"percent": percent, "budget": budget, "allocators": {}}
    for name in (SOLVER, *BASELINES):
        start = time.perf_counter()
        try:
            allocation = allocated(subject, budget, name)
        except InfeasibleBudgetError as error:
            found["allocators"][name] = {"minimum": error.minimum}
            continue
        found["allocators"][name] = {
            "objective": allocation.solution.objective,
            "gap": allocation.solution.gap,
            "count": parameter_count(subject.sites, allocation),
            "banks": len(allocation.banks),
            "seconds": round(time.perf_counter() - start, 3),
        }
    return found


def line(name, one):
    """A row of the table, and the baselines that are above the solver."""
    made = one["allocators"]
    best = made[SOLVER].get("objective")
    cells, above = [], []
    for rule in BASELINES:
        value = made[rule].get("objective")
        if value is None:
            cells.append("-".rjust(len(rule)))
        elif best is None or value > best:
            above.append(rule)
            cells.append("ABOVE".rjust(len(rule)))
        else:
            cells.append(f"{value / best:.4f}".rjust(len(rule)))
    objective = f"{best:,}" if best is not None else "-"
    return f"{name:<16} {one['percent']:>4}%  {objective:>12}  " + "  ".join(cells), above


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME")
    parser.add_argument("--json", type=Path, default=Path("build/allocators.json"))
    options = parser.parse_args()
    rows, faults = [], []
    print(f"{'model':<16} {'':>5}  {SOLVER:>12}  " + "  ".join(BASELINES))
    for name, subject in subjects(options.only):
        for percent in PERCENT:
            one = row(subject, percent)
            rows.append({"model": name, "dense": subject.dense, **one})
            text, above = line(name, one)
            faults += [f"{name} at {percent}%: {rule}" for rule in above]
            print(text, flush=True)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(rows, indent=1) + "\n")
    cases = sum("objective" in made for one in rows for made in one["allocators"].values())
    print(f"{len(rows)} budgets, {cases} allocations; above the solver: {len(faults)}")
    print(*faults, sep="\n", end="\n" if faults else "")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
