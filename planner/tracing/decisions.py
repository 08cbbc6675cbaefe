"""Truth that a forward asks of tensors which have no values: checks that raise, and no others.

``if mask.sum() != count: raise ...`` and ``assert (x >= 0).all()`` depend on values, but one of the
two ways only raises. So a forward is run both ways: where one raises by a statement of its own, the
other is the forward's course. Where both go on, and not in the same way, nothing is decided.
"""

from __future__ import annotations

import dis
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import torch

_MOST = 32
"""Questions of one run: a loop that asks until it gets another answer has to end."""
_TORCH = Path(torch.__file__).parent

Result = TypeVar("Result")


class _Undecided(Exception):  # noqa: N818  no error: the forward takes its course without answers
    """More questions than can be decided."""


class _Answers:
    """Answers to the questions of one run: those given, then "yes"."""

    def __init__(self, given: list[bool]) -> None:
        self.given = given
        self.made: list[bool] = []

    def next(self) -> bool:
        if len(self.made) == _MOST:
            raise _Undecided
        self.made.append((self.given + [True] * _MOST)[len(self.made)])
        return self.made[-1]


_ANSWERS: ContextVar[_Answers | None] = ContextVar("answers", default=None)


def decided(name: str, args: tuple[Any, ...]) -> bool | None:
    """The truth of the tensor ``args[0]``, if the function ``name`` asks for that."""
    answers = _ANSWERS.get()
    if answers is None or name not in ("__bool__", "item") or len(args) != 1:
        return None
    asked = args[0]
    if not isinstance(asked, torch.Tensor) or asked.numel() != 1:
        return None
    if not asked.is_meta and type(asked) is torch.Tensor:
        return None
    return answers.next() if name == "__bool__" or asked.dtype is torch.bool else None


def explored(run: Callable[[], Result], same: Callable[[Result, Result], bool]) -> Result:
    """What ``run`` gives on the only course that does not end in an error of the forward's own.

    Args:
        run: runs the forward; the result depends on :func:`decided` alone.
        same: whether two results are equal, so that an answer does not matter.

    Raises:
        what ``run`` raises without answers, where none can be decided.
    """
    given: list[bool] = []
    closed: set[int] = set()
    while True:
        result, answers, error = _attempt(run, given)
        if error is None:
            break
        last = len(answers.made) - 1
        if last < 0 or last in closed or not _is_deliberate(error):
            return run()
        given = [*answers.made[:last], not answers.made[last]]
        closed = {index for index in closed if index < last} | {last}
    for index, answer in enumerate(answers.made):
        if index in closed:
            continue
        other, found, error = _attempt(run, [*answers.made[:index], not answer])
        if error is None:
            equal = other is not None and result is not None and same(result, other)
        else:
            equal = len(found.made) == index + 1 and _is_deliberate(error)
        if not equal:
            return run()
    assert result is not None  # noqa: S101  there was no error
    return result


def _attempt(
    run: Callable[[], Result], given: list[bool]
) -> tuple[Result | None, _Answers, Exception | None]:
    answers = _Answers(given)
    with _answering(answers):
        try:
            return run(), answers, None
        except Exception as error:  # noqa: BLE001  whatever a user's forward raises
            return None, answers, error


@contextmanager
def _answering(answers: _Answers) -> Iterator[None]:
    token = _ANSWERS.set(answers)
    try:
        yield
    finally:
        _ANSWERS.reset(token)


def _is_deliberate(error: Exception) -> bool:
    """Whether a ``raise`` or ``assert`` outside torch gave ``error``, or a check of torch's."""
    frames: list[TracebackType] = []
    trace = getattr(error, "cause", error).__traceback__
    while trace is not None:
        frames.append(trace)
        trace = trace.tb_next
    while frames and frames[-1].tb_frame.f_code.co_name.startswith("_check"):
        if _TORCH not in Path(frames[-1].tb_frame.f_code.co_filename).parents:
            break
        frames.pop()
        if frames and not _is_ours(frames[-1]):
            return True
    return bool(frames) and not _is_ours(frames[-1]) and _raises(frames[-1])


def _raises(frame: TracebackType) -> bool:
    code = frame.tb_frame.f_code.co_code
    return dis.opname[code[frame.tb_lasti]] == "RAISE_VARARGS"


def _is_ours(frame: TracebackType) -> bool:
    path = Path(frame.tb_frame.f_code.co_filename)
    return _TORCH in path.parents or Path(__file__).parent in path.parents
