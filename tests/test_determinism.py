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
def test_another_seed_changes_the_hashes_alone(name, budget, plans):
    """A seed is for the order in which hashes read; all else is the model's and the budget's."""
    one, other = plans(name, budget), plans(name, budget, seed=1)
    assert one != other
    texts = [json.loads(plan.to_json()) for plan in (one, other)]
    seeded = {"seed", "stride", "digest"}
    first, second = (without(text, seeded) for text in texts)
    assert first == second
    pairs = zip(one.allocation.placements, other.allocation.placements, strict=True)
    hashes = [pair for pair in pairs if pair[0].generator == "hash"]
    assert hashes
    assert all(first.seed != second.seed for first, second in hashes)
    for first, second in zip(one.allocation.placements, other.allocation.placements, strict=True):
        assert first == second or first.generator == "hash"


def without(value, names):
    """``value`` with the given keys of its dicts left out, at any depth."""
    if isinstance(value, dict):
        return {key: without(item, names) for key, item in value.items() if key not in names}
    if isinstance(value, (list, tuple)):
        return [without(item, names) for item in value]
    return value
