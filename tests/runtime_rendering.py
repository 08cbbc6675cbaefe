"""Renders the runtime macros around a small architecture and imports the result as a module."""

from __future__ import annotations

import importlib.util
import itertools
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import jinja2

import planner
from planner.emission import _with_imports
from planner.emission.expressions import is_name
from planner.emission.runtime import mixer

TEMPLATES = Path(__file__).parents[1] / "templates"
_names = itertools.count()


@dataclass(frozen=True, slots=True)
class Owner:
    """A module type that owns generated tensors, as the templates read it."""

    name: str
    base: str
    parameters: tuple[str, ...]
    recurrent: bool = False
    lookup: bool = False


@dataclass(frozen=True, slots=True)
class Root:
    """The root's type, as the templates read it."""

    name: str
    base: str
    construct: str
    parameters: tuple[str, ...] = ()
    recurrent: bool = False
    sequential: bool = False


@dataclass(frozen=True, slots=True)
class Runtime:
    """The view of the runtime macros, described at the top of ``generators.py.jinja``."""

    kinds: tuple[str, ...]
    owners: tuple[Owner, ...]
    root: Root
    aliases: bool = True
    links: bool = False
    limits: bool = True
    underscored: bool = True
    banks: str = "banks"
    kept: bool = False
    shared: bool = False
    lookups: tuple[str, ...] = ()
    singles: bool = True
    dtypes: bool = False
    casts: bool = False
    frozen: tuple[str, ...] = ()
    fields: tuple[str, ...] = ("mean", "step", "zero")

    @property
    def mixer(self) -> str:
        return mixer(self.kinds)

    @property
    def mixing(self) -> bool:
        return bool({"mix", "interpolate", "tile"} & set(self.kinds))

    @property
    def linear(self) -> bool:
        return bool(set(self.kinds) - {"lowrank"})

    @property
    def recurrent(self) -> bool:
        return self.root.recurrent or any(owner.recurrent for owner in self.owners)


def layer(kind: str, *parameters: str, recurrent: bool = False, path: str = "") -> Owner:
    """The generated subclass of a ``torch.nn`` layer."""
    return Owner(f"Generated{kind}", path or f"nn.{kind}", parameters, recurrent)


def render(runtime: Runtime, architecture: str, tables: str) -> str:
    """The formatted source of a module: architecture, generators, tables and machinery."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.tests["name"] = is_name
    text = environment.from_string(
        '{% import "generators.py.jinja" as generators %}'
        '{% import "machinery.py.jinja" as machinery %}'
        '"""A model."""\n\nfrom __future__ import annotations\n\n# imports\n\n'
        "{{ architecture }}\n\n"
        "{{ generators.banks_and_generators(runtime) }}\n\n{{ tables }}\n\n"
        "{{ machinery.machinery(runtime) }}"
    ).render(runtime=runtime, architecture=architecture, tables=tables)
    return ruff(["format"], _with_imports(text))


def ruff(command: list[str], source: str) -> str:
    """The output of ruff for a source on its standard input; a failure is an error."""
    done = subprocess.run(
        [sys.executable, "-m", "ruff", *command, "--isolated", "--line-length", "100", "-"],
        input=source,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise AssertionError(done.stdout + done.stderr)
    return done.stdout


def load(source: str, folder: Path) -> ModuleType:
    """The source as an imported module of a name of its own, so that pickle finds its classes."""
    name = f"emitted_{next(_names)}"
    path = folder / f"{name}.py"
    planner.write(source, path)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
