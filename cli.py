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
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

import planner
from planner import options
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
    model: options.Spec,
    budget: options.Budget = None,
    target_bytes: options.TargetBytes = None,
    max_gradient_bytes: options.GradientBytes = None,
    inputs: options.Inputs = None,
    inputs_from: options.InputsFrom = None,
    arguments: options.Arguments = None,
    allocator: Annotated[
        str, typer.Option(metavar="NAME", help="cp-sat, the solver, or a baseline such as ring.")
    ] = "cp-sat",
    evidence: options.Evidence = "shape",
    generators: options.Menu = None,
    constraints: options.ConstraintFile = None,
    seed: options.Seed = 0,
    effort: options.Effort = None,
    time_limit: options.TimeLimit = None,
    verify: options.Verify = True,
    output: options.PlanOutput = None,
    module: options.ModuleOutput = None,
    as_json: AsJson = False,
    every_site: EverySite = False,
) -> None:
    """Plan MODEL under a budget and report the plan."""
    _two_files(output, module)
    limits = _limits(budget, target_bytes, max_gradient_bytes)
    example, keywords = _model(inputs, inputs_from, arguments)
    # A model may print while it is built; standard output is for the report alone.
    with _watching() as progress, redirect_stdout(sys.stderr):
        made = planner.plan(
            model,
            example_inputs=example,
            **limits,
            arguments=keywords,
            evidence=evidence,
            allocator=allocator,
            generators=_menu(generators),
            constraints=constraints,
            seed=seed,
            deterministic_limit=effort,
            time_limit=time_limit,
            progress=progress,
            verify=verify,
        )
    _keep(made, output, module)
    _report(made, as_json=as_json, every_site=every_site)


@app.command("probe")
def probe_model(
    model: options.Spec,
    budget: options.Budget = None,
    target_bytes: options.TargetBytes = None,
    max_gradient_bytes: options.GradientBytes = None,
    templates: Annotated[
        int, typer.Option(metavar="K", help="Templates that all sites mix, from 2 on.")
    ] = 4,
    inputs: options.Inputs = None,
    inputs_from: options.InputsFrom = None,
    arguments: options.Arguments = None,
    seed: options.Seed = 0,
    verify: options.Verify = True,
    output: options.PlanOutput = None,
    module: options.ModuleOutput = None,
    as_json: AsJson = False,
    every_site: EverySite = False,
) -> None:
    """Plan MODEL's search-phase module: all sites share, and learn which of them are alike.

    Train it for 10 to 15 % of the schedule, save its state dict, and plan --evidence learned:FILE.
    """
    _two_files(output, module)
    limits = _limits(budget, target_bytes, max_gradient_bytes)
    example, keywords = _model(inputs, inputs_from, arguments)
    with redirect_stdout(sys.stderr):
        made = planner.probe(
            model,
            example_inputs=example,
            templates=templates,
            **limits,
            arguments=keywords,
            seed=seed,
            verify=verify,
        )
    _keep(made, output, module)
    _report(made, as_json=as_json, every_site=every_site)


@app.command()
def compare(
    model: options.Spec,
    budget: options.Budget = None,
    target_bytes: options.TargetBytes = None,
    max_gradient_bytes: options.GradientBytes = None,
    inputs: options.Inputs = None,
    inputs_from: options.InputsFrom = None,
    arguments: options.Arguments = None,
    allocators: Annotated[
        str | None, typer.Option(metavar="LIST", help="Allocators to compare: cp-sat,ring.")
    ] = None,
    evidence: options.Evidence = "shape",
    constraints: options.ConstraintFile = None,
    seed: options.Seed = 0,
    effort: options.Effort = None,
    verify: options.Verify = True,
    as_json: AsJson = False,
) -> None:
    """Allocate one budget by the solver and by the baselines, side by side."""
    from planner.columns import comparison_text, plain

    limits = _limits(budget, target_bytes, max_gradient_bytes)
    example, keywords = _model(inputs, inputs_from, arguments)
    names: dict[str, Any] = {} if allocators is None else {"allocators": _names(allocators)}
    with redirect_stdout(sys.stderr):
        made = planner.compare(
            model,
            example_inputs=example,
            **limits,
            **names,
            arguments=keywords,
            evidence=evidence,
            constraints=constraints,
            seed=seed,
            deterministic_limit=effort,
            verify=verify,
        )
    print(json.dumps(plain(made), indent=2) if as_json else comparison_text(made))


@app.command()
def curve(
    model: options.Spec,
    budgets: Annotated[str, typer.Option(metavar="LIST", help="Budgets: 1%,2%,5%,2.5M.")],
    inputs: options.Inputs = None,
    inputs_from: options.InputsFrom = None,
    arguments: options.Arguments = None,
    evidence: options.Evidence = "shape",
    generators: options.Menu = None,
    constraints: options.ConstraintFile = None,
    seed: options.Seed = 0,
    effort: options.Effort = None,
    verify: options.Verify = True,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the curve here, with plotly.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Allocate many budgets of one MODEL, and tell what each is worth."""
    from planner.charts import curve_html, require_plotly
    from planner.columns import curve_text, plain

    if html:
        require_plotly()
    example, keywords = _model(inputs, inputs_from, arguments)
    with redirect_stdout(sys.stderr):
        made = planner.curve(
            model,
            _names(budgets),
            example,
            arguments=keywords,
            evidence=evidence,
            generators=_menu(generators),
            constraints=constraints,
            seed=seed,
            deterministic_limit=effort,
            verify=verify,
        )
    if html:
        _write({html: curve_html(made)})
    bars = (sys.stdout.encoding or "").lower().startswith("utf")
    print(json.dumps(plain(made), indent=2) if as_json else curve_text(made, bars=bars))


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


def _model(
    inputs: list[str] | None, inputs_from: str | None, arguments: list[str] | None
) -> tuple[Example | None, dict[str, object]]:
    """The inputs that options give, if any, and the arguments of the model's callable."""
    from planner.examples import parse_inputs
    from planner.loading import load_inputs, parse_arguments

    if inputs and inputs_from is not None:
        raise PlannerError("--input and --inputs both give the inputs: use one of them")
    if inputs_from is not None:
        with redirect_stdout(sys.stderr):
            example: Example | None = load_inputs(inputs_from)
    else:
        example = parse_inputs(inputs) if inputs else None
    return example, parse_arguments(arguments or [])


def _two_files(output: Path | None, module: Path | None) -> None:
    if output and module and output.resolve() == module.resolve():
        raise PlannerError(f"{output} cannot hold both the plan and the module: name two files")


def _keep(plan: Plan, output: Path | None, module: Path | None) -> None:
    """Write the plan and the module that it emits, where they are wanted."""
    files: dict[Path, str | bytes] = {}
    if output:
        files[output] = plan.to_json()
    if module:
        files.update(planner.emit(plan).files(module))
    _write(files)


def _limits(
    budget: str | None, target_bytes: str | None, max_gradient_bytes: str | None
) -> dict[str, Any]:
    """The budget in the one way that it is given."""
    known = {
        "--budget": budget,
        "--target-bytes": target_bytes,
        "--max-gradient-bytes": max_gradient_bytes,
    }
    given = [name for name, value in known.items() if value is not None]
    if not given:
        raise typer.BadParameter("give one of the three", param_hint=list(known))
    if len(given) > 1:
        raise PlannerError(f"{' and '.join(given)} both say the budget: use one of them")
    return {
        "budget": budget,
        "target_bytes": target_bytes,
        "max_gradient_bytes": max_gradient_bytes,
    }


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def _menu(text: str | None) -> list[Generator] | None:
    return None if text is None else cast("list[Generator]", _names(text))


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
