"""Evidence from files: planted structure is found, and files that are wrong are refused."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import planner
import site_lists
from emitted import run
from models import MODELS
from planner.errors import AllocationError, EvidenceError
from planner.evidence import SPREAD, STD_WINDOW, evidence_source, sigma
from planner.evidence.gradient import Agreement, gradient_evidence
from planner.evidence.learned import learned_evidence
from planner.ir import CandidateGroup, Evidence
from planner.summary import summarise
from runtime_rendering import load

TEMPLATES = 4
PLANTED = ((0, 3, 5, 8), (1, 2, 9), (4, 6, 7))


def alike(count=10, dtype="float32", prefix="w"):
    return [
        site_lists.weight(f"{prefix}{index}", (16, 16), 0.1, dtype=dtype) for index in range(count)
    ]


def planted(noise=0.2, seed=0):
    """Coefficients of ten sites in three groups, each of which prefers a template of its own."""
    rows = noise * np.random.default_rng(seed).standard_normal((10, TEMPLATES))
    for template, members in enumerate(PLANTED):
        rows[list(members), template] += 2.0
    return rows


def shared(evidence):
    """The groups of several sites, as sets of indices."""
    groups = [group for group in evidence.groups if len(group.members) > 1]
    return {frozenset(int(name.strip("abcdefvw.")) for name in one.members) for one in groups}


def learned(sites, rows, groups="silhouette"):
    return learned_evidence(sites, [rows.reshape(-1)], "learned:x", groups)


# --------------------------------------------------------------------------- learned


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("groups", ["silhouette", 3])
def test_planted_groups_are_found(seed, groups):
    evidence = learned(alike(), planted(seed=seed), groups)
    assert shared(evidence) == {frozenset(one) for one in PLANTED}
    assert sum(len(group.members) == 1 for group in evidence.groups) == 10


def test_the_number_of_groups():
    assert shared(learned(alike(), planted(), 1)) == {frozenset(range(10))}
    assert len(shared(learned(alike(), planted(), 2))) == 2
    # More than there are sites is each alone.
    assert shared(learned(alike(), planted(), 99)) == set()
    found = shared(learned(alike(), planted(), "any"))
    assert {frozenset(range(10)), *map(frozenset, PLANTED)} <= found


def test_without_structure_there_is_one_group():
    rows = np.arange(TEMPLATES) * np.ones((10, 1))
    assert shared(learned(alike(), rows)) == {frozenset(range(10))}
    scattered = np.random.default_rng(0).standard_normal((10, 16))
    assert shared(learned(alike(), scattered)) == {frozenset(range(10))}


def test_a_probe_that_has_hardly_trained_is_refused():
    start = np.random.default_rng(0).standard_normal((10, TEMPLATES)) * SPREAD
    with pytest.raises(EvidenceError, match="train it longer"):
        learned(alike(), start)


def test_dissimilarity_is_total_variation():
    rows = np.log(np.array([[0.5, 0.3, 0.2], [0.2, 0.3, 0.5]]))
    (whole,) = (g for g in learned(alike(2), rows, 1).groups if len(g.members) == 2)
    # ½ (0.3 + 0 + 0.3) to the other half of the elements.
    assert whole.dissimilarity == (0.15, 0.15)


def test_few_sites():
    assert learned_evidence([], [], "learned:x").groups == ()
    assert [g.members for g in learned(alike(1), planted()[:1]).groups] == [("w0",)]
    assert shared(learned(alike(2), planted()[:2])) == {frozenset({0, 1})}


def test_deviations_and_dtypes_are_kept_apart():
    wide = [replace(site, initial=replace(site.initial, std=1.0)) for site in alike()[:5]]
    sites = [*wide, *alike()[5:]]
    evidence = learned(sites, planted())
    deviation = {site.name: sigma(site) for site in sites}
    for group in evidence.groups:
        found = [deviation[name] for name in group.members]
        assert max(found) <= STD_WINDOW * min(found) * 1.001
    both = [*alike(), *alike(dtype="float64", prefix="v")]
    rows = planted().reshape(-1)
    evidence = learned_evidence(both, [rows, rows], "learned:x")
    assert all(len({name[0] for name in group.members}) == 1 for group in evidence.groups)
    assert len(evidence.groups) == 2 * (10 + 3)


def test_coefficients_of_another_model():
    for rows in (planted()[:9, :3], planted().reshape(-1)[:10], planted().reshape(-1)[:39]):
        with pytest.raises(EvidenceError, match="not of a probe of this model"):
            learned(alike(), rows)
    with pytest.raises(EvidenceError, match="2 banks"):
        learned_evidence(alike(), [planted().reshape(-1)] * 2, "learned:x")


# --------------------------------------------------------------------------- gradients


def products(seed=0):
    """Dot products of ten gradients: three groups, the first two opposed to each other."""
    rng = np.random.default_rng(seed)
    directions = np.eye(3, 200)
    directions[1] = -directions[0] + 0.1 * directions[1]
    rows = np.empty((10, 200))
    for group, members in enumerate(PLANTED):
        noise = 0.02 * rng.standard_normal((len(members), 200))
        rows[list(members)] = (directions[group] + noise) * rng.uniform(0.1, 10, (len(members), 1))
    return rows @ rows.T


def names(count=10):
    return tuple(f"w{index}" for index in range(count))


def test_conflicts_are_kept_apart_and_what_agrees_is_together():
    matrix = products()
    evidence = gradient_evidence(alike(), Agreement("x", names(), matrix, 4096), "gradient:x")
    groups = shared(evidence)
    assert {frozenset(one) for one in PLANTED} <= groups
    opposed = {*PLANTED[0]}, {*PLANTED[1]}
    assert not any(group & opposed[0] and group & opposed[1] for group in groups)
    (first,) = (g for g in evidence.groups if g.members == ("w0", "w3", "w5", "w8"))
    assert max(first.dissimilarity) < 0.1


def test_what_may_be_chance_is_no_conflict():
    """Gradients that have nothing to do with each other, as sketches of two widths see them."""
    rows = np.random.default_rng(0).standard_normal((10, 4096))
    chance = Agreement("x", names(), rows @ rows.T, 4096)
    assert frozenset(range(10)) in shared(gradient_evidence(alike(), chance, "gradient:x"))
    certain = replace(chance, width=1 << 40)
    assert frozenset(range(10)) not in shared(gradient_evidence(alike(), certain, "gradient:x"))


def test_rows_go_by_names_in_any_order():
    order = np.random.default_rng(1).permutation(10)
    mixed = Agreement("x", tuple(f"w{i}" for i in order), products()[np.ix_(order, order)], 4096)
    straight = Agreement("x", names(), products(), 4096)
    made = [gradient_evidence(alike(), one, "gradient:x") for one in (mixed, straight)]
    assert made[0] == made[1]


def test_a_site_without_gradient_is_no_reason_to_fail():
    matrix = products()
    matrix[4], matrix[:, 4] = 0.0, 0.0
    evidence = gradient_evidence(alike(), Agreement("x", names(), matrix, 4096), "gradient:x")
    assert frozenset({6, 7}) in shared(evidence)
    assert all(max(g.dissimilarity) > 0.2 for g in evidence.groups if {"w4", "w6"} <= {*g.members})


def test_an_agreement_of_other_sites():
    with pytest.raises(EvidenceError, match="'w9' is in one of them alone"):
        gradient_evidence(alike(9), Agreement("x", names(), products(), 4096), "gradient:x")


# --------------------------------------------------------------------------- files


class Malice:
    """Runs code when it is unpickled by a reader that lets it."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def refused(text, match):
    with pytest.raises(EvidenceError, match=match) as caught:
        evidence_source(text)
    assert "\n" not in str(caught.value)


def coefficients(rows=None, key="banks.bank0.coefficients"):
    rows = planted() if rows is None else rows
    return {key: torch.tensor(rows.reshape(-1)), "head.weight": torch.zeros(2, 2)}


@pytest.mark.parametrize(
    "text",
    ["", "shapes", "learned", "learned:", "gradient:", "teacher:x", ":x", "gradient:x,groups=2"]
    + [f"learned:x,{rest}" for rest in ("", "groups", "groups=0", "groups=-1", "k=2", "groups=²")]
    + ["learned:x,groups=2,groups=3", "learned:/nowhere/at/all.safetensors"],
)
def test_what_is_not_known_is_refused(text):
    refused(text, "evidence|cannot be read")


@pytest.mark.parametrize("kind", ["learned", "gradient"])
def test_files_that_are_none(kind, tmp_path):
    path = tmp_path / "file"
    whole = tmp_path / "whole"
    save_file(coefficients(), whole)
    torch.save(coefficients(), tmp_path / "whole.pt")
    contents = [b"", b"\0", b"PK\x03\x04", b"hello, this is text" * 10, b"{" * 100]
    contents += [whole.read_bytes()[:cut] for cut in (4, 9, 60, -1, -20)]
    contents += [(tmp_path / "whole.pt").read_bytes()[:cut] for cut in (10, 200, 1000, -1, -200)]
    contents += [b"\xff" * 8 + b"{" + b" " * 40, pickle.dumps({"a": 1}), pickle.dumps([])]
    for content in contents:
        path.write_bytes(content)
        refused(f"{kind}:{path}", str(path))
    refused(f"{kind}:{tmp_path}", "cannot be read")


@pytest.mark.parametrize("kind", ["learned", "gradient"])
def test_code_in_a_file_is_refused_and_does_not_run(kind, tmp_path):
    path, trace = tmp_path / "bomb.pt", tmp_path / "trace"
    torch.save({"banks.bank0.coefficients": Malice(trace)}, path)
    refused(f"{kind}:{path}", "holds more than tensors")
    path.write_bytes(pickle.dumps(Malice(trace)))
    refused(f"{kind}:{path}", "holds more than tensors")
    nested = []
    for _ in range(60):  # 2^60 lists, if one were to walk through them
        nested = [nested, nested]
    torch.save({"banks.bank0.coefficients": nested}, path)
    refused(f"{kind}:{path}", "not a tensor")
    assert not trace.exists()


def test_state_dicts_without_good_coefficients(tmp_path):
    path = tmp_path / "file.pt"
    good = coefficients()["banks.bank0.coefficients"]
    for value, match in [
        ({}, "has no coefficients"),
        ({"banks.bank0.weight": good}, "has no coefficients"),
        ({"banks.bank0.coefficients": good.view(10, 4)}, "shape 10x4"),
        ({"banks.bank0.coefficients": good[:0]}, "shape 0"),
        ({"banks.bank0.coefficients": good.long()}, "int64"),
        ({"banks.bank0.coefficients": good * torch.nan}, "NaN"),
        ({"banks.bank0.coefficients": good / 0}, "NaN or infinity"),
        ({"banks.bank0.coefficients": good, "m.banks.bank0.coefficients": good}, "twice"),
        ([good], "no state dict"),
        ({1: good}, "no state dict"),
        ({"model": {"banks.bank0.coefficients": good}}, "'model' is not a tensor"),
    ]:
        torch.save(value, path)
        refused(f"learned:{path}", match)


def test_agreements_that_are_none(tmp_path):
    path = tmp_path / "file"
    good = {
        "agreement": torch.tensor(products()),
        "sites": torch.tensor(list("\n".join(names()).encode()), dtype=torch.uint8),
        "steps": torch.tensor([3]),
        "width": torch.tensor([4096]),
    }
    skew = good["agreement"].clone()
    skew[0, 1] += 1
    for change, match in [
        ({"agreement": good["agreement"][:9]}, "9x10, with 10 sites"),
        ({"agreement": good["agreement"][:9, :9].contiguous()}, "9x9"),
        ({"agreement": good["agreement"] * torch.nan}, "NaN"),
        ({"agreement": -good["agreement"]}, "no matrix of dot products"),
        ({"agreement": skew}, "no matrix of dot products"),
        ({"sites": good["sites"].long()}, "no names"),
        ({"sites": good["sites"] | 128}, "no names"),
        ({"steps": torch.tensor([0])}, "no step"),
        ({"width": torch.tensor([0.5])}, "'width'"),
    ]:
        save_file({**good, **change}, path)
        refused(f"gradient:{path}", match)
    for key in good:
        save_file({name: value for name, value in good.items() if name != key}, path)
        refused(f"gradient:{path}", key)


def test_the_content_says_what_a_file_is(tmp_path):
    save_file(coefficients(), tmp_path / "a.pt")
    torch.save(coefficients(), tmp_path / "a.safetensors")
    torch.save(coefficients(), tmp_path / "old", _use_new_zipfile_serialization=False)
    save_file(coefficients(key="module.banks_.bank0.coefficients"), tmp_path / "wrapped")
    made = {
        evidence_source(f"learned:{tmp_path / name}")(alike())[0].groups
        for name in ("a.pt", "a.safetensors", "old", "wrapped")
    }
    assert len(made) == 1


# --------------------------------------------------------------------------- through the planner


class Net(nn.Module):
    """Ten layers of one shape, which shapes cannot tell apart."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(*(nn.Linear(16, 16) for _ in range(10)))

    def forward(self, x):
        return self.layers(x)


def test_a_plan_shares_as_the_probe_has_learned(tmp_path):
    x, path = torch.zeros(2, 16), tmp_path / "probe.safetensors"
    save_file(coefficients(), path)
    plan = planner.plan(Net(), "40%", x, evidence=f"learned:{path}")
    banks = {}
    for index, p in enumerate(p for p in plan.allocation.placements if "weight" in p.site):
        banks.setdefault(p.bank, set()).add(index)
    group_of = {index: number for number, one in enumerate(PLANTED) for index in one}
    assert all(len({group_of[index] for index in members}) == 1 for members in banks.values())
    assert plan.evidence == "learned:probe.safetensors"
    assert planner.plan(Net(), "40%", x, evidence=f"learned:{path}").to_json() == plan.to_json()
    assert planner.plan(Net(), "40%", x).to_json() != plan.to_json()
    chosen = planner.plan(Net(), "40%", x, evidence=f"learned:{path},groups=2")
    assert chosen.evidence == "learned:probe.safetensors,groups=2"


def test_the_way_from_a_probe_to_a_plan_on_the_command_line(tmp_path):
    mlp = MODELS["mlp"]
    plan = planner.probe(mlp.spec, "20%", mlp.inputs(), arguments=mlp.arguments)
    module = load(planner.emit(plan), tmp_path)
    model = module.build()
    optimiser = torch.optim.Adam(model.parameters(), lr=0.02)
    with module.GradientRecorder(model, every=1) as recorder:
        for _ in range(5):
            model(*mlp.inputs()).square().mean().backward()
            optimiser.step()
    save_file(model.state_dict(), tmp_path / "probe.safetensors")
    recorder.save(str(tmp_path / "agreement.safetensors"))
    asked = ["--evidence", f"learned:{tmp_path / 'probe.safetensors'}", "--budget", "20%"]
    done = run("-m", "planner", "plan", *mlp.command(), *asked, "-o", tmp_path / "plan.json")
    assert done.status == 0, done.messages
    assert "evidence   learned:probe.safetensors" in done.output
    evidence = f"gradient:{tmp_path / 'agreement.safetensors'}"
    plan = mlp.plan("20%", evidence=evidence)
    assert plan.evidence == summarise(plan).evidence == "gradient:agreement.safetensors"
    (tmp_path / "probe.safetensors").write_bytes(b"PK\x03\x04")
    done = run("-m", "planner", "plan", *mlp.command(), *asked, "-o", tmp_path / "none.json")
    assert done.status == 1
    assert done.messages.startswith("error: ")
    assert len(done.messages.splitlines()) == 1
    assert not (tmp_path / "none.json").exists()


def test_evidence_may_be_given_as_groups():
    x, layers = torch.zeros(2, 16), [f"layers.{index}.weight" for index in range(10)]
    halves = tuple(
        CandidateGroup(f"g{index}", tuple(half), (0.0,) * 5)
        for index, half in enumerate((layers[::2], layers[1::2]))
    )
    plan = planner.plan(Net(), "40%", x, evidence=Evidence("mine", halves))
    assert plan.evidence == "mine"
    bank_of = {p.site: p.bank for p in plan.allocation.placements if p.bank}
    assert not {bank_of[name] for name in layers[::2]} & {bank_of[name] for name in layers[1::2]}
    stranger = (CandidateGroup("g0", ("nobody",), (0.0,)),)
    with pytest.raises(AllocationError, match="nobody"):
        planner.plan(Net(), "40%", x, evidence=Evidence("mine", stranger))
    for unlike in ((), (2.0,) * 5, (float("nan"),) * 5):
        wrong = (replace(halves[0], dissimilarity=unlike),)
        with pytest.raises(EvidenceError, match="g0"):
            planner.plan(Net(), "40%", x, evidence=Evidence("mine", wrong))
