"""How well the objective ranks plans: Spearman's correlation with trained accuracy.

    python -m benchmarks.calibration --plans 24 --epochs 2 --output build/calibration.json

Random plans of one model at one budget: shareable sites are dealt to one to six groups, the menu of
generators is drawn too, and the solver makes the best of both. Each plan is trained on digits with
the dense recipe. Prints the correlation with a 95 % interval, by bootstrap over plans.
"""

import argparse
import json
import random
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from scipy.stats import spearmanr

import planner
from benchmarks.digits import import_source
from benchmarks.quality.methods import ARCHITECTURES, INPUT
from benchmarks.quality.tasks import digits
from benchmarks.quality.training import train
from planner.evidence import grouped_evidence
from planner.pipeline import allocated, prepare
from planner.plans import Plan

SHARED = ("mix", "hash", "interpolate", "mask")


def random_plan(subject, budget: int, seed: int) -> Plan:
    """A plan whose groups and menu are drawn by ``seed``."""
    draw = random.Random(seed)
    lots = draw.randint(1, 6)
    groups: dict[int, list[str]] = {}
    for site in subject.sites:
        if site.shareable:
            groups.setdefault(draw.randrange(lots), []).append(site.name)
    shared = draw.sample(SHARED, draw.randint(1, len(SHARED)))
    # What starts at zero can be neither hashed nor resized: a repeat fits always.
    menu = ("own", "repeat", *shared)
    evidence = grouped_evidence(subject.sites, list(groups.values()), subject.evidence)
    allocation = allocated(
        replace(subject, evidence=evidence),
        budget,
        "cp-sat",
        menu=menu,
        seed=seed,
        deterministic_limit=0.5,
    )
    return Plan(
        spec=subject.spec,
        seed=seed,
        evidence="random",
        budget=str(budget),
        budget_parameters=budget,
        dense_parameters=subject.dense,
        program=subject.program,
        sites=subject.sites,
        allocation=allocation,
    )


def correlation(pairs: list[tuple[float, float]], rounds: int = 2000) -> tuple[float, float, float]:
    """Spearman's rank correlation, and the ends of its 95 % interval.

    Draws in which all values of one side are equal have no correlation, and are left out.
    """
    points = np.array(pairs)
    generator = np.random.default_rng(0)
    found = []
    for _ in range(rounds):
        sample = points[generator.integers(len(points), size=len(points))]
        if np.ptp(sample[:, 0]) > 0 and np.ptp(sample[:, 1]) > 0:
            found.append(spearmanr(sample[:, 0], sample[:, 1]).statistic)
    if not found:
        raise SystemExit("all plans are equal in one of the two: train for more epochs")
    low, high = np.percentile(found, [2.5, 97.5])
    return float(spearmanr(points[:, 0], points[:, 1]).statistic), float(low), float(high)


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="benchmarks.calibration", description=__doc__)
    parser.add_argument("--plans", type=int, default=24)
    parser.add_argument("--model", choices=ARCHITECTURES, default="wrn_16_1")
    parser.add_argument("--budget", type=float, default=10, help="percent of the dense count")
    parser.add_argument("--epochs", type=float, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("build/calibration.json"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    task, architecture = digits(), ARCHITECTURES[options.model]
    subject = prepare(architecture.spec, INPUT, arguments=architecture.arguments)
    budget = int(subject.dense * options.budget / 100)
    runs = json.loads(options.output.read_text()) if options.output.is_file() else []
    asked = {
        "model": options.model,
        "budget": budget,
        "epochs": options.epochs,
    }
    done = {run["seed"] for run in runs if asked.items() <= run.items()}
    for seed in track(range(options.plans), "plans"):
        if seed in done:
            continue
        plan = random_plan(subject, budget, seed)
        torch.manual_seed(seed)
        with tempfile.TemporaryDirectory() as folder:
            model = import_source(planner.emit(plan), Path(folder)).build()
        reached, _ = train(model, task, 0, options.epochs)
        objective = plan.allocation.solution.objective
        runs.append({**asked, "seed": seed, "objective": objective, "accuracy": reached})
        options.output.parent.mkdir(parents=True, exist_ok=True)
        planner.write(json.dumps(runs, indent=1) + "\n", options.output)
    pairs = [
        (run["objective"], run["accuracy"])
        for run in runs
        if asked.items() <= run.items() and run["seed"] < options.plans
    ]
    if len(pairs) < 3:
        raise SystemExit("a correlation needs three plans at least: raise --plans")
    rank, low, high = correlation(pairs)
    print(
        f"{len(pairs)} plans of {options.model} with {budget:,} parameters, {options.epochs:g} "
        f"epochs: Spearman {rank:.2f}, 95 % from {low:.2f} to {high:.2f}"
    )


if __name__ == "__main__":
    main()
