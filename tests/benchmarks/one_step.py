"""One step of SGD with an emitted image classifier; prints the loss before and after it.

Usage: python one_step.py EMITTED.py
"""

import importlib.util
import sys
from pathlib import Path

import torch
from torch.nn import functional as F


def load(path):
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    module = importlib.util.module_from_spec(spec)
    # Dataclasses of the emitted file look their module up.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def one_step(model, images, labels):
    """The loss before and after one step, both in training mode on the same batch."""
    optimiser = torch.optim.SGD(model.parameter_groups(5e-4), lr=0.01, momentum=0.9)
    before = F.cross_entropy(model(images), labels)
    before.backward()
    optimiser.step()
    with torch.no_grad():
        after = F.cross_entropy(model(images), labels)
    return before.item(), after.item()


def main():
    torch.manual_seed(0)
    model = load(sys.argv[1]).build()
    count = sum(parameter.numel() for parameter in model.parameters())
    images, labels = torch.randn(8, 3, 32, 32), torch.randint(10, (8,))
    before, after = one_step(model, images, labels)
    print(f"{count:,} parameters; loss {before:.4f} before one step of SGD, {after:.4f} after")
    if not after < before:
        sys.exit("the step did not lower the loss")


if __name__ == "__main__":
    main()
