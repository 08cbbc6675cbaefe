"""The ``npas`` command: reads options, calls the library, prints what it returns.

Results go to standard output, everything else to standard error. Modules that are slow to import
are imported in the command that needs them.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

import planner
from planner.errors import PlannerError

if TYPE_CHECKING:
    from planner.effort import Progress
    from planner.examples import Example
    from planner.ir import Generator
    from planner.plans import Plan

app = typer.Typer(
    help="Plan how a PyTorch model shares parameters under a budget, and emit it as source.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    # Help and usage errors without boxes: they read the same in a pipe, and rich is slow to import.
    rich_markup_mode=None,
)

PlanFile = Annotated[Path, typer.Argument(metavar="PLAN.json", help="A plan.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the report as JSON.")]
EverySite = Annotated[bool, typer.Option("--sites", help="List every site in a row of its own.")]


def main() -> None:
    """Run the command; an error that the user caused is one message and exit status 1."""
    try:
        app(prog_name="npas")
    except PlannerError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"npas {planner.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Options that need no command."""


@app.command("plan")
def plan_model(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="package.module:callable, path/to/file.py:callable, torchvision:NAME, timm:NAME "
            "or hf:CONFIG.json.",
        ),
    ],
    budget: Annotated[
        str, typer.Option(help="Parameters to allow: 10%, 0.1x, 18M, 2500000 or 64MB.")
    ],
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            metavar="[NAME=]SHAPE",
            help="An example input: 1x3x224x224, int64:2x64, mask=bool:2x64 or mask=None.",
        ),
    ] = None,
    inputs_from: Annotated[
        str | None,
        typer.Option(
            "--inputs",
            metavar="PLACE",
            help="A Python callable that returns example inputs: path/to/file.py:callable or "
            "package.module:callable.",
        ),
    ] = None,
    arguments: Annotated[
        list[str] | None,
        typer.Option("--arg", metavar="KEY=VALUE", help="An argument of MODEL's callable."),
    ] = None,
    generators: Annotated[
        str | None, typer.Option(metavar="LIST", help="Generators to choose from: own,mix,hash.")
    ] = None,
    constraints: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="What sharing must keep to, as TOML or JSON."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of every choice that is free.")] = 0,
    effort: Annotated[
        float | None,
        typer.Option(
            metavar="UNITS",
            help="The solver's limit, in its own seconds: the same plan on every machine.",
        ),
    ] = None,
    time_limit: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="Stop the search after so long, with the best plan found: it depends on the "
            "machine. Ctrl-C does the same.",
        ),
    ] = None,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify/--no-verify", help="Compare the captured program with the model, in numbers."
        ),
    ] = True,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write the plan here.")
    ] = None,
    module: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the emitted module here, too.")
    ] = None,
    as_json: AsJson = False,
    every_site: EverySite = False,
) -> None:
    """Plan MODEL under a budget and report the plan."""
    from planner.loading import parse_arguments

    menu = [name.strip() for name in generators.split(",")] if generators is not None else None
    if output and module and output.resolve() == module.resolve():
        raise PlannerError(f"{output} cannot hold both the plan and the module: name two files")
    example = _example(inputs or [], inputs_from)
    keywords = parse_arguments(arguments or [])
    # A model may print while it is built; standard output is for the report alone.
    with _watching() as progress, redirect_stdout(sys.stderr):
        made = planner.plan(
            model,
            budget,
            example,
            arguments=keywords,
            generators=cast("list[Generator] | None", menu),
            constraints=constraints,
            seed=seed,
            deterministic_limit=effort,
            time_limit=time_limit,
            progress=progress,
            verify=verify,
        )
    files: dict[Path, str | bytes] = {}
    if output:
        files[output] = made.to_json()
    if module:
        files.update(planner.emit(made).files(module))
    _write(files)
    _report(made, as_json=as_json, every_site=every_site)


@app.command()
def emit(
    path: PlanFile,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write the source here.")
    ] = None,
) -> None:
    """Render a plan as Python source, by default on standard output."""
    from planner.plans import read_plan

    source = planner.emit(read_plan(path))
    if output:
        _write(source.files(output))
    elif source.tensors:
        raise PlannerError(
            "this source has constants that are too large for it, in a file of their own: "
            "name the source with -o, and they go beside it"
        )
    else:
        print(source, end="")


@app.command()
def inspect(path: PlanFile, as_json: AsJson = False, every_site: EverySite = False) -> None:
    """Report a plan."""
    from planner.plans import read_plan

    _report(read_plan(path), as_json=as_json, every_site=every_site)


@app.command()
def check(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH...", help="Folders, or files NAME.plan.json.")
    ],
) -> None:
    """Compare each NAME.py with what NAME.plan.json beside it renders to; exit 1 if they differ."""
    from planner.outputs import check_outputs

    checked = check_outputs(paths)
    print(f"{len(checked)} generated file{'s' if len(checked) > 1 else ''} up to date")


@app.command()
def schema() -> None:
    """Print the JSON schema of plans."""
    from planner.plans import plan_schema

    print(json.dumps(plan_schema(), indent=2))


def _example(inputs: list[str], inputs_from: str | None) -> Example | None:
    """The inputs that options give, if any."""
    from planner.examples import parse_inputs
    from planner.loading import load_inputs

    if inputs and inputs_from is not None:
        raise PlannerError("--input and --inputs both give the inputs: use one of them")
    if inputs_from is not None:
        with redirect_stdout(sys.stderr):
            return load_inputs(inputs_from)
    return parse_inputs(inputs) if inputs else None


@contextmanager
def _watching() -> Iterator[Callable[[Progress], None] | None]:
    """What is told of the solver's progress: a line on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    from planner.reporting import progress_line

    with progress_line() as show:
        yield show


def _write(files: dict[Path, str | bytes]) -> None:
    from planner.files import write_files

    write_files(files)
    for path in files:
        print(f"wrote {path}", file=sys.stderr)


def _report(plan: Plan, *, as_json: bool, every_site: bool) -> None:
    if as_json:
        from planner.summary import summarise

        print(json.dumps(dataclasses.asdict(summarise(plan, every_site=every_site)), indent=2))
    else:
        from planner.reporting import print_report

        print_report(plan, every_site=every_site)
