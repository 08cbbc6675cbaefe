"""The smallest model of each family of timm.

``timm_models.txt`` lists them. This module, run as a script, chooses them again: it builds all
models on the meta device, which takes minutes.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path

import timm
import torch
from torch import nn

from benchmarks.coverage.case import Case, image

LIST = Path(__file__).with_name("timm_models.txt")

SMALL = 96
"""Side of an image, for the models that take images of any size."""


def cases() -> list[Case]:
    """One a family."""
    lines = [line.split() for line in LIST.read_text().splitlines()]
    return [
        Case(
            f"timm:{name}",
            "timm",
            "",
            functools.partial(_build, name),
            image(int(side), int(depth)),
        )
        for _, name, depth, side in lines
    ]


def _build(name: str) -> nn.Module:
    model: nn.Module = timm.create_model(name, pretrained=False)
    return model


def smallest() -> list[tuple[str, str, int, int]]:
    """(family, its smallest model, channels and side of an image) for all families."""
    found = []
    for family in timm.list_modules():
        sizes = [(size, name) for name in timm.list_models(module=family) if (size := _size(name))]
        if sizes:
            name = min(sizes)[1]
            channels, side, _ = timm.get_pretrained_cfg(name).input_size
            found.append((family, name, channels, min(side, _side(name, channels, side))))
            print(*found[-1], flush=True)
    return found


def _size(name: str) -> int:
    """Parameters; 0 for what cannot be built from its name alone."""
    try:
        with torch.device("meta"):
            model = timm.create_model(name, pretrained=False)
    except (RuntimeError, NotImplementedError, ImportError, ValueError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 0
    return sum(parameter.numel() for parameter in model.parameters())


@torch.no_grad()
def _side(name: str, channels: int, side: int) -> int:
    """Of a small image that the model takes, or else its own."""
    try:
        _build(name)(torch.randn(2, channels, SMALL, SMALL))
    except (RuntimeError, AssertionError, ValueError):
        return side
    return SMALL


if __name__ == "__main__":
    LIST.write_text("".join(f"{' '.join(map(str, one))}\n" for one in smallest()))
