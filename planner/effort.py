"""How long the solver searches: to a limit that counts work, a limit of time, or Ctrl-C."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from ortools.sat.python import cp_model

_T = TypeVar("_T")

_TICK = 0.1
_QUIET = 1.0
"""Seconds before the first report of progress."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a search stands: integers in the objective's unit, None before there are any."""

    seconds: float
    objective: int | None
    bound: int | None

    @property
    def gap(self) -> float | None:
        """Relative distance of bound and objective."""
        if self.objective is None or self.bound is None:
            return None
        return abs(self.bound - self.objective) / max(1, abs(self.objective))


@dataclass(slots=True)
class Effort:
    """The limits of one allocation, and what ended it early.

    Attributes:
        limit: of work, in the solver's own machine-independent seconds.
        seconds: of wall clock, for all searches together; None is no limit.
        progress: is told where the search stands, a few times a second after the first.
        stopped: what ended the search before its limit of work; empty if nothing did.
    """

    limit: float
    seconds: float | None = None
    progress: Callable[[Progress], None] | None = None
    stopped: Literal["", "time limit", "interrupted"] = ""
    objective: int | None = None
    bound: int | None = None
    began: float = field(default_factory=time.monotonic)

    def left(self) -> float | None:
        """Seconds of wall clock that are left, None without a limit."""
        if self.seconds is None:
            return None
        return max(0.0, self.seconds - (time.monotonic() - self.began))

    def over(self) -> bool:
        """Whether there is no time left; then ``stopped`` says so."""
        if not self.stopped and self.left() == 0:
            self.stopped = "time limit"
        return bool(self.stopped)

    def interrupt(self) -> None:
        """Note that the user has asked to stop."""
        self.stopped = "interrupted"

    def during(self, items: Iterable[_T]) -> Iterator[_T]:
        """``items`` for as long as there is time."""
        for item in items:
            if self.over():
                return
            self.report()
            yield item

    def known(self, objective: int, bound: int | None) -> None:
        """Note an allocation that has been found, and a bound on all."""
        self.objective = max(objective, objective if self.objective is None else self.objective)
        if bound is not None:
            self.bound = _least(self.bound, bound)

    def report(self) -> None:
        """Tell where the search stands, unless it has only begun."""
        seconds = time.monotonic() - self.began
        if self.progress is not None and seconds > _QUIET:
            self.progress(Progress(seconds, self.objective, self.bound))

    def run(
        self, solver: cp_model.CpSolver, model: cp_model.CpModel, *, watched: bool = False
    ) -> cp_model.CpSolverStatus:
        """Solve in a thread of its own, so that this one hears Ctrl-C and reports.

        An interrupted search keeps what it has found. ``watched``: its objective is that of the
        allocation, to be reported.
        """
        left = self.left()
        if left is not None:
            solver.parameters.max_time_in_seconds = left
        solver.parameters.catch_sigint_signal = False
        watch = _Watch(self) if watched and self.progress is not None else None
        if watch is not None:
            solver.best_bound_callback = watch.on_bound
        found: list[cp_model.CpSolverStatus] = []
        failed: list[BaseException] = []

        def work() -> None:
            try:
                found.append(solver.solve(model, watch))
            except BaseException as error:  # noqa: BLE001  raised again below
                failed.append(error)
            finally:
                done.set()

        # An event, as an interrupted join can take a thread that still runs for finished.
        done = threading.Event()
        threading.Thread(target=work, daemon=True).start()
        while not done.is_set():
            self._wait(done, solver)
        if failed:
            raise failed[0]
        self.over()
        return found[0]

    def _wait(self, done: threading.Event, solver: cp_model.CpSolver) -> None:
        try:
            done.wait(_TICK)
            if self.stopped == "interrupted":
                solver.stop_search()
            self.report()
        except KeyboardInterrupt:
            self.interrupt()


class _Watch(cp_model.CpSolverSolutionCallback):
    """Notes each solution's objective, and each bound."""

    def __init__(self, effort: Effort) -> None:
        super().__init__()
        self.effort = effort

    def on_solution_callback(self) -> None:
        self.effort.known(round(self.objective_value), None)

    def on_bound(self, bound: float) -> None:
        best = self.effort.objective
        self.effort.bound = _least(self.effort.bound, max(round(bound), best or round(bound)))


def _least(one: int | None, other: int) -> int:
    return other if one is None else min(one, other)
