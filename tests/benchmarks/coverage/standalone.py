"""Emitted source, imported where nothing but torch and the standard library can be."""

from __future__ import annotations

import contextlib
import itertools
import sys
import types
from collections.abc import Iterator

FORBIDDEN = ("planner", "torchvision", "timm", "transformers", "ortools", "sklearn", "jinja2")

_numbers = itertools.count()


@contextlib.contextmanager
def torch_alone() -> Iterator[None]:
    """Meanwhile neither the planner nor a model library can be imported."""
    hidden = {
        name: module for name, module in sys.modules.items() if name.partition(".")[0] in FORBIDDEN
    }
    sys.modules.update(dict.fromkeys([*hidden, *FORBIDDEN]))
    try:
        yield
    finally:
        for name in FORBIDDEN:
            del sys.modules[name]
        sys.modules.update(hidden)


def import_source(source: str) -> types.ModuleType:
    """The module that ``source`` is; registered, as dataclasses want it."""
    module = types.ModuleType(f"emitted_{next(_numbers)}")
    sys.modules[module.__name__] = module
    exec(compile(source, module.__name__, "exec"), module.__dict__)
    return module
