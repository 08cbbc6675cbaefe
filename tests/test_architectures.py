"""Each architecture at its small budget: the count, a step of training, and a file to read."""

from __future__ import annotations

import pytest
import torch

import planner
from architectures import ARCHITECTURES, measure
from benchmarks.coverage.comparison import TOLERANCE
from benchmarks.coverage.standalone import import_source, torch_alone

QUICK = ("resnet50", "densenet-bc")


def marked(names):
    return [
        pytest.param(
            name, marks=[pytest.mark.slow, *([pytest.mark.sample] if name in QUICK else [])]
        )
        for name in names
    ]


@pytest.mark.parametrize("name", marked(ARCHITECTURES))
def test_emitted_at_a_small_budget(name):
    architecture = ARCHITECTURES[name]
    measured = measure(architecture, equality=name not in QUICK)
    assert measured.emitted <= measured.budget < measured.dense
    assert measured.lines <= architecture.lines
    assert measured.deviation is None or measured.deviation <= TOLERANCE


@pytest.mark.slow
def test_bert_large_spends_its_budget_to_the_last_parameter():
    architecture = ARCHITECTURES["bert-large-qa"]
    plan = planner.plan(architecture.spec, architecture.budget, architecture.inputs(), verify=False)
    assert (plan.dense_parameters, plan.parameter_count) == (334_094_338, 18_000_000)
    with torch_alone():
        module = import_source(planner.emit(plan))
        with torch.device("meta"):
            model = module.install(module.BertForQuestionAnswering())
    assert sum(one.numel() for one in model.parameters()) == 18_000_000
    assert all(one.is_meta for one in model.parameters())
