"""Whole models in the style of research code, as users write them."""

from __future__ import annotations

import importlib
import pkgutil

import written
from benchmarks.coverage.case import Case

# They add their models to the table as they are imported.
for _module in pkgutil.iter_modules(written.__path__):
    importlib.import_module(f"written.{_module.name}")


def cases() -> list[Case]:
    """All of them."""
    return [
        Case(f"written:{name}", "written", "models", build, inputs)
        for name, (build, inputs) in written.CASES.items()
    ]
