"""What a model's specification names: a callable in a module, a file, or a library's registry."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import inspect
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from planner.errors import ModelSourceError

_FORMS = (
    "package.module:callable, path/to/file.py:callable, torchvision:NAME, timm:NAME "
    "or hf:CONFIG.json"
)
_IMAGES = (2, 3, 224, 224)


@dataclass(frozen=True, slots=True)
class Source:
    """Something that builds a model.

    ``folder`` is where its own imports are looked up; ``offers`` may have ``example_inputs``.
    """

    build: Callable[[], object]
    folder: str | None = None
    offers: object = None
    example: tuple[torch.Tensor, ...] | None = None


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


def find_source(spec: str, arguments: dict[str, Any]) -> Source:
    """The source that ``spec`` names, with ``arguments`` for its callable.

    Raises:
        ModelSourceError: there is no such thing; what an import raises is passed on.
    """
    place, separator, name = spec.rpartition(":")
    if not (separator and place and name):
        raise ModelSourceError(f"{spec!r} is not a model's specification: write {_FORMS}")
    if place in _LIBRARIES:
        return _LIBRARIES[place](name, arguments)
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
    target = _attribute(module, name, place)
    return Source(_bound(target, arguments, spec), folder, module)


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
            raise ModelSourceError(f"{place} has no {path!r}{_suggest(part, names)}")
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


def _library(name: str, extra: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise ModelSourceError(
            f"{name} is not installed: pip install npas-planner[{extra}]"
        ) from error


def _torchvision(name: str, arguments: dict[str, Any]) -> Source:
    models = _library("torchvision", "torchvision").models
    if name not in models.list_models():
        raise ModelSourceError(
            f"torchvision has no model {name!r}{_suggest(name, models.list_models())}"
        )
    # Neither weights nor a backbone's are downloaded.
    parameters = inspect.signature(models.get_model_builder(name)).parameters
    backbone = {"weights_backbone": None} if "weights_backbone" in parameters else {}
    arguments = {"weights": None, **backbone, **arguments}
    images = torch.zeros(_IMAGES)
    return Source(lambda: models.get_model(name, **arguments), example=(images,))


def _timm(name: str, arguments: dict[str, Any]) -> Source:
    timm = _library("timm", "timm")
    if not timm.is_model(name.partition(".")[0]):
        raise ModelSourceError(f"timm has no model {name!r}{_suggest(name, timm.list_models())}")
    return Source(lambda: timm.create_model(name, **{"pretrained": False, **arguments}))


def _transformers(path: str, arguments: dict[str, Any]) -> Source:
    transformers = _library("transformers", "transformers")
    try:
        config = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelSourceError(f"configuration {path} cannot be read: {error}") from error
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise ModelSourceError(f"configuration {path} has no model_type")
    config.update(arguments)
    names = config.get("architectures") or [None]

    def build() -> object:
        made = transformers.AutoConfig.for_model(**config)
        architecture = getattr(transformers, names[0], None) if names[0] else None
        if architecture is not None:
            return architecture(made)
        return transformers.AutoModel.from_config(made)

    return Source(build)


def _suggest(name: str, names: list[str]) -> str:
    close = difflib.get_close_matches(name, names, n=3)
    return f"; did you mean {' or '.join(close)}?" if close else ""


_LIBRARIES: dict[str, Callable[[str, dict[str, Any]], Source]] = {
    "torchvision": _torchvision,
    "timm": _timm,
    "hf": _transformers,
}
