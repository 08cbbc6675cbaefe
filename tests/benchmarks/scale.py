"""Times the allocation against depth, and on the shapes of very large networks.

Sites alone are allocated: no model is built. ``--json FILE`` writes the figures; ``--only NAME``
picks cases. The process's greatest memory so far is noted after each.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path

import site_lists
from planner.allocation import allocate
from planner.evidence import shape_evidence
from planner.formulation import formulate
from planner.ir import MENU

DEPTHS = (12, 24, 48, 96, 192, 384, 768, 1536)
CASES = {
    **{f"depth {depth}": lambda depth=depth: site_lists.bert(depth) for depth in DEPTHS},
    "GPT-3 175B": site_lists.gpt,
    "Llama-3.1 405B": site_lists.llama,
    "residual 1000": site_lists.residual,
    "DenseNet-121": lambda: site_lists.dense_net_bc((6, 12, 24, 16)),
    "DenseNet-201": lambda: site_lists.dense_net_bc((6, 12, 48, 32)),
    "EfficientNet-B7": site_lists.efficient_net,
    "1000 classes": lambda: site_lists.dense_net((50, 100, 200, 150)),
}


def measure(name: str, percent: float) -> dict[str, object]:
    """One allocation: sizes of the problem, seconds by stage, and how near the bound it is."""
    sites = CASES[name]()
    budget = int(site_lists.dense_count(sites) * percent / 100)
    start = time.perf_counter()
    evidence = shape_evidence(sites)
    grouped = time.perf_counter()
    problem = formulate(sites, evidence, MENU)
    formulated, worked = time.perf_counter(), time.process_time()
    solution = allocate(sites, evidence, budget).solution
    return {
        "case": name,
        "percent": percent,
        "parameters": site_lists.dense_count(sites),
        "sites": len(sites),
        "classes": len(problem.classes),
        "options": sum(len(item.options) for item in problem.classes),
        "evidence_seconds": round(grouped - start, 3),
        "allocate_seconds": round(time.perf_counter() - formulated, 3),
        "processor_seconds": round(time.process_time() - worked, 3),
        "status": solution.status,
        "gap": round(solution.gap, 6),
        "peak_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def main() -> None:
    """Print a row for each case, as it is done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--percent", type=float, nargs="*", default=[10.0])
    parser.add_argument("--only", nargs="*", default=[], help="parts of names")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    # The first use imports what every other one shares.
    shape_evidence(site_lists.bert(1))
    rows = []
    print(
        f"{'case':16}{'%':>6}{'sites':>8}{'classes':>9}{'evidence':>10}{'allocate':>10}{'processor':>10}{'gap':>9}"
    )
    for name in CASES:
        if options.only and not any(part in name for part in options.only):
            continue
        for percent in options.percent:
            row = measure(name, percent)
            rows.append(row)
            print(
                f"{name:16}{percent:>6g}{row['sites']:>8}{row['classes']:>9}"
                f"{row['evidence_seconds']:>9}s{row['allocate_seconds']:>9}s"
                f"{row['processor_seconds']:>9}s"
                f"{100 * float(row['gap']):>8.3f}%",
                flush=True,
            )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
