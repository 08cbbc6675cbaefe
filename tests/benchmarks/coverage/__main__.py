"""Examine the catalogue's cases, and print and write the table of what became of them."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from benchmarks.coverage import catalogue, outcome, table
from benchmarks.coverage.case import Case
from benchmarks.coverage.examination import STEPS
from benchmarks.coverage.isolation import Limits, examine_all
from benchmarks.coverage.outcome import Outcome

# Loaded before the forks, so that not every case has to: the stages that come with first use.
STAGES = ("planner.pipeline", "planner.loading", "planner.tracing", "planner.emission")


def main(arguments: list[str] | None = None) -> int:
    """0 if as many cases pass as should, else 1."""
    parser = _parser()
    options = parser.parse_args(arguments)
    cases = catalogue.find(
        options.library or catalogue.LIBRARIES, options.only or ["*"], options.sample
    )
    if not cases:
        parser.error("no case has such a name")
    lines = options.output.with_suffix(".jsonl")
    if not options.resume:
        lines.unlink(missing_ok=True)
    known = {one.name: one for one in outcome.read(lines)}
    steps = tuple(STEPS)[: list(STEPS).index(options.until) + 1]
    limits = Limits(options.seconds, options.gigabytes, steps)
    for name in (*STAGES, *sorted({case.library for case in cases})):
        importlib.import_module(name)
    left = [case for case in cases if case.name not in known]
    for index, one in enumerate(examine_all(left, limits, options.jobs), 1):
        outcome.append(one, lines)
        known[one.name] = one
        print(f"[{index}/{len(left)}] {_line(one)}", file=sys.stderr, flush=True)
    outcomes = list(_in_order(cases, known))
    options.output.write_text(table.as_json(outcomes))
    table.render(outcomes, Console(width=int(os.environ.get("COLUMNS", "120"))))
    return 0 if table.enough(outcomes) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="coverage", description=__doc__)
    parser.add_argument("--library", choices=catalogue.LIBRARIES, action="append")
    parser.add_argument("--only", metavar="GLOB", action="append", help="such as 'timm:res*'")
    parser.add_argument("--sample", type=int, metavar="N", help="N cases, always the same")
    parser.add_argument("--until", choices=STEPS, default="trains", help="the last step")
    parser.add_argument("--resume", action="store_true", help="keep the outcomes of an earlier run")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=300, help="of a case, on the processor")
    parser.add_argument("--gigabytes", type=float, default=10, help="of a case, in memory")
    parser.add_argument("--output", type=Path, default=Path("build/coverage.json"))
    return parser


def _in_order(cases: list[Case], known: dict[str, Outcome]) -> Iterator[Outcome]:
    return (known[case.name] for case in cases)


def _line(one: Outcome) -> str:
    seconds = f"{sum(one.passed.values()):.1f} s"
    return "  ".join([one.name, seconds, *(f"{step}: {why}" for step, why in one.failed.items())])


if __name__ == "__main__":
    sys.exit(main())
