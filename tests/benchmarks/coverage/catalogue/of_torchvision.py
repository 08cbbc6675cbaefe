"""Every builder of torchvision but the quantised ones, at the size its users build."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import torch
from torch import nn
from torchvision import models

from benchmarks.coverage.case import Case, Inputs, image, tensors

SIDES = {"inception_v3": 299, "maxvit_t": 224}
"""Of images, where 64 pixels are too few: for a head in training, and for position tables."""


def cases() -> list[Case]:
    """All of them, by task."""
    return [
        *(_classification(name) for name in models.list_models(module=models)),
        *(_segmentation(name) for name in models.list_models(module=models.segmentation)),
        *(_video(name) for name in models.list_models(module=models.video)),
        *(_optical_flow(name) for name in models.list_models(module=models.optical_flow)),
        *(_detection(name) for name in models.list_models(module=models.detection)),
    ]


def _case(name: str, task: str, inputs: Callable[[int], Inputs], **arguments: object) -> Case:
    build = functools.partial(_build, name, arguments)
    return Case(f"torchvision:{name}", "torchvision", task, build, inputs)


def _build(name: str, arguments: dict[str, object]) -> nn.Module:
    model: nn.Module = models.get_model(name, weights=None, **arguments)
    return model


def _classification(name: str) -> Case:
    if name.startswith("vit_"):
        # The side is a whole number of patches, of 14, 16 or 32 pixels.
        side = 56 if name.endswith("14") else 64
        return _case(name, "classification", image(side), image_size=side)
    arguments = {"init_weights": True} if name in {"googlenet", "inception_v3"} else {}
    return _case(name, "classification", image(SIDES.get(name, 64)), **arguments)


def _segmentation(name: str) -> Case:
    auxiliary = {} if name.startswith("lraspp") else {"aux_loss": True}
    return _case(name, "segmentation", image(64), weights_backbone=None, **auxiliary)


def _video(name: str) -> Case:
    # Three of them have position tables, or a pooling, for clips of one size.
    whole = name == "s3d" or name.startswith("mvit")
    shape = (3, 16, 224, 224) if whole else (3, 8, 64, 64)
    return _case(name, "video", tensors(shape))


def _optical_flow(name: str) -> Case:
    # Its pyramid of correlations has four levels below an eighth of the side.
    return _case(name, "optical flow", tensors((3, 128, 128), (3, 128, 128)))


def _detection(name: str) -> Case:
    case = _case(name, "detection", _images, weights_backbone=None)
    # In training they want the boxes as well, and return losses.
    return dataclasses.replace(case, modes=(False,))


def _images(batch: int) -> Inputs:
    return ([torch.rand(3, 64, 64) for _ in range(batch)],)
