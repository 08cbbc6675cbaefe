"""Each case in a forked process of its own: a crash, a hang or a flood of memory ends it alone."""

from __future__ import annotations

import math
import multiprocessing
import os
import resource
import signal
import time
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

import torch

from benchmarks.coverage.case import Case
from benchmarks.coverage.examination import STEPS, Examination
from benchmarks.coverage.outcome import Outcome
from planner.errors import PlannerError

GIGABYTE = 1 << 30
PATIENCE = 10


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one case: seconds of the processor, gigabytes of private memory, and steps by name.

    On a busy machine, seconds of the processor are several of the clock: ``PATIENCE`` of them.
    """

    seconds: float
    gigabytes: float
    steps: tuple[str, ...]


def examine_all(cases: Iterable[Case], limits: Limits, jobs: int) -> Iterator[Outcome]:
    """Outcomes in the order in which they are known, ``jobs`` cases at a time."""
    waiting, running = iter(cases), list[_Running]()
    exhausted = False
    while running or not exhausted:
        while len(running) < jobs and not exhausted:
            case = next(waiting, None)
            if case is None:
                exhausted = True
            else:
                running.append(_Running.start(case, limits))
        if running:
            until = min(one.deadline for one in running) - time.monotonic()
            wait([one.messages for one in running], timeout=max(0.0, until))
        for one in list(running):
            if one.settled():
                running.remove(one)
                yield one.outcome


@dataclass(slots=True)
class _Running:
    """A process at work, and what it has said so far."""

    process: BaseProcess
    messages: Connection
    deadline: float
    outcome: Outcome
    step: str = "runs"
    limits: Limits = field(kw_only=True)

    @classmethod
    def start(cls, case: Case, limits: Limits) -> _Running:
        fork = multiprocessing.get_context("fork")
        receiver, sender = fork.Pipe(duplex=False)
        process = fork.Process(target=_examine, args=(case, limits, sender), daemon=True)
        process.start()
        sender.close()
        deadline = time.monotonic() + PATIENCE * limits.seconds
        return cls(
            process, receiver, deadline, Outcome(case.name, case.library, case.task), limits=limits
        )

    def settled(self) -> bool:
        """Read what has come; whether the process has ended, or had to be."""
        try:
            while self.messages.poll():
                self._take(self.messages.recv())
        except EOFError:
            self.process.join()
            if code := self.process.exitcode:
                ended = signal.Signals(-code).name if code < 0 else f"status {code}"
                self.outcome.failed[self.step] = f"the process ended with {ended}"
            return True
        if time.monotonic() < self.deadline:
            return False
        self.process.kill()
        self.process.join()
        self.outcome.failed[self.step] = f"not done within {PATIENCE * self.limits.seconds:g} s"
        return True

    def _take(self, message: tuple[str, float | None, str, dict[str, object]]) -> None:
        self.step, seconds, reason, facts = message
        self.outcome.facts.update(facts)
        if reason:
            self.outcome.failed[self.step] = reason
        elif seconds is not None:
            self.outcome.passed[self.step] = round(seconds, 2)


def _examine(case: Case, limits: Limits, messages: Connection) -> None:
    """In the child: send (step, seconds, reason, facts) before each step and after it."""
    size = int(limits.gigabytes * GIGABYTE)
    resource.setrlimit(resource.RLIMIT_DATA, (size, size))
    seconds = math.ceil(limits.seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    torch.set_num_threads(1)
    passed = set[str]()
    examination: Examination | None = None
    for step in limits.steps:
        if not passed.issuperset(STEPS[step]):
            continue
        messages.send((step, None, "", {}))
        begin = time.monotonic()
        try:
            examination = examination or Examination(case)
            facts = getattr(examination, step)()
        except Exception as error:  # noqa: BLE001  whatever stops a case is its reason
            messages.send((step, None, _reason(error), {}))
            if examination is None:
                return
        else:
            passed.add(step)
            messages.send((step, time.monotonic() - begin, "", facts))


def _reason(error: Exception) -> str:
    """One line: the error's own, and where it came from unless it was meant for the user."""
    text = " ".join(str(error).split()) or "no message"
    line = f"{type(error).__name__}: {text[:300]}"
    if isinstance(error, (PlannerError, AssertionError)):
        return line
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{line} ({os.path.basename(frame.filename)}:{frame.lineno})"  # noqa: PTH119
