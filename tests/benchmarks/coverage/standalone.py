"""Emitted source, imported where nothing but torch and the standard library can be."""

from __future__ import annotations

import contextlib
import itertools
import sys
import tempfile
import types
from collections.abc import Iterator
from pathlib import Path

from planner.emission import Emitted

FORBIDDEN = ("planner", "torchvision", "timm", "transformers", "ortools", "sklearn", "jinja2")

_numbers = itertools.count()
_folder = tempfile.TemporaryDirectory()


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


def import_source(source: Emitted | str) -> types.ModuleType:
    """The module that ``source`` is; registered, as dataclasses want it, with its constants."""
    module = types.ModuleType(f"emitted_{next(_numbers)}")
    module.__file__ = f"{_folder.name}/{module.__name__}.py"
    path = Path(module.__file__)
    files = source.files(path) if isinstance(source, Emitted) else {path: source}
    for path, content in files.items():
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    sys.modules[module.__name__] = module
    exec(compile(source, module.__name__, "exec"), module.__dict__)
    return module
