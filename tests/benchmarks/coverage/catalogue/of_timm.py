"""The smallest model of each family of timm.

``timm_models.txt`` lists them. This module, run as a script, chooses them again: it builds all
models on the meta device, which takes minutes.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from pathlib import Path

import timm
import torch

from benchmarks.coverage.case import Case, image

LIST = Path(__file__).with_name("timm_models.txt")

SMALL = 96
"""Side of an image, for the models that take images of any size."""


def cases() -> list[Case]:
    """One a family."""
    return [_case(*line.split()) for line in LIST.read_text().splitlines()]


def _case(family: str, name: str, channels: str, side: str, *options: str) -> Case:
    """Of a line, which ends in the builder's options, such as ``img_size=96``."""
    sizes = {key: int(value) for key, _, value in (option.partition("=") for option in options)}
    build = functools.partial(timm.create_model, name, pretrained=False, **sizes)
    return Case(f"timm:{name}", "timm", "", build, image(int(side), int(channels)))


def smallest() -> Iterator[str]:
    """Lines for all families: family, its smallest model, channels and side of images, options."""
    for family in timm.list_modules():
        sizes = [(size, name) for name in timm.list_models(module=family) if (size := _size(name))]
        if sizes:
            _, name = min(sizes)
            channels, side, _ = timm.get_pretrained_cfg(name).input_size
            yield f"{family} {name} {channels} {_sizes(name, channels, side)}"


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
def _sizes(name: str, channels: int, side: int) -> str:
    """Of a small image that the model takes, or can be built for; or else its own."""
    small = torch.randn(2, channels, SMALL, SMALL)
    for words, sizes in ((f"{SMALL}", {}), (f"{SMALL} img_size={SMALL}", {"img_size": SMALL})):
        try:
            timm.create_model(name, pretrained=False, **sizes)(small)
        except (RuntimeError, AssertionError, ValueError, TypeError):
            continue
        return words
    return f"{side}"


if __name__ == "__main__":
    LIST.write_text("".join(f"{line}\n" for line in smallest()))
