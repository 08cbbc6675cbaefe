"""Train every method at every budget, and tabulate. Runs that were made are not repeated."""

import argparse
from collections.abc import Iterator
from pathlib import Path

import torch
from rich.progress import Progress

import planner
from benchmarks.quality.methods import ARCHITECTURES, METHODS, build, parameters
from benchmarks.quality.results import Result, Setting, keep, kept, plot, table, text
from benchmarks.quality.tasks import task_of
from benchmarks.quality.training import train


def settings(options: argparse.Namespace) -> Iterator[Setting]:
    """All runs; the dense model, which knows no budget, once a seed."""
    for model in options.models:
        for method in options.methods:
            for budget in [""] if method == "dense" else options.budgets:
                for seed in options.seeds:
                    yield Setting(options.task, model, method, budget, seed, options.epochs)


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="benchmarks.quality", description=__doc__)
    parser.add_argument("--task", default="digits", help="digits, cifar10 or cifar100")
    parser.add_argument("--data", type=Path, help="folder of CIFAR's binary files")
    parser.add_argument("--models", nargs="*", default=["wrn_16_2", "resnet20"])
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=METHODS)
    parser.add_argument("--budgets", nargs="*", default=["10%"])
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--epochs", type=float, default=4)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=0.1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("build/quality"))
    options = parser.parse_args(arguments)
    unknown = [name for name in options.models if name not in ARCHITECTURES]
    if unknown:
        parser.error(f"there is no model {unknown[0]!r}: use {', '.join(ARCHITECTURES)}")
    torch.set_num_threads(options.threads)
    task = task_of(options.task, options.data)
    todo, results = list(settings(options)), []
    with Progress() as progress:
        whole = progress.add_task("runs", total=len(todo))
        for setting in todo:
            found = kept(setting, options.output)
            if found is None:
                bar = progress.add_task(f"{setting.model} {setting.method} {setting.budget}")
                found = _run(setting, options, task, progress, bar)
                progress.remove_task(bar)
                keep(found, options.output)
            results.append(found)
            progress.advance(whole)
    rows = table(results)
    planner.write(text(rows), options.output / "table.md")
    plot(rows, options.output / "plot.html")
    print(text(rows), end="")


def _run(setting, options, task, progress, bar) -> Result:
    try:
        model = build(
            setting.method,
            ARCHITECTURES[setting.model],
            task.classes,
            setting.budget,
            setting.seed,
        )
    except planner.InfeasibleBudgetError as error:
        return Result(setting, refused=str(error))
    reached, seconds = train(
        model,
        task,
        setting.seed,
        setting.epochs,
        batch=options.batch,
        rate=options.rate,
        progress=lambda done, steps: progress.update(bar, completed=done, total=steps),
    )
    return Result(setting, parameters(model), reached, round(seconds, 1))


if __name__ == "__main__":
    main()
