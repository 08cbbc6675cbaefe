"""What became of a case; one line of JSON each, so that a run can be resumed."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Outcome:
    """The steps of a case: those passed with their seconds, those failed with their reasons.

    A step that needs one that failed is in neither. ``facts`` are what the steps found.
    """

    name: str
    library: str
    task: str
    passed: dict[str, float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    facts: dict[str, object] = field(default_factory=dict)

    @property
    def passes(self) -> bool:
        """Whether no step failed."""
        return not self.failed


def read(path: Path) -> list[Outcome]:
    """Outcomes of a file of lines, the last of each name; none where there is no file."""
    if not path.exists():
        return []
    outcomes = [Outcome(**json.loads(line)) for line in path.read_text().splitlines()]
    return list({one.name: one for one in outcomes}.values())


def append(outcome: Outcome, path: Path) -> None:
    """Add a line to a file, which comes into being with its first one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(asdict(outcome)) + "\n")
