"""Generated weights start, and move under one step of training, as the original's would."""

import math
from collections import defaultdict
from statistics import median

import pytest
import torch
from torch.nn import functional as F

from models import SMALL, find

LARGE = 10_000


def generated(plan):
    """Names of the sites that a bank makes."""
    return [one.site for one in plan.allocation.placements if one.generator != "own"]


@pytest.mark.parametrize("budget", ["10%", "200%"])
@pytest.mark.parametrize("name", [*SMALL, "resnet50"])
def test_generated_tensors_start_as_the_originals(name, budget, plans):
    plan = plans(name, budget)
    theirs = find(name).original().state_dict()
    ours = plans.module(plan).build().dense_state_dict()
    sites = [site for site in generated(plan) if theirs[site].numel() >= LARGE]
    assert sites
    wrong = {}
    for site in sites:
        deviation = theirs[site].std()
        ratio = float(ours[site].std() / deviation)
        shift = float((ours[site].mean() - theirs[site].mean()) / deviation)
        if not (abs(ratio - 1) <= 0.05 and abs(shift) <= 0.05):
            wrong[site] = f"std ratio {ratio:.3f}, mean off by {shift:.3f} std"
    assert not wrong


@pytest.mark.parametrize("budget", ["10%", "200%"])
@pytest.mark.parametrize("name", [*SMALL, "resnet50"])
def test_kept_tensors_start_as_the_originals(name, budget, plans):
    plan = plans(name, budget)
    ours = plans.module(plan).build().dense_state_dict()
    originals = [find(name).original(seed).state_dict() for seed in (0, 1)]
    made = set(generated(plan))
    pools = defaultdict(lambda: ([], []))
    kept = [site for site in plan.sites if site.name not in made]
    assert kept
    for site in kept:
        first, second = (state[site.name] for state in originals)
        if torch.equal(first, second):
            assert torch.equal(ours[site.name], first), site.name
        else:
            mine, theirs = pools[site.owner, site.parameter, site.shape]
            mine.append(ours[site.name].flatten())
            theirs.extend((first.flatten(), second.flatten()))
    for kind, pool in pools.items():
        mine, theirs = (torch.cat(tensors) for tensors in pool)
        # Deviations of samples of these sizes: σ / √2n each for a normal, less for a uniform.
        error = math.sqrt(1 / (2 * len(mine)) + 1 / (2 * len(theirs)))
        assert abs(math.log(mine.std() / theirs.std())) <= 5 * error, kind
        error = float(theirs.std()) * math.sqrt(1 / len(mine) + 1 / len(theirs))
        assert abs(float(mine.mean() - theirs.mean())) <= 5 * error, kind


def batch_of(model, classes):
    """A batch in double precision, with random labels, or the next ids of random ids."""
    torch.manual_seed(2)
    if model.tokens:
        ids = torch.randint(model.tokens, (8, model.sample[0] + 1))
        return ids[:, :-1], ids[:, 1:].flatten()
    return torch.randn(32, *model.sample, dtype=torch.float64), torch.randint(classes, (32,))


def step(model, images, labels):
    """How far one step of SGD moves each tensor of the dense model, root mean square."""
    before = {key: value.clone() for key, value in dense(model).items()}
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-3)
    model.train()
    F.cross_entropy(model(images).flatten(0, -2), labels).backward()
    optimiser.step()
    after = dense(model)
    return {
        key: float((after[key] - before[key]).square().mean().sqrt())
        for key in before
        if before[key].is_floating_point()
    }


def dense(model):
    return model.dense_state_dict() if hasattr(model, "dense_state_dict") else model.state_dict()


@pytest.mark.parametrize("name", ["wrn-16-2", "mlp", "transformer_lm", "lstm_lm"])
def test_one_step_moves_generated_weights_as_dense_ones(name, plans):
    """A dense model that starts from the same weights and sees the same batch is the measure.

    A single site whose own gradient is small among those that share its bank is moved by theirs;
    what the bank's scale decides is how far all that it generates moves together.
    """
    model, plan = find(name), plans(name, "10%")
    emitted = plans.module(plan).build().double()
    original = model.original().double()
    original.load_state_dict(emitted.dense_state_dict(), strict=True)
    images, labels = batch_of(model, classes=10)
    ours, theirs = step(emitted, images, labels), step(original, images, labels)
    sizes = {site.name: site.size for site in plan.sites}
    ratios = {site: ours[site] / theirs[site] for site in generated(plan)}
    said = ", ".join(f"{site} {ratio:.3f}" for site, ratio in ratios.items())
    assert 1 / 3 <= median(ratios.values()) <= 3, said
    squares = defaultdict(lambda: [0.0, 0.0])
    for one in plan.allocation.placements:
        if one.bank is not None:
            squares[one.bank][0] += sizes[one.site] * ours[one.site] ** 2
            squares[one.bank][1] += sizes[one.site] * theirs[one.site] ** 2
    assert squares
    for bank, (moved, dense_moved) in squares.items():
        assert 0.4 <= math.sqrt(moved / dense_moved) <= 2.5, (bank, said)
