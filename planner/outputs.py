"""Generated files against their plans: ``NAME.py`` beside ``NAME.plan.json``."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

from planner.errors import PlanFormatError, StaleOutputError

_SUFFIX = ".plan.json"


def check_outputs(paths: Iterable[Path]) -> tuple[Path, ...]:
    """Render every plan again and compare with the committed source and the constants beside it.

    Args:
        paths: plans, or folders that are searched for them.

    Returns:
        The sources that were compared, all of them up to date.

    Raises:
        PlanFormatError: no plan is found, or one can't be read.
        StaleOutputError: a source differs or is missing; the message holds the differences.
    """
    from planner.emission import emit
    from planner.plans import read_plan

    sources: list[Path] = []
    stale: list[str] = []
    differences: list[str] = []
    for path in _plans(paths):
        source = path.with_name(path.name.removesuffix(_SUFFIX) + ".py")
        sources.append(source)
        committed = source.read_text(encoding="utf-8") if source.exists() else ""
        rendered = emit(read_plan(path))
        difference = _difference(committed, rendered, source)
        for other, content in rendered.files(source).items():
            if other != source and not (other.exists() and other.read_bytes() == content):
                stale.append(str(other))
        if difference:
            stale.append(str(source))
            differences.append(difference)
    if stale:
        raise StaleOutputError(
            f"not what the plan renders to: {', '.join(stale)}; run `npas emit` again\n"
            + "".join(differences).rstrip("\n"),
            paths=tuple(stale),
        )
    return tuple(sources)


def _plans(paths: Iterable[Path]) -> list[Path]:
    found: list[Path] = []
    for path in paths:
        here = sorted(path.rglob(f"*{_SUFFIX}")) if path.is_dir() else [path]
        if not here or not path.exists() or not here[0].name.endswith(_SUFFIX):
            raise PlanFormatError(f"no plan at {path}: a plan is NAME{_SUFFIX} beside NAME.py")
        found += here
    return found


def _difference(committed: str, rendered: str, source: Path) -> str:
    lines = difflib.unified_diff(
        committed.splitlines(keepends=True),
        rendered.splitlines(keepends=True),
        fromfile=f"{source} (committed)",
        tofile=f"{source} (rendered)",
    )
    return "".join(lines)
