"""The cases, by library. A library is imported only if its cases are asked for."""

from __future__ import annotations

import fnmatch
import hashlib
import importlib
from collections.abc import Sequence

from benchmarks.coverage.case import Case

LIBRARIES = ("torch", "torchvision", "timm", "transformers")


def find(
    libraries: Sequence[str] | None = None, pattern: str | None = None, sample: int | None = None
) -> list[Case]:
    """The cases of ``libraries`` whose names match ``pattern``; of them a sample, if asked for.

    A sample is spread over everything and the same each time.
    """
    found: list[Case] = []
    for library in libraries or LIBRARIES:
        found += importlib.import_module(f"{__name__}.of_{library}").cases()
    if pattern is not None:
        found = [case for case in found if fnmatch.fnmatchcase(case.name, pattern)]
    if sample is not None:
        chosen = {case.name for case in sorted(found, key=_shuffled)[:sample]}
        found = [case for case in found if case.name in chosen]
    return found


def _shuffled(case: Case) -> str:
    return hashlib.sha256(case.name.encode()).hexdigest()
