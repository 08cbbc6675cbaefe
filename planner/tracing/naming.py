"""What the author of a forward calls its values: local variables, read while it runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

NAME = "local"
"""The key of a node's ``meta`` that holds the name."""

_NOT_THE_AUTHORS = ("planner.", "torch.")
"""Modules whose functions run between a forward and what is recorded of it."""


def local_variables(forward: Any) -> Iterator[tuple[str, Any]]:
    """Names and values of the variables of the running ``forward`` and of what it has called.

    ``forward`` is its code object. The forward's own variables come first, since a function that
    it calls names what it is given after its own use of it.
    """
    frame = sys._getframe(1)
    inner: list[FrameType] = []
    while frame is not None:
        if frame.f_code is forward:
            for one in (frame, *reversed(inner)):
                yield from one.f_locals.items()
            return
        if not frame.f_globals.get("__name__", "").startswith(_NOT_THE_AUTHORS):
            inner.append(frame)
        frame = frame.f_back  # type: ignore[assignment]
