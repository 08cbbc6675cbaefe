"""What a model's specification names: a callable in a module, a file, or a library's registry."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from planner.errors import ModelSourceError
from planner.libraries import LIBRARIES, Source, suggest

_FORMS = (
    "package.module:callable, path/to/file.py:callable, torchvision:NAME, timm:NAME "
    "or hf:CONFIG.json"
)


@dataclass(frozen=True, slots=True)
class Found:
    """An object of a Python module, and the folder where the module's imports are looked up."""

    value: object
    folder: str
    module: ModuleType


@contextmanager
def importable(folder: str | None) -> Iterator[None]:
    """Inside, modules are looked up in ``folder`` first."""
    if folder is None:
        yield
        return
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        if folder in sys.path:
            sys.path.remove(folder)


def name_of(spec: str | Callable[..., object]) -> str:
    """``spec``, or ``package.module.callable`` of a callable."""
    if isinstance(spec, str):
        return spec
    name = getattr(spec, "__qualname__", type(spec).__qualname__)
    return f"{getattr(spec, '__module__', type(spec).__module__)}.{name}"


def find_source(spec: str | Callable[..., object], arguments: dict[str, Any]) -> Source:
    """The source that ``spec`` names, or is, with ``arguments`` for its callable.

    Raises:
        ModelSourceError: there is no such thing; what an import raises is passed on.
    """
    if not isinstance(spec, str):
        module = sys.modules.get(getattr(spec, "__module__", ""))
        return Source(_bound(spec, arguments, name_of(spec)), None, module)
    place, name = _split(spec)
    if place in LIBRARIES:
        return LIBRARIES[place](name, arguments)
    found = find_object(spec)
    return Source(_bound(found.value, arguments, spec), found.folder, found.module)


def find_object(spec: str) -> Found:
    """What ``package.module:name`` or ``path/to/file.py:name`` names.

    Raises:
        ModelSourceError: there is no such thing; what an import raises is passed on.
    """
    place, name = _split(spec)
    path = Path(place)
    if place.endswith(".py") or path.is_file():
        folder = str(path.resolve().parent)
        with importable(folder):
            module = _import_file(path)
    else:
        folder = str(Path.cwd())
        if not all(part.isidentifier() for part in place.split(".")):
            raise ModelSourceError(f"{place!r} is neither a module nor a .py file: write {_FORMS}")
        with importable(folder):
            module = _import_module(place)
    return Found(_attribute(module, name, place), folder, module)


def _split(spec: str) -> tuple[str, str]:
    place, separator, name = spec.rpartition(":")
    if not (separator and place and name):
        raise ModelSourceError(f"{spec!r} is not a specification: write {_FORMS}")
    return place, name


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ModelSourceError(f"there is no file {path}")
    # The path's hash keeps files of one name apart, and real modules of that name unharmed.
    mark = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]
    name = f"npas_model_{mark}_{path.stem if path.stem.isidentifier() else 'file'}"
    description = importlib.util.spec_from_file_location(name, path.resolve())
    if description is None or description.loader is None:
        raise ModelSourceError(f"{path} is not a Python file: its name must end in .py")
    module = importlib.util.module_from_spec(description)
    # Registered before it runs, as dataclasses and inspect look their module up.
    sys.modules[name] = module
    try:
        description.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _import_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # Only the module that was asked for: one that it imports in turn is its own failure.
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise ModelSourceError(
                f"there is no module {error.name!r}: install it, or run where it can be imported"
            ) from error
        raise


def _attribute(module: ModuleType, path: str, place: str) -> object:
    found: object = module
    for part in path.split("."):
        if not hasattr(found, part):
            names = [name for name in dir(found) if not name.startswith("_")]
            raise ModelSourceError(f"{place} has no {path!r}{suggest(part, names)}")
        found = getattr(found, part)
    return found


def _bound(target: object, arguments: dict[str, Any], spec: str) -> Callable[[], object]:
    """``target`` with its arguments, checked against its signature; a module stands for itself."""
    if isinstance(target, nn.Module):
        if arguments:
            raise ModelSourceError(f"{spec} is a module already: it takes no arguments")
        return lambda: target
    if not callable(target):
        raise ModelSourceError(
            f"{spec} is a {type(target).__name__}: name a module class or a factory"
        )
    try:
        signature = inspect.signature(target)
    except (TypeError, ValueError):  # some callables have none; then the call itself tells
        return lambda: target(**arguments)
    try:
        signature.bind(**arguments)
    except TypeError as error:
        raise ModelSourceError(
            f"{spec} takes {signature}: {error}; give arguments as --arg key=value"
        ) from error
    return lambda: target(**arguments)
