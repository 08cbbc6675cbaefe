"""A trained model fitted into a plan, against the same plan from scratch.

    python -m benchmarks.quality.warm_start --model wrn_16_1 --budgets 50% 25%

Prints the fit's error, and accuracy after the fit, after the fit with batch norms' statistics taken
afresh, and after a tenth of the schedule from the fit and from scratch (statistics afresh too).
"""

import argparse
import statistics
import tempfile
from pathlib import Path

import torch

import planner
from benchmarks.digits import import_source
from benchmarks.quality.methods import ARCHITECTURES, INPUT, dense
from benchmarks.quality.tasks import digits
from benchmarks.quality.training import accuracy, recalibrate, train


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=ARCHITECTURES, default="wrn_16_1")
    parser.add_argument("--budgets", nargs="*", default=["50%", "25%"])
    parser.add_argument("--menu", help="generators, separated by commas")
    parser.add_argument("--epochs", type=float, default=4)
    parser.add_argument("--rate", type=float, default=0.1)
    parser.add_argument("--evidence", choices=("shape", "checkpoint"), default="checkpoint")
    options = parser.parse_args()
    torch.set_num_threads(1)
    task, architecture = digits(), ARCHITECTURES[options.model]
    torch.manual_seed(0)
    teacher = dense(architecture, task.classes)
    reached, _ = train(teacher, task, 0, options.epochs, rate=options.rate)
    print(f"{options.model} dense: {100 * reached:.2f} %", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        torch.save(teacher.state_dict(), folder / "dense.pt")
        evidence = f"checkpoint:{folder / 'dense.pt'}"
        for budget in options.budgets:
            plan = planner.plan(
                architecture.spec,
                budget,
                INPUT,
                arguments=architecture.arguments,
                evidence=evidence if options.evidence == "checkpoint" else "shape",
                generators=options.menu.split(",") if options.menu else None,
            )
            module = import_source(planner.emit(plan), folder)
            torch.manual_seed(0)
            warm = module.build()
            errors = warm.load_dense_state_dict(teacher.state_dict())
            made = [errors[one.site] for one in plan.allocation.placements if one.bank]
            fitted = accuracy(warm, task)
            recalibrate(warm, task)
            refreshed = accuracy(warm, task)
            torch.manual_seed(0)
            cold = module.build()
            tenths = []
            for model in (warm, cold):
                train(model, task, 0, options.epochs, rate=options.rate, part=0.1)
                recalibrate(model, task)
                tenths.append(accuracy(model, task))
            print(
                f"{budget:>5} {plan.parameter_count:,} parameters; error of generated tensors "
                f"{statistics.mean(made):.2f}; accuracy {100 * fitted:.1f} % as fitted, "
                f"{100 * refreshed:.1f} % with fresh statistics; after a tenth of the schedule "
                f"{100 * tenths[0]:.1f} % from the fit, {100 * tenths[1]:.1f} % from scratch",
                flush=True,
            )


if __name__ == "__main__":
    main()
