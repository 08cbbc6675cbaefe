"""Evidence from trained weights: what is read, what is refused, what it finds."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import planner
from emitted import load
from planner.errors import EvidenceError
from planner.evidence.checkpoint import (
    checkpoint_evidence,
    match_weights,
    read_checkpoint,
)
from planner.ir import Allocation, Bank, Initial, Placement, Site, Solution
from planner.reconstruction import expected_errors

torch.set_num_threads(1)


def site(name, shape, mean=0.0):
    return Site(
        name=name,
        aliases=(),
        owner="Linear",
        parameter="weight",
        shape=shape,
        dtype="float32",
        initial=Initial("normal", mean, 0.1),
        role=name,
    )


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 24), nn.ReLU(), nn.Linear(24, 24), nn.Linear(24, 8))


X = (torch.zeros(2, 12),)


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3, "optimizer": {"lr": 0.1}},
        lambda state: {"model": {f"module.{key}": value for key, value in state.items()}},
        lambda state: {f"_orig_mod.module.{key}": value for key, value in state.items()},
    ],
)
def test_state_dicts_are_found_in_wrappers_and_under_prefixes(tmp_path, wrapped):
    model = net()
    torch.save(wrapped(model.state_dict()), tmp_path / "trained.pt")
    plan = planner.plan(model, "60%", X, evidence=f"checkpoint:{tmp_path / 'trained.pt'}")
    assert plan.evidence == "checkpoint:trained.pt"
    save_file(model.state_dict(), tmp_path / "trained.pt")
    assert planner.plan(model, "60%", X, evidence=f"checkpoint:{tmp_path / 'trained.pt'}") == plan


class Bomb:
    def __reduce__(self):
        return (open, ("bomb", "w"))


def spoiled(state, key, value):
    return {**state, key: value}


def test_files_that_cannot_be_used_are_refused_with_what_to_change(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = net()
    state = model.state_dict()

    def refusal(name):
        with pytest.raises(EvidenceError) as caught:
            planner.plan(model, "60%", X, evidence=f"checkpoint:{name}")
        return str(caught.value)

    def torch_file(data):
        torch.save(data, "one.pt")
        return refusal("one.pt")

    assert "cannot be read" in refusal("nowhere.pt")
    assert "'2.weight' first" in torch_file({k: v for k, v in state.items() if k != "2.weight"})
    wrong = torch_file(spoiled(state, "2.weight", torch.zeros(3, 24)))
    assert "2.weight has shape 3x24, the model's 24x24" in wrong
    nan = torch.full((24, 24), float("nan"))
    assert "2.weight holds NaN" in torch_file(spoiled(state, "2.weight", nan))
    whole = torch.zeros(24, 24, dtype=torch.int8)
    assert "quantised" in torch_file(spoiled(state, "2.weight", whole))
    assert "no state dict" in torch_file([1, 2])
    assert "no state dict" in torch_file({"epoch": 1})
    torch.save(state, "cut.pt")
    data = (tmp_path / "cut.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(data[: len(data) // 2])
    assert "damaged" in refusal("cut.pt")
    save_file(state, "cut.safetensors")
    data = (tmp_path / "cut.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(data[: len(data) // 2])
    assert "damaged" in refusal("cut.safetensors")
    (tmp_path / "empty.pt").write_bytes(b"")
    assert "empty.pt" in refusal("empty.pt")
    torch.save({"w": Bomb()}, "bomb.pt")
    assert "more than tensors" in refusal("bomb.pt")
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps(Bomb()))
    assert "more than tensors" in refusal("plain.pkl")
    assert not (tmp_path / "bomb").exists()


def test_unknown_evidence_is_refused():
    for asked in ("checkpoint:", "checkpoint", "weights:x.pt", "shape:x"):
        with pytest.raises(EvidenceError, match="is not known"):
            planner.plan(net(), "60%", X, evidence=asked)


def evidence_of(weights):
    sites = [site(name, value.shape) for name, value in weights.items()]
    state = {name: torch.from_numpy(value) for name, value in weights.items()}
    return checkpoint_evidence(sites, match_weights("x", state, sites), "checkpoint:x")


def largest(evidence):
    group = max(evidence.groups, key=lambda one: len(one.members))
    return dict(zip(group.members, group.dissimilarity, strict=True))


def test_permuted_outputs_are_the_same_weights():
    draw = np.random.default_rng(0)
    base, other = draw.normal(size=(32, 64)), draw.normal(size=(32, 64)) ** 3
    straight = evidence_of({"a": base, "b": base, "c": other})
    permuted = evidence_of({"a": base, "b": base[draw.permutation(32)], "c": other})
    assert permuted == straight
    pair = {frozenset(group.members): group for group in permuted.groups}[frozenset("ab")]
    assert pair.dissimilarity == (0.0, 0.0)
    assert largest(permuted)["c"] > largest(permuted)["a"] > 0


def test_flat_spectra_matter_more():
    draw = np.random.default_rng(0)
    flat = draw.normal(size=(32, 64))
    steep = np.outer(draw.normal(size=32), draw.normal(size=64))
    importance = dict(evidence_of({"flat": flat, "steep": steep}).importance)
    assert importance["flat"] > 1 > importance["steep"] == 0.5


def test_expected_errors_are_those_of_the_fit(tmp_path):
    model = nn.Sequential(*[nn.Linear(48, 48) for _ in range(4)])
    torch.manual_seed(1)
    for layer in model:
        nn.init.normal_(layer.weight, std=0.1)
    path = tmp_path / "trained.pt"
    torch.save(model.state_dict(), path)
    x = (torch.zeros(2, 48),)
    for menu in (["own", "hash"], ["own", "lowrank"]):
        plan = planner.plan(model, "40%", x, evidence=f"checkpoint:{path}", generators=menu)
        weights = match_weights("x", read_checkpoint(path), plan.sites)
        expected = expected_errors(plan.sites, plan.allocation, weights)
        emitted = load(planner.emit(plan), tmp_path).build()
        errors = emitted.load_dense_state_dict(model.state_dict())
        assert expected and max(expected.values()) > 0.3
        for name, error in expected.items():
            assert error == pytest.approx(errors[name], abs=0.06), (menu, name)
            reason = next(p.reason for p in plan.allocation.placements if p.site == name)
            assert reason.endswith(f"expected error {error:.2f}")
        assert "are expected to be off by" in plan.notes[0]


def test_ties_and_mixes_of_few_directions_are_foreseen():
    draw = np.random.default_rng(0)
    templates = draw.normal(size=(2, 64))
    mixed = {f"m{i}": (draw.normal(size=2) @ templates).reshape(8, 8) for i in range(4)}
    tied = {"t0": np.ones((8, 8)), "t1": np.full((8, 8), 3.0)}
    sites = [site(name, (8, 8)) for name in (*mixed, *tied)]
    banks = (Bank("a", 128, 8, 0.1, 1), Bank("b", 64, 0, 0.1, 1))
    placements = [
        Placement(name, "mix", "", bank="a", stride=64, templates=2, coefficient=2 * i, count=2)
        for i, name in enumerate(mixed)
    ] + [Placement(name, "tie", "", bank="b") for name in tied]
    allocation = Allocation(
        200, banks, tuple(placements), Solution("cp-sat", "OPTIMAL", 0, 0), ("mix", "tie")
    )
    errors = expected_errors(sites, allocation, {**mixed, **tied})
    assert max(errors[name] for name in mixed) < 1e-6
    assert errors["t0"] == pytest.approx(1.0) and errors["t1"] == pytest.approx(1 / 3)
    less = replace(allocation, banks=(replace(banks[0], size=64), banks[1]))
    assert max(expected_errors(sites, less, {**mixed, **tied})[name] for name in mixed) > 0.1
