"""The same model, budget and seed give the same bytes, whatever the process."""

import json

import pytest

import planner
from emitted import run
from models import MODELS

CASES = [("wrn-16-4", "10%"), ("efficientnet_b0", "10%"), ("transformer_lm", "50%")]

# The model's own random numbers are spent before, and other modules imported.
SCRIPT = """
import json
import sys

sys.path.insert(0, "tests")
threads, cases = int(sys.argv[1]), json.loads(sys.argv[2])

import torch

torch.set_num_threads(threads)
torch.rand(threads)

from models import MODELS

import planner

made = [MODELS[name].plan(budget) for name, budget in cases]
print(json.dumps([[plan.to_json(), planner.emit(plan)] for plan in made]))
"""


@pytest.mark.parametrize(("threads", "hashes"), [(1, "0"), (2, "1"), (3, "4242")])
def test_processes_agree(threads, hashes, plans):
    expected = [[plan.to_json(), planner.emit(plan)] for plan in (plans(*case) for case in CASES)]
    done = run("-c", SCRIPT, threads, json.dumps(CASES), PYTHONHASHSEED=hashes)
    assert done.status == 0, done.messages
    assert json.loads(done.output) == expected


@pytest.mark.parametrize(("name", "budget"), [("mlp", "10%"), ("transformer_lm", "200%")])
def test_two_calls_agree(name, budget):
    first, second = (MODELS[name].plan(budget) for _ in range(2))
    assert first.to_json() == second.to_json()
    assert planner.emit(first) == planner.emit(second) == planner.emit(first)
    assert planner.Plan.from_json(first.to_json()) == first


@pytest.mark.parametrize(("name", "budget"), [("wrn-16-4", "10%"), ("lstm_lm", "10%")])
def test_another_seed_changes_the_allocation_alone(name, budget, plans):
    """Allocations that the solver cannot tell apart may differ in a few parameters."""
    one, other = plans(name, budget), plans(name, budget, seed=1)
    first, second = (json.loads(plan.to_json()) for plan in (one, other))
    changed = {key for key in {**first, **second} if first.get(key) != second.get(key)}
    assert {"seed", "allocation"} <= changed <= {"seed", "allocation", "digest"}
    assert one.parameter_count == other.parameter_count
    one, other = one.allocation, other.allocation
    assert [bank.name for bank in one.banks] == [bank.name for bank in other.banks]
    for mine, theirs in zip(one.placements, other.placements, strict=True):
        assert (mine.site, mine.generator, mine.bank) == (
            theirs.site,
            theirs.generator,
            theirs.bank,
        )
    pairs = zip(one.placements, other.placements, strict=True)
    seeds = [(mine.seed, theirs.seed) for mine, theirs in pairs if mine.generator == "hash"]
    assert seeds
    assert all(mine != theirs for mine, theirs in seeds)
