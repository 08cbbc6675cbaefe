"""Train an emitted WideResNet and its dense original on scikit-learn's digits.

Both use the dense recipe unchanged: SGD with momentum, one-cycle learning rate with a peak of 0.1,
weight decay 5e-4 (not on mixing coefficients), batches of 64, no augmentation. The 8x8 images are
enlarged to 16x16 and padded to 32x32; a fifth of the data, stratified, is held out. Prints a line a
run and writes JSON.

    python tests/benchmarks/digits.py --depth 28 --widen 10 --budget 10% --epochs 3 --seeds 0
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import statistics
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

import planner

ROOT = Path(__file__).parents[2]
MODEL = f"{ROOT / 'tests/zoo/wide_resnet.py'}:wide_resnet"


def images() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(train images, train labels, test images, test labels); images are N x 3 x 32 x 32."""
    digits = load_digits()
    pixels = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16.0
    pixels = F.interpolate(pixels, scale_factor=2, mode="bilinear")
    pixels = F.pad(pixels, (8, 8, 8, 8)).expand(-1, 3, -1, -1)
    pixels = (pixels - pixels.mean()) / pixels.std()
    labels = torch.tensor(digits.target)
    train, test = train_test_split(
        range(len(labels)), test_size=0.2, stratify=digits.target, random_state=0
    )
    return pixels[train], labels[train], pixels[test], labels[test]


def import_source(source: str, folder: Path) -> ModuleType:
    """An emitted module, imported from a file as its user would."""
    path = folder / "emitted.py"
    path.write_text(source)
    spec = importlib.util.spec_from_file_location("emitted", path)
    if spec is None or spec.loader is None:
        raise ImportError(path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["emitted"] = module
    spec.loader.exec_module(module)
    return module


def groups(model: nn.Module, decay: float) -> list[dict[str, object]]:
    """The optimiser's groups: an emitted model says which parameters do not decay."""
    if hasattr(model, "parameter_groups"):
        found: list[dict[str, object]] = model.parameter_groups(decay)
        return [group for group in found if group["params"]]
    return [{"params": list(model.parameters()), "weight_decay": decay}]


def train(
    model: nn.Module,
    seed: int,
    epochs: float,
    batch: int,
    rate: float,
    bfloat16: bool,
    mixing: float = 1.0,
) -> tuple[float, float]:
    """(test accuracy, seconds) after training ``model``, under autocast if ``bfloat16``.

    Mixing coefficients have ``mixing`` times the learning rate.
    """
    x, y, x_test, y_test = images()
    cast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16)
    if bfloat16:
        x, x_test = (part.to(memory_format=torch.channels_last) for part in (x, x_test))
    torch.manual_seed(seed)
    optimiser = torch.optim.SGD(groups(model, 5e-4), lr=rate, momentum=0.9)
    for group in optimiser.param_groups[1:]:
        group["lr"] = rate * mixing
    rates = [group["lr"] for group in optimiser.param_groups]
    steps = round(epochs * (len(x) // batch))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rates, total_steps=steps)
    begin = time.perf_counter()
    model.train()
    for epoch in range(math.ceil(epochs)):
        left = steps - epoch * (len(x) // batch)
        for index in torch.randperm(len(x)).split(batch)[: min(left, len(x) // batch)]:
            with cast:
                loss = F.cross_entropy(model(x[index]).float(), y[index])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        seconds = time.perf_counter() - begin
        print(
            f"  epoch {epoch + 1}: {loss.item():.4f}, {seconds:.0f} s", file=sys.stderr, flush=True
        )
    model.eval()
    with torch.no_grad(), cast:
        right = sum(
            int((model(part).argmax(1) == label).sum())
            for part, label in zip(x_test.split(64), y_test.split(64), strict=True)
        )
    return right / len(x_test), time.perf_counter() - begin


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--depth", type=int, default=16)
    parser.add_argument("--widen", type=int, default=2)
    parser.add_argument("--budget", nargs="*", default=["10%"])
    parser.add_argument("--generators", help="menu, separated by commas")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=0.1)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--dense", action="store_true", help="train the original as well")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bfloat16", action="store_true", help="autocast, channels last")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    arguments = {"depth": options.depth, "widen_factor": options.widen}
    results = []
    for budget in ([None] if options.dense else []) + options.budget:
        accuracies, seconds = [], []
        count = 0
        for seed in options.seeds:
            torch.manual_seed(seed)
            if budget is None:
                sys.path.insert(0, str(ROOT / "tests" / "zoo"))
                from wide_resnet import wide_resnet

                model = wide_resnet(**arguments)
            else:
                menu = options.generators.split(",") if options.generators else None
                plan = planner.plan(MODEL, budget, arguments=arguments, generators=menu)
                with tempfile.TemporaryDirectory() as folder:
                    model = import_source(planner.emit(plan), Path(folder)).build()
            count = sum(parameter.numel() for parameter in model.parameters())
            accuracy, elapsed = train(
                model, seed, options.epochs, options.batch, options.rate, options.bfloat16
            )
            accuracies.append(accuracy)
            seconds.append(elapsed)
        results.append(
            {
                "model": f"WRN-{options.depth}-{options.widen}",
                "budget": budget or "dense",
                "parameters": count,
                "accuracies": accuracies,
                "seconds": seconds,
                "epochs": options.epochs,
                "bfloat16": options.bfloat16,
                "threads": options.threads,
                "torch": torch.__version__,
            }
        )
        spread = statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0
        print(
            f"WRN-{options.depth}-{options.widen} {budget or 'dense':>6} {count:>12,} parameters: "
            f"{100 * statistics.mean(accuracies):.2f} % ± {100 * spread:.2f} "
            f"({len(accuracies)} seeds, {statistics.median(seconds):.0f} s each)",
            flush=True,
        )
    if options.output:
        planner.write(json.dumps(results, indent=2) + "\n", options.output)


if __name__ == "__main__":
    main()
