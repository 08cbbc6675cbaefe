"""Probes: one ring for all sites, blended, within the budget, with a recorder of gradients."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

import planner
import site_lists
from models import MODELS
from planner.errors import AllocationError, InfeasibleBudgetError, PlannerError
from planner.evidence import SPREAD
from planner.ir import Buffer
from planner.probing import probing
from planner.validation import check, parameter_count
from runtime_rendering import load

LM = MODELS["transformer_lm"]


def probe(model, budget="20%", **options):
    return planner.probe(model.spec, budget, model.inputs(), arguments=model.arguments, **options)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    plan = probe(LM)
    return plan, load(planner.emit(plan), tmp_path_factory.mktemp("probe"))


class Gated(nn.Module):
    """Layers with scales that start at a constant, and look-ups in a table."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(50, 12)
        self.mixed = nn.Linear(12, 12)
        self.gate = nn.Parameter(torch.zeros(12, 12))
        self.head = nn.Linear(12, 50)

    def forward(self, ids):
        x = self.table(ids)
        return self.head(x + self.mixed(x) @ self.gate)


def test_a_probe_survives_json_and_counts_as_planned(made):
    plan, module = made
    assert planner.Plan.from_json(plan.to_json()) == plan
    model = module.build()
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == plan.parameter_count <= plan.budget_parameters
    assert count >= 0.999 * plan.budget_parameters
    assert len(plan.allocation.banks) == 1
    made_by = {p.site: p.generator for p in plan.allocation.placements}
    assert all(made_by[s.name] == ("blend" if s.shareable else "own") for s in plan.sites)
    assert probe(LM).to_json() == plan.to_json()


def test_sites_have_their_deviation_and_are_the_formula(made):
    plan, module = made
    model = module.build()
    dense = model.dense_state_dict()
    placements = {p.site: p for p in plan.allocation.placements}
    bank = model.banks["bank0"]
    for site in plan.sites:
        p = placements[site.name]
        if p.generator == "own":
            continue
        assert dense[site.name].std().item() == pytest.approx(site.initial.std, rel=0.05)
        shares = bank.coefficients[p.coefficient :][: p.count].softmax(0)
        places = torch.arange(site.size)
        expected = sum(
            share * bank.weight[(k * p.stride + places) % len(bank.weight)]
            for k, share in enumerate(shares)
        )
        torch.testing.assert_close(dense[site.name].view(-1), p.mean + p.scale * expected)
    spread = bank.coefficients.std().item()
    assert spread == pytest.approx(SPREAD, rel=0.35)
    assert len(bank.coefficients.unique()) == len(bank.coefficients)


def test_a_probe_trains_and_every_parameter_has_a_gradient(made):
    model = made[1].build()
    ids = LM.inputs()[0]
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(12):
        logits = model(ids)
        loss = nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
        optimiser.zero_grad()
        loss.backward()
        losses.append(loss.item())
        assert (model.banks["bank0"].coefficients.grad != 0).all()
        assert (model.banks["bank0"].weight.grad != 0).float().mean() > 0.99
        optimiser.step()
    assert losses[-1] < 0.8 * losses[0]


def test_state_and_rows(made):
    _, module = made
    model = module.build()
    again = module.build()
    again.load_state_dict(model.state_dict())
    ids = LM.inputs()[0]
    with torch.no_grad():
        plain = LM.original()
        plain.load_state_dict(model.dense_state_dict())
        torch.testing.assert_close(again.eval()(ids), plain.eval()(ids))
        # Fewer ids than rows: the table is looked up, not made.
        torch.testing.assert_close(again(ids[:, :5]), plain(ids[:, :5]))


def test_constant_starts_stay_constant_and_learn(tmp_path):
    torch.manual_seed(0)
    ids = torch.randint(50, (2, 7))
    plan = planner.probe(Gated(), "50%", ids)
    assert "gate" in {p.site for p in plan.allocation.placements if p.zero}
    model = load(planner.emit(plan), tmp_path).build()
    assert (model.gate == 0).all()
    model(ids).square().mean().backward()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    optimiser.step()
    assert (model.gate != 0).any()


def test_a_ring_smaller_than_its_sites_is_read_over_and_over(tmp_path):
    plan = probe(LM, "8%")
    bank = plan.allocation.banks[0]
    assert any(site.size > bank.size for site in plan.sites)
    model = load(planner.emit(plan), tmp_path).build()
    name = max((s for s in plan.sites if s.shareable), key=lambda site: site.size).name
    flat = model.dense_state_dict()[name].view(-1)
    torch.testing.assert_close(flat[bank.size :], flat[: -bank.size])


@pytest.mark.parametrize("templates", [2, 3, 4, 7])
@pytest.mark.parametrize("dtypes", [1, 2])
def test_any_budget_from_the_least_on_is_valid(templates, dtypes):
    sites = [
        site_lists.weight(f"{dtype}{n}", (n, 3), 0.1, dtype=dtype)
        for dtype in ("float32", "float64")[:dtypes]
        for n in (1, 2, 5, 11)
    ]
    with pytest.raises(InfeasibleBudgetError) as caught:
        probing(sites, 1, templates)
    least, counts = caught.value.minimum, []
    for budget in range(least, least + 500, 11):
        allocation = probing(sites, budget, templates)
        check(sites, allocation)
        counts.append(parameter_count(sites, allocation))
    assert counts == sorted(counts)
    assert counts[0] == least
    # No bank is larger than what its largest site reads.
    assert counts[-1] == dtypes * (templates * 33 + 4 * templates)
    with pytest.raises(InfeasibleBudgetError):
        probing(sites, least - 1, templates)


def test_what_is_not_shared_stays_and_nothing_to_share_is_an_error():
    frozen = replace(site_lists.weight("frozen", (8, 8), 0.1), trainable=False)
    values = replace(frozen, name="table", values=Buffer("table", (8, 8), "float32", True))
    bias = site_lists.vector("bias", 8)
    sites = [frozen, bias, site_lists.weight("w", (8, 8), 0.1), values]
    generators = [p.generator for p in probing(sites, 100, 2).placements]
    assert generators == ["own", "own", "blend", "own"]
    with pytest.raises(PlannerError, match="nothing to probe"):
        probing([frozen, bias], 100, 2)


def test_templates_out_of_range():
    for count in (-1, 0, 1, 65):
        with pytest.raises(PlannerError, match="2 to 64"):
            planner.probe(nn.Linear(4, 4), "50%", torch.zeros(1, 4), count)


def test_validation_refuses_a_blend_that_cannot_be_told_apart():
    sites = [site_lists.weight("w", (8, 8), 0.1)]
    allocation = probing(sites, 60, 4)
    (placement,) = allocation.placements
    for wrong in ({"stride": 0}, {"templates": 1, "count": 1}, {"step": 0.5}, {"count": 3}):
        broken = replace(allocation, placements=(replace(placement, **wrong),))
        with pytest.raises(AllocationError):
            check(sites, broken)


def test_only_probes_have_a_recorder(plans):
    assert "GradientRecorder" not in planner.emit(plans("mlp", "10%"))
    assert "softmax(0)" not in planner.emit(plans("transformer_lm", "10%"))


def test_the_command_writes_plan_and_module(tmp_path):
    plan, module = tmp_path / "probe.plan.json", tmp_path / "probe.py"
    command = [sys.executable, "-m", "planner", "probe", *MODELS["mlp"].command()]
    command += ["--budget", "20%", "--templates", "3", "-o", str(plan), "--module", str(module)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "K=3" in done.stdout
    assert "evidence   probe" in done.stdout
    read = planner.Plan.from_json(plan.read_text())
    assert planner.emit(read) == module.read_text()


# --------------------------------------------------------------------------- gradients


class Opposed(nn.Module):
    """Two layers that want the same of their weights, and one that wants the opposite."""

    def __init__(self):
        super().__init__()
        self.a = nn.Linear(6, 6, bias=False)
        self.b = nn.Linear(6, 6, bias=False)
        self.c = nn.Linear(6, 6, bias=False)

    def forward(self, x):
        return self.a(x) + self.b(x) - self.c(x)


@pytest.fixture(scope="module")
def opposed(tmp_path_factory):
    plan = planner.probe(Opposed(), "80%", torch.randn(4, 6), 2)
    return load(planner.emit(plan), tmp_path_factory.mktemp("opposed"))


def record(module, steps=8, train=True, **options):
    torch.manual_seed(0)
    model = module.build().train(train)
    data = torch.randn(steps, 4, 6)
    with module.GradientRecorder(model, **options) as recorder:
        for x in data:
            model.zero_grad()
            model(x).sum().backward()
    return model, recorder


def test_the_recorder_finds_planted_conflicts(opposed):
    _, recorder = record(opposed, every=1)
    norms = recorder.products.diagonal().sqrt()
    cosines = recorder.products / (norms[:, None] * norms[None, :])
    # Mixtures differ a little at the start, and so do the gradients that they carry back.
    assert recorder.steps == 8
    assert cosines[0, 1] > 0.8
    assert cosines[0, 2] < -0.8
    assert cosines[1, 2] < -0.8


def test_the_recorder_agrees_with_gradients_through_each_site_alone(opposed):
    """Exact, where the sketch is as wide as the bank."""
    torch.manual_seed(0)
    model = opposed.build()
    bank, x = model.banks["bank0"], torch.randn(4, 6)
    alone = []
    for name in opposed.SITES:
        weights = model.dense_state_dict()
        weights[name] = bank(opposed.SITES[name], weights[name].shape)
        out = x @ weights["a.weight"].T + x @ weights["b.weight"].T - x @ weights["c.weight"].T
        alone.append(torch.autograd.grad(out.square().sum(), bank.weight)[0])
    exact = torch.stack(alone) @ torch.stack(alone).T
    with opposed.GradientRecorder(model, every=1) as recorder:
        model(x).square().sum().backward()
    torch.testing.assert_close(recorder.products.float(), exact)


def test_recording_changes_no_gradient_and_every_nth_forward_counts(opposed):
    watched, recorder = record(opposed, every=3)
    assert recorder.steps == 3
    torch.manual_seed(0)
    model = opposed.build()
    model(torch.randn(8, 4, 6)[-1]).sum().backward()
    for one, other in zip(watched.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)
    assert not watched._forward_pre_hooks
    assert not watched.banks["bank0"]._forward_hooks
    assert record(opposed, train=False)[1].steps == 0


def test_what_is_recorded_is_the_same_again(opposed):
    first, second = record(opposed)[1], record(opposed)[1]
    assert torch.equal(first.products, second.products)


def test_a_sketch_narrower_than_the_bank_keeps_products(made):
    """The estimate's deviation is about 1 / sqrt(width) of the norms' product."""
    _, module = made
    found = []
    for width in (1 << 20, 1 << 12):
        torch.manual_seed(0)
        model = module.build()
        with module.GradientRecorder(model, every=1, width=width) as recorder:
            model(LM.inputs()[0]).square().mean().backward()
        found.append(recorder.products)
    norms = found[0].diagonal().sqrt()
    off = (found[0] - found[1]).abs() / (norms[:, None] * norms[None, :])
    assert off.max() < 6 / (1 << 6)


def test_the_file_needs_no_safetensors(opposed, tmp_path, monkeypatch):
    _, recorder = record(opposed)
    recorder.save(str(tmp_path / "a.safetensors"))
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    recorder.save(str(tmp_path / "b.safetensors"))
    monkeypatch.undo()
    groups = [
        planner.plan(
            Opposed(), "60%", torch.randn(4, 6), evidence=f"gradient:{tmp_path / file}"
        ).allocation
        for file in ("a.safetensors", "b.safetensors")
    ]
    assert groups[0] == groups[1]
