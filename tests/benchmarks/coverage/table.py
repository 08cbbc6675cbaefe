"""Outcomes as tables for the terminal, and as JSON."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict

from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmarks.coverage.examination import STEPS
from benchmarks.coverage.outcome import Outcome

BAR = 0.95
"""The least share of cases that pass, of a row that has no bar of its own."""

BARS = {
    "torchvision classification": 1.0,
    "torchvision segmentation": 1.0,
    "torchvision video": 1.0,
    "torchvision detection": 0.0,
}


def as_json(outcomes: list[Outcome]) -> str:
    """Counts by library and task, and every outcome."""
    content = {
        "rows": {name: _counts(ones) for name, ones in _rows(outcomes)},
        "total": _counts(outcomes),
        "outcomes": [asdict(one) for one in outcomes],
    }
    return json.dumps(content, indent=1) + "\n"


def enough(outcomes: list[Outcome]) -> bool:
    """Whether in every row the share of cases that pass is what it should be."""
    return all(
        sum(one.passes for one in ones) >= BARS.get(name, BAR) * len(ones)
        for name, ones in _rows(outcomes)
    )


def render(outcomes: list[Outcome], console: Console) -> None:
    """The table by library and task, the one by rung, and the failures by their reasons."""
    rows = [*_rows(outcomes), ("total", outcomes)]
    steps = _table("library", "cases", *STEPS, "all of them")
    for name, ones in rows:
        steps.add_row(name, *map(str, _counts(ones).values()))
    console.print(steps)
    rungs = {name: _rungs(ones) for name, ones in rows}
    if rungs["total"]:
        kinds = sorted(rungs["total"])
        captured = _table("modules captured by", *kinds)
        for name, counts in rungs.items():
            captured.add_row(name, *(str(counts[kind]) for kind in kinds))
        console.print(captured)
    for line in _failures(outcomes):
        console.print(Text(line), soft_wrap=True)


def _table(first: str, *numbers: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(first)
    for name in numbers:
        table.add_column(name, justify="right")
    return table


def _rows(outcomes: Iterable[Outcome]) -> list[tuple[str, list[Outcome]]]:
    """Outcomes by library and task, in the catalogue's order."""
    rows: dict[str, list[Outcome]] = {}
    for one in outcomes:
        rows.setdefault(f"{one.library} {one.task}".strip(), []).append(one)
    return list(rows.items())


def _counts(outcomes: Iterable[Outcome]) -> dict[str, int]:
    ones = list(outcomes)
    passed = {step: sum(step in one.passed for one in ones) for step in STEPS}
    return {"cases": len(ones), **passed, "all": sum(one.passes for one in ones)}


def _rungs(outcomes: Iterable[Outcome]) -> Counter[str]:
    found = Counter[str]()
    for one in outcomes:
        found.update(one.facts.get("rungs", {}))
    return found


def _failures(outcomes: Iterable[Outcome]) -> Iterator[str]:
    """Each failure on a line, under the kind of its reason; the most frequent kinds come first."""
    kinds: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for one in outcomes:
        for step, reason in one.failed.items():
            kinds.setdefault((step, _kind(reason)), []).append((one.name, reason))
    for (step, kind), ones in sorted(kinds.items(), key=lambda item: -len(item[1])):
        yield f"\n{step} fails {len(ones)}×: {kind}"
        yield from (f"  {name}: {reason}" for name, reason in ones)


def _kind(reason: str) -> str:
    """A reason without what differs from model to model: names, paths and numbers."""
    text = re.sub(r"'[^']*'|\"[^\"]*\"|`[^`]*`", "'…'", reason)
    text = re.sub(r"\b[\w/]+(\.[\w/]+)+(:\d+)?", "…", text)
    return re.sub(r"\d+(\.\d+)?(e-?\d+)?", "N", text)[:160]
