"""Errors that a user can cause: the message says what to change, attributes carry the facts."""

from __future__ import annotations


class PlannerError(Exception):
    """Base of all errors caused by input; anything else that escapes the planner is a bug."""


class ModelSourceError(PlannerError):
    """The model named by a specification cannot be found, imported or built."""


class TraceError(PlannerError):
    """A module's forward cannot be captured.

    Attributes:
        module: dotted path of the module inside the model ("" is the root).
        location: ``file:line`` of the statement that stops the capture, if known.
        plannable: whether the model's parameters can be planned all the same: its inputs fit, but
            its course depends on tensors' values, or it does what no graph of torch's public
            functions shows.
    """

    def __init__(
        self,
        message: str,
        *,
        module: str = "",
        location: str | None = None,
        plannable: bool = False,
    ) -> None:
        super().__init__(message)
        self.module = module
        self.location = location
        self.plannable = plannable


class UnsupportedSiteError(PlannerError):
    """A parameter tensor cannot be planned or emitted.

    Attributes:
        site: its name in the model's state dict.
    """

    def __init__(self, message: str, *, site: str) -> None:
        super().__init__(message)
        self.site = site


class BudgetError(PlannerError):
    """A budget that cannot be read."""


class InfeasibleBudgetError(BudgetError):
    """A budget below the least possible.

    Attributes:
        budget: parameters asked for.
        minimum: the least number of parameters with which planning works.
    """

    def __init__(self, message: str, *, budget: int, minimum: int) -> None:
        super().__init__(message)
        self.budget = budget
        self.minimum = minimum


class ConstraintError(PlannerError):
    """A constraint that cannot be read, or whose pattern matches nothing."""


class ConstraintConflictError(ConstraintError):
    """Constraints that exclude each other, or the budget.

    Attributes:
        names: the constraints of a conflicting set.
    """

    def __init__(self, message: str, *, names: tuple[str, ...]) -> None:
        super().__init__(message)
        self.names = names


class SolveLimitError(PlannerError):
    """The solver found no plan within its limit."""


class PlanFormatError(PlannerError):
    """A plan that cannot be read, or that asks for something a plan may not."""


class StaleOutputError(PlannerError):
    """A generated file that its plan no longer renders to.

    Attributes:
        paths: the files that differ.
    """

    def __init__(self, message: str, *, paths: tuple[str, ...]) -> None:
        super().__init__(message)
        self.paths = paths


class OutputError(PlannerError):
    """A file that cannot be written."""


class EvidenceError(PlannerError):
    """Evidence that is not known, or whose file cannot be used for this model."""


class AllocationError(PlannerError):
    """An allocation that breaks a rule, or evidence that names what the model lacks."""
