"""Plan → standalone source: the plain architecture, the table of sites, the machinery.

Everything is decided here and in the modules beside; templates print. The result is parsed,
formatted and returned as text: a pure function of the plan.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import re
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import jinja2

from planner import __version__
from planner.emission.architecture import class_view, construct, input_doc
from planner.emission.expressions import is_name
from planner.emission.initial import resets
from planner.emission.runtime import argument_types, runtime_view
from planner.emission.tables import tables
from planner.emission.tensors import SUFFIX, beside, constants, is_stored, tensors
from planner.errors import PlannerError, TraceError
from planner.resources import template_root
from planner.topology import repeated

if TYPE_CHECKING:
    from planner.plans import Plan

__all__ = ["Emitted", "emit", "template_digest"]

LINE_LENGTH = 100


class Emitted(str):
    """A source, with what belongs into the file beside it.

    Attributes:
        tensors: a safetensors file of the constants that are too large for the source; empty if
            there are none.
    """

    __slots__ = ("tensors",)
    tensors: bytes

    def files(self, path: Path) -> dict[Path, str | bytes]:
        """All that belongs on the disk, if the source goes to ``path``."""
        return {path: str(self), **({beside(path): self.tensors} if self.tensors else {})}


def emit(plan: Plan) -> Emitted:
    """The source of the module that ``plan`` describes: it needs torch and the standard library.

    Raises:
        TraceError: the model's forward could not be captured.
        PlanFormatError: the plan holds a name or an operation that no emitted file may contain.
    """
    program, sites = plan.program, plan.sites
    again = repeated(program)
    # What is one module needs no row to be one tensor.
    apart = tuple(replace(site, aliases=_elsewhere(site.aliases, again)) for site in sites)
    if program.obstacle:
        raise TraceError(f"this plan is for reading alone: {program.obstacle}")
    placements = {placement.site: placement for placement in plan.allocation.placements}
    types = argument_types(program)
    kept = resets(program, sites, placements)
    classes = tuple(
        class_view(definition, types.get(definition.name, {}), kept.lines.get(definition.name, ()))
        for definition in program.definitions
    )
    buffers = [buffer for _, buffer in constants(program, sites)]
    root, banks = construct(program.root), plan.allocation.banks
    runtime = runtime_view(program, apart, banks, placements, root, bool(kept.table), bool(again))
    text = (
        _environment()
        .get_template("module.py.jinja")
        .render(
            version=__version__,
            digest=plan.digest,
            templates=template_digest(),
            title=runtime.root.base,
            budget=repr(plan.budget),
            budget_parameters=plan.budget_parameters,
            parameters=plan.parameter_count,
            dense=plan.dense_parameters,
            inputs=input_doc(program.example_inputs),
            outputs=input_doc(program.example_outputs),
            classes=classes,
            tables=tables(apart, banks, placements),
            initial=kept.table,
            runtime=runtime,
            unpack=any(buffer.data and not is_stored(buffer) for buffer in buffers),
            stored=any(map(is_stored, buffers)),
            suffix=SUFFIX,
        )
    )
    source = Emitted(_format(_with_imports(text)))
    source.tensors = tensors(program, sites)
    return source


def _elsewhere(names: Sequence[str], paths: Sequence[str]) -> tuple[str, ...]:
    """Those of ``names`` that are not below one of ``paths``."""
    starts = tuple(f"{path}." for path in paths)
    return tuple(name for name in names if not name.startswith(starts))


def template_digest() -> str:
    """SHA-256 over all templates: tells whether a file was rendered by this version's."""
    digest = hashlib.sha256()
    for path in sorted(template_root().glob("*.jinja")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


@functools.cache
def _environment() -> jinja2.Environment:
    # The output is Python, not HTML: every string goes through repr or an identifier check instead.
    environment = jinja2.Environment(  # noqa: S701
        loader=jinja2.FileSystemLoader(template_root()),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.tests["name"] = is_name
    return environment


_IMPORTS = (
    (r"\bbase64\.", "base64", ""),
    (r"\bcopy\.", "copy", ""),
    (r"\bhashlib\.", "hashlib", ""),
    (r"\bjson\.", "json", ""),
    (r"\bmath\.", "math", ""),
    (r"\boperator\.", "operator", ""),
    (r"\bzlib\.", "zlib", ""),
    (r"\bOrderedDict\(", "collections", "OrderedDict"),
    (r"\bIterator\b", "collections.abc", "Iterator"),
    (r"\bMapping\b", "collections.abc", "Mapping"),
    (r"@dataclass\b", "dataclasses", "dataclass"),
    (r"\bpartial\(", "functools", "partial"),
    (r"\bPath\(", "pathlib", "Path"),
    (r"\bAny\b", "typing", "Any"),
)


def _with_imports(text: str) -> str:
    """Put the imports that the body needs at the mark."""
    header, _, body = text.partition("# imports\n")
    names: dict[str, list[str]] = {}
    for pattern, module, name in _IMPORTS:
        if re.search(pattern, body):
            names.setdefault(module, []).append(name)
    plain = [
        f"from {module} import {', '.join(wanted)}" if all(wanted) else f"import {module}"
        for module, wanted in names.items()
    ]
    third = ["import torch"]
    if re.search(r"\bF\.", body):
        third.append("import torch.nn.functional as F")
    third.append("from torch import Tensor, nn")
    return header + "\n".join([*plain, "", *third]) + "\n" + body


def _format(text: str) -> str:
    """``text`` in the canonical format; a formatter's failure is an error."""
    from ruff import find_ruff_bin

    ast.parse(text)
    command = [find_ruff_bin(), "format", "--isolated", "--line-length", str(LINE_LENGTH), "-"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise PlannerError(f"the emitted source cannot be formatted: {done.stderr.strip()}")
    return done.stdout
