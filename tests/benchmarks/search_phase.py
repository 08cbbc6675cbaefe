"""Learn which layers share: probe, plan and train a small WideResNet on scikit-learn's digits.

The search phase is one run of one script: the probe trains for a part of the schedule, its state
dict and the agreement of its gradients go to a folder, plans are made from them, and what they emit
trains for the whole schedule. Plans from shapes alone are trained beside them.

    python tests/benchmarks/search_phase.py --budget 5% --epochs 4 --part 0.125
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file

import planner

sys.path.insert(0, str(Path(__file__).parent))
from digits import MODEL, import_source, train

BATCH, RATE = 64, 0.1


def main() -> None:
    """Run the search phase and what it is for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--depth", type=int, default=16)
    parser.add_argument("--widen", type=int, default=2)
    parser.add_argument("--budget", default="5%")
    parser.add_argument("--templates", type=int, default=4)
    parser.add_argument("--epochs", type=float, default=4)
    parser.add_argument("--part", type=float, default=0.125, help="of the schedule, for the probe")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="for the files of the search phase")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    arguments = {"depth": options.depth, "widen_factor": options.widen}
    folder = options.folder or Path(tempfile.mkdtemp())

    probe = planner.probe(
        MODEL, options.budget, templates=options.templates, arguments=arguments, seed=options.seed
    )
    emitted = import_source(planner.emit(probe), folder)
    torch.manual_seed(options.seed)
    model = emitted.build()
    with emitted.GradientRecorder(model, every=2) as recorder:
        epochs = options.epochs * options.part
        accuracy, seconds = train(
            model, options.seed, epochs, BATCH, RATE, bfloat16=False, mixing=10.0
        )
    save_file(model.state_dict(), folder / "probe.safetensors")
    recorder.save(str(folder / "agreement.safetensors"))
    print(f"{'probe':<9} {probe.parameter_count:>9,} {100 * accuracy:6.2f} % {seconds:4.0f} s")

    sources = {
        "shape": "shape",
        "learned": f"learned:{folder / 'probe.safetensors'}",
        "gradient": f"gradient:{folder / 'agreement.safetensors'}",
    }
    for name, evidence in sources.items():
        plan = planner.plan(
            MODEL, options.budget, evidence=evidence, arguments=arguments, seed=options.seed
        )
        torch.manual_seed(options.seed)
        model = import_source(planner.emit(plan), folder).build()
        accuracy, seconds = train(model, options.seed, options.epochs, BATCH, RATE, bfloat16=False)
        print(
            f"{name:<9} {plan.parameter_count:>9,} {100 * accuracy:6.2f} % {seconds:4.0f} s, "
            f"{len(plan.allocation.banks)} banks",
            flush=True,
        )


if __name__ == "__main__":
    main()
