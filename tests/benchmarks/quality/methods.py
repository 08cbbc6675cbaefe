"""Ways to spend a budget, each giving a model to train."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

import planner
from benchmarks.digits import import_source
from benchmarks.quality.resnet import resnet
from planner.baselines import SOLVER
from planner.budgets import parse_budget
from zoo.wide_resnet import WideResNet, wide_resnet

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
METHODS = ("dense", "narrow", "albert", "proportional", "ring", "random", "by-shape", "default")


@dataclass(frozen=True)
class Architecture:
    """A model by its specification, with arguments; and how it is built ``width`` wide."""

    name: str
    spec: str
    arguments: dict[str, int]


ARCHITECTURES = {
    "wrn_16_1": Architecture(
        "wrn_16_1", f"{ROOT}/tests/zoo/wide_resnet.py:wide_resnet", {"depth": 16, "widen_factor": 1}
    ),
    "wrn_16_2": Architecture(
        "wrn_16_2", f"{ROOT}/tests/zoo/wide_resnet.py:wide_resnet", {"depth": 16, "widen_factor": 2}
    ),
    "resnet20": Architecture("resnet20", f"{HERE}/resnet.py:resnet", {"n": 3}),
}
INPUT = (torch.zeros(2, 3, 32, 32, device="meta"),)


def parameters(model: nn.Module) -> int:
    """Trainable parameters, each once."""
    return sum(one.numel() for one in model.parameters() if one.requires_grad)


def dense(architecture: Architecture, classes: int) -> nn.Module:
    """The original."""
    if architecture.name == "resnet20":
        return resnet(**architecture.arguments, num_classes=classes)
    return wide_resnet(**architecture.arguments, num_classes=classes)


def narrow(architecture: Architecture, classes: int, budget: int) -> nn.Module:
    """The widest original of a whole number of channels that is within the budget."""

    def of(width: int) -> nn.Module:
        with torch.device("meta"):
            return of_width(architecture, classes, width)

    width = 1
    if parameters(of(width)) > budget:
        raise planner.InfeasibleBudgetError(
            f"one channel has {parameters(of(1)):,} parameters, the budget is {budget:,}",
            budget=budget,
            minimum=parameters(of(1)),
        )
    while parameters(of(width + 1)) <= budget:
        width += 1
    return of_width(architecture, classes, width)


def of_width(architecture: Architecture, classes: int, width: int) -> nn.Module:
    """The original with ``width`` channels where it has 16."""
    if architecture.name == "resnet20":
        return resnet(**architecture.arguments, width=width, num_classes=classes)
    model = WideResNet(architecture.arguments["depth"], 1, classes)
    return _scaled(model, width)


def _scaled(model: nn.Module, width: int) -> nn.Module:
    """A WideResNet of widen factor 1 with ``width`` channels for 16."""

    def to(channels: int) -> int:
        return channels * width // 16 if channels >= 16 else channels

    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            made: nn.Module | None = None
            if isinstance(child, nn.Conv2d):
                made = nn.Conv2d(
                    to(child.in_channels), to(child.out_channels), child.kernel_size,
                    child.stride, child.padding, bias=False,
                )  # fmt: skip
            elif isinstance(child, nn.BatchNorm2d):
                made = nn.BatchNorm2d(to(child.num_features))
            elif isinstance(child, nn.Linear):
                made = nn.Linear(to(child.in_features), child.out_features)
            if made is not None:
                setattr(module, name, made)
    return model


def build(
    method: str, architecture: Architecture, classes: int, budget: str, seed: int
) -> nn.Module:
    """A fresh model; a rule that the budget is too small for is an InfeasibleBudgetError."""
    torch.manual_seed(seed)
    if method == "dense":
        return dense(architecture, classes)
    if method == "narrow":
        whole = parameters(dense(architecture, classes))
        return narrow(architecture, classes, parse_budget(budget, whole))
    plan = planner.plan(
        architecture.spec,
        budget,
        INPUT,
        arguments={**architecture.arguments, "num_classes": classes},
        allocator=SOLVER if method == "default" else method,
        seed=seed,
    )
    torch.manual_seed(seed)
    with tempfile.TemporaryDirectory() as folder:
        return import_source(planner.emit(plan), Path(folder)).build()
