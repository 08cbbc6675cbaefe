"""The cases, by library. A library is imported only if its cases are asked for."""

from __future__ import annotations

import fnmatch
import hashlib
import importlib
from collections.abc import Sequence

from benchmarks.coverage.case import Case

LIBRARIES = ("torch", "torchvision", "timm", "transformers", "written")


def find(
    libraries: Sequence[str] = LIBRARIES,
    patterns: Sequence[str] = ("*",),
    sample: int | None = None,
) -> list[Case]:
    """The cases of ``libraries`` whose names match a pattern; of them a sample, if asked for.

    A sample is spread over everything and the same each time.
    """
    found: list[Case] = []
    for library in libraries:
        found += importlib.import_module(f"{__name__}.of_{library}").cases()
    found = [case for case in found if any(fnmatch.fnmatchcase(case.name, one) for one in patterns)]
    if sample is not None:
        chosen = {case.name for case in sorted(found, key=_shuffled)[:sample]}
        found = [case for case in found if case.name in chosen]
    return found


def _shuffled(case: Case) -> str:
    return hashlib.sha256(case.name.encode()).hexdigest()
