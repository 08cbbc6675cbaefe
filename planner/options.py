"""Options of the commands that take a model: each is declared once."""

# Typer reads these when a command is declared, so they are no mere annotations.
from pathlib import Path
from typing import Annotated

import typer

Spec = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="package.module:callable, path/to/file.py:callable, torchvision:NAME, timm:NAME "
        "or hf:CONFIG.json.",
    ),
]
Budget = Annotated[
    str | None, typer.Option(help="Parameters to allow: 10%, 0.1x, 18M, 2500000 or 64MB.")
]
TargetBytes = Annotated[
    str | None,
    typer.Option(metavar="SIZE", help="In place of --budget: bytes of the stored model, 64MB."),
]
GradientBytes = Annotated[
    str | None,
    typer.Option(metavar="SIZE", help="In place of --budget: bytes of a step's gradients, 10MB."),
]
Inputs = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        metavar="[NAME=]SHAPE",
        help="An example input: 1x3x224x224, int64:2x64, mask=bool:2x64 or mask=None.",
    ),
]
InputsFrom = Annotated[
    str | None,
    typer.Option(
        "--inputs",
        metavar="PLACE",
        help="A Python callable that returns example inputs: path/to/file.py:callable or "
        "package.module:callable.",
    ),
]
Arguments = Annotated[
    list[str] | None,
    typer.Option("--arg", metavar="KEY=VALUE", help="An argument of MODEL's callable."),
]
Evidence = Annotated[
    str,
    typer.Option(
        metavar="KIND",
        help="What groups are made from: shape, learned:FILE of a trained probe, with ,groups=N if "
        "wanted, gradient:FILE of its recorder, or checkpoint:FILE of trained weights.",
    ),
]
Menu = Annotated[
    str | None, typer.Option(metavar="LIST", help="Generators to choose from: own,mix,hash.")
]
PlanOutput = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write the plan here.")
]
ModuleOutput = Annotated[
    Path | None,
    typer.Option("--module", metavar="FILE", help="Write the emitted module here, too."),
]
ConstraintFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="What sharing must keep to, as TOML or JSON."),
]
Seed = Annotated[int, typer.Option(help="Seed of every choice that is free.")]
Effort = Annotated[
    float | None,
    typer.Option(
        metavar="UNITS",
        help="The solver's limit, in its own seconds: the same plan on every machine.",
    ),
]
TimeLimit = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS",
        help="Stop the search after so long, with the best plan found: it depends on the machine. "
        "Ctrl-C does the same.",
    ),
]
Verify = Annotated[
    bool,
    typer.Option(
        "--verify/--no-verify", help="Compare the captured program with the model, in numbers."
    ),
]
