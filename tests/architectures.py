"""The architectures that the task's papers compress, from their dense count to a small budget."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

import planner
from benchmarks.coverage.case import Case
from benchmarks.coverage.examination import Examination
from benchmarks.coverage.standalone import import_source, torch_alone
from planner.loading import load_model
from planner.sources import find_source

ZOO = Path(__file__).parent / "zoo"


@dataclass(frozen=True, slots=True)
class Architecture:
    """A model by specification, the budget that it is planned for, and how long its file may be."""

    name: str
    spec: str
    budget: str
    lines: int
    arguments: MappingProxyType[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    def inputs(self, batch: int = 2) -> tuple[Any, ...]:
        """The model's example with so many samples; noise in place of numbers."""
        example = load_model(self.spec, dict(self.arguments)).example
        values = (*example.args, *(value for _, value in example.kwargs)) if example else ()
        given = [torch.cat([one, one])[:batch] for one in values]
        return tuple(torch.rand_like(one) if one.is_floating_point() else one for one in given)

    def case(self) -> Case:
        """The original with random weights, as the catalogue of models has it."""
        source = find_source(self.spec, dict(self.arguments))
        return Case(self.name, "zoo", "architecture", source.build, self.inputs, batches=(2, 3))


def _zoo(name: str, file: str, budget: str, lines: int, **arguments: Any) -> Architecture:
    return Architecture(name, f"{ZOO / file}.py:{file}", budget, lines, MappingProxyType(arguments))


_PERCEIVER = {"image_size": 64, "bands": 16, "latents": 128, "width": 512, "repeats": 8}

ARCHITECTURES = {
    one.name: one
    for one in (
        _zoo("wrn-28-10", "wide_resnet", "10%", 400, depth=28, widen_factor=10),
        Architecture("resnet50", "torchvision:resnet50", "10%", 400),
        Architecture("wide_resnet50_2", "torchvision:wide_resnet50_2", "5%", 400),
        _zoo("densenet-bc", "densenet_bc", "10%", 420, depth=100, growth=12),
        Architecture("efficientnet_b0", "torchvision:efficientnet_b0", "10%", 670),
        _zoo("retrieval", "retrieval", "10%", 400),
        _zoo("grounding", "grounding", "10%", 400),
        Architecture("bert-large-qa", f"hf:{ZOO / 'bert_large_qa.json'}", "18M", 450),
        Architecture("albert-large", f"hf:{ZOO / 'albert_large.json'}", "10%", 450),
        _zoo("perceiver", "perceiver", "10%", 400, depth=6, heads=8, **_PERCEIVER),
    )
}


@dataclass(frozen=True, slots=True)
class Measured:
    """What became of an architecture: counts of parameters, lines, and its outputs' deviation."""

    dense: int
    budget: int
    emitted: int
    lines: int
    deviation: float | None


def measure(architecture: Architecture, *, equality: bool = True) -> Measured:
    """Plan and emit for the budget, build that, and run a step; compare at the dense count.

    Raises:
        AssertionError: the outputs differ, or a bank has no gradient, or the budget is exceeded.
    """
    worst = None
    if equality:
        examination = Examination(architecture.case())
        for step in (examination.runs, examination.plans):
            step()
        worst = float(str(examination.equals()["deviation"]))
    inputs = architecture.inputs()
    plan = planner.plan(
        architecture.spec, architecture.budget, inputs, arguments=dict(architecture.arguments)
    )
    source = planner.emit(plan)
    with torch_alone():
        module = import_source(source)
        model = module.build()
        emitted = sum(one.numel() for one in model.parameters() if one.requires_grad)
        assert emitted == module.PLAN["parameters"] <= module.PLAN["budget_parameters"]
        output = model(*inputs)
        while not isinstance(output, torch.Tensor):
            items = output.values() if isinstance(output, dict) else output
            output = sum(one.square().mean() for one in items)
        output.square().mean().backward()
    for name, bank in model.banks.items():
        assert bank.weight.grad is not None and bank.weight.grad.any(), name
    lines = source.count("\n")
    return Measured(plan.dense_parameters, plan.budget_parameters, emitted, lines, worst)
