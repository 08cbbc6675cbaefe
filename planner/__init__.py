"""Static parameter allocation planner and code generator for PyTorch.

``plan`` a model under a parameter budget, ``emit`` the plan as standalone source, ``write`` it to
a file. Everything is imported on first use: ``import planner`` loads neither torch nor the solver.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import os

    from planner.comparison import compare
    from planner.curves import curve
    from planner.emission import emit
    from planner.errors import (
        AllocationError,
        BudgetError,
        ConstraintConflictError,
        ConstraintError,
        EvidenceError,
        InfeasibleBudgetError,
        ModelSourceError,
        OutputError,
        PlanFormatError,
        PlannerError,
        SolveLimitError,
        StaleOutputError,
        TraceError,
        UnsupportedSiteError,
    )
    from planner.loading import load_model
    from planner.pipeline import plan
    from planner.plans import Plan
    from planner.tracing import trace

__version__ = "0.1.0"

__all__ = [
    "AllocationError",
    "BudgetError",
    "ConstraintConflictError",
    "ConstraintError",
    "EvidenceError",
    "InfeasibleBudgetError",
    "ModelSourceError",
    "OutputError",
    "Plan",
    "PlanFormatError",
    "PlannerError",
    "SolveLimitError",
    "StaleOutputError",
    "TraceError",
    "UnsupportedSiteError",
    "__version__",
    "compare",
    "curve",
    "emit",
    "load_model",
    "plan",
    "trace",
    "write",
]

_SOURCES = {
    "Plan": ("planner.plans", "Plan"),
    "compare": ("planner.comparison", "compare"),
    "curve": ("planner.curves", "curve"),
    "emit": ("planner.emission", "emit"),
    "load_model": ("planner.loading", "load_model"),
    "plan": ("planner.pipeline", "plan"),
    "trace": ("planner.tracing", "trace"),
}


def write(source: str, path: str | os.PathLike[str]) -> None:
    """Write emitted source, or a plan's JSON, to ``path``: whole or not at all.

    Constants that are too large for a source go to a file beside it, as ``emit`` gave them.

    Raises:
        OutputError: ``path`` cannot be written.
    """
    from pathlib import Path

    from planner.files import write_files

    files = getattr(source, "files", None)
    write_files(files(Path(path)) if files else {Path(path): source})


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _SOURCES.get(name, ("planner.errors", name))
    value = getattr(import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
