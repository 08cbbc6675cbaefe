"""What users ask of an allocation: files, patterns, every kind of constraint, and conflicts."""

import itertools
import json

import pytest

import site_lists
from emitted import Command
from models import ZOO
from planner.allocation import allocate
from planner.conflicts import _feasible
from planner.constraints import (
    Apart,
    BudgetPerGroup,
    MaxCompression,
    MinTemplates,
    Pin,
    SameBankAs,
    Tie,
    Together,
    UseGenerator,
    parse_constraints,
    read_constraints,
    resolve,
)
from planner.errors import ConstraintConflictError, ConstraintError, InfeasibleBudgetError
from planner.evidence import dissimilarity, shape_evidence
from planner.formulation import formulate
from planner.ir import MENU
from planner.rules import widen
from planner.validation import check, parameter_count

SITES = site_lists.wide_resnet(widths=(16, 32, 64), blocks=2)
DENSE = site_lists.dense_count(SITES)
FIRST, SECOND, THIRD = "layer0.*", "layer1.*", "layer2.*"


def allocated(*constraints, budget=DENSE // 5, sites=SITES):
    allocation = allocate(
        sites,
        shape_evidence(sites),
        budget,
        rules=resolve(constraints, sites),
        deterministic_limit=0.5,
    )
    check(sites, allocation)
    return allocation


def matched(allocation, start):
    """The placements of what a pattern such as ``layer0.*`` matches and norms do not."""
    return [
        one
        for one in allocation.placements
        if one.site.startswith(start.rstrip("*")) and "bn" not in one.site
    ]


def banks_of(allocation, start):
    return {one.bank for one in matched(allocation, start)}


def elements(allocation, bank):
    made = {one.site for one in allocation.placements if one.bank == bank}
    return sum(site.size for site in SITES if site.name in made)


def test_pinned_sites_keep_their_own_parameters():
    assert all(one.generator != "own" for one in matched(allocated(), "conv1"))
    for one in matched(allocated(Pin("conv1"), Pin(kind="Linear")), "conv1"):
        assert (one.generator, one.reason) == ("own", 'asked for: pin "conv1"')


def test_sites_together_read_one_bank():
    assert len(banks_of(allocated(), "layer")) > 1
    (bank,) = banks_of(allocated(Together("layer*.conv?")), "layer2.1.conv")
    assert bank is not None
    everything = allocated(Together(["layer*.conv?", "fc"]))
    assert {one.bank for one in matched(everything, "fc")} == banks_of(everything, "layer1.0.conv")


def test_sets_that_overlap_are_all_together():
    rules = Together("layer[01].*.conv1"), Together("layer[12].*.conv1")
    allocation = allocated(*rules)
    used = {one.bank for one in allocation.placements if one.site.endswith(".conv1")}
    assert len(used) == 1
    assert None not in used


def test_patterns_kept_apart_share_no_bank():
    free = allocated()
    assert banks_of(free, SECOND) & banks_of(free, THIRD) - {None}
    parted = allocated(Apart([FIRST, SECOND, THIRD]))
    for one, other in itertools.combinations((FIRST, SECOND, THIRD), 2):
        assert not banks_of(parted, one) & banks_of(parted, other) - {None}


def test_one_pattern_keeps_all_that_it_matches_apart():
    used = [one.bank for one in matched(allocated(Apart("layer2.*")), THIRD) if one.bank]
    assert len(used) == len(set(used)) > 1


def test_same_bank_as_another_site():
    allocation = allocated(SameBankAs("fc", site="layer2.1.conv2"))
    assert banks_of(allocation, "fc") == banks_of(allocation, "layer2.1.conv2") != {None}


def test_tied_sites_are_one_tensor():
    allocation = allocated(Tie("layer2.?.conv2"), budget=DENSE // 2)
    first, second = matched(allocation, "layer2.0.conv2") + matched(allocation, "layer2.1.conv2")
    assert (first.generator, first.bank, first.scale) == ("tie", second.bank, second.scale)
    assert {one.generator for one in allocation.placements if one.site != first.site} > {"own"}


def test_tied_sites_of_different_deviations_are_one_tensor_too():
    embedding = site_lists.weight("embedding", (64, 16), 0.5, owner="Embedding")
    head = site_lists.weight("head", (64, 16), 0.1)
    sites = [embedding, head, site_lists.weight("other", (64, 64), 0.1)]
    allocation = allocated(Tie(["embedding", "head"]), budget=3000, sites=sites)
    first, second, _ = allocation.placements
    assert (first.generator, first.scale, first.bank) == ("tie", second.scale, second.bank)


def test_a_constraint_on_a_part_of_a_tie_is_one_on_all_of_it():
    with pytest.raises(ConstraintConflictError, match="exclude each other"):
        allocated(Tie("layer2.?.conv2"), Pin("layer2.0.conv2"), budget=DENSE)


def test_generated_sites_mix_the_templates_asked_for():
    assert {one.templates for one in matched(allocated(), THIRD)} != {8}
    for one in matched(allocated(MinTemplates(FIRST, templates=8)), FIRST):
        assert one.generator == "own" or one.templates >= 8


@pytest.mark.parametrize("ratio", [2, 3.5])
def test_a_bank_makes_no_more_than_the_ratio_allows(ratio):
    allocation = allocated(MaxCompression(FIRST, ratio=ratio))
    sizes = {bank.name: bank.size for bank in allocation.banks}
    for bank in banks_of(allocation, FIRST) - {None}:
        assert elements(allocation, bank) <= ratio * sizes[bank]
    free = allocated()
    sizes = {bank.name: bank.size for bank in free.banks}
    assert any(
        elements(free, bank) > ratio * sizes[bank] for bank in banks_of(free, FIRST) - {None}
    )


@pytest.mark.parametrize("budget", ["10%", 4000])
def test_a_part_of_the_model_has_a_budget_of_its_own(budget):
    members = [site for site in SITES if site.name.startswith("layer2.")]
    most = sum(site.size for site in members) // 10 if budget == "10%" else budget

    def spent(allocation):
        placements = {one.site: one for one in allocation.placements}
        mine = [placements[site.name] for site in members]
        used = {one.bank for one in mine}
        own = sum(site.size for site in members if placements[site.name].generator == "own")
        return own + sum(
            bank.size + sum(one.count for one in mine if one.bank == bank.name)
            for bank in allocation.banks
            if bank.name in used
        )

    assert spent(allocated()) > most
    allocation = allocated(BudgetPerGroup("layer2.*", budget=budget))
    assert spent(allocation) <= most
    assert parameter_count(SITES, allocation) > 0.99 * allocation.budget


@pytest.mark.parametrize("names", [("lowrank",), ("hash", "own"), ("own",)])
def test_generators_of_some_sites(names):
    allocation = allocated(UseGenerator(THIRD, use=names), budget=DENSE)
    assert {one.generator for one in matched(allocation, THIRD)} <= {*names}


def test_kinds_narrow_patterns_and_report_patterns_are_understood():
    assert len(resolve([Pin(kind="Conv2d")], SITES)[0].members) == 15
    listed = resolve([Pin("layer{0..2}.{0,1}.conv1")], SITES)[0].members
    assert listed == resolve([Pin("layer*.conv1")], SITES)[0].members
    assert len(listed) == 6


FILE = """
[[pin]]
sites = ["conv1", "fc"]
name = "ends"

[[max_compression]]
kind = "Conv2d"
ratio = 20

[same_bank_as]
sites = "layer0.0.short"
site = "layer1.0.short"
"""


def test_toml_and_json_say_the_same(tmp_path):
    toml, js = tmp_path / "rules.toml", tmp_path / "rules.json"
    toml.write_text(FILE)
    js.write_text(
        json.dumps(
            {
                "pin": [{"sites": ["conv1", "fc"], "name": "ends"}],
                "max_compression": [{"kind": "Conv2d", "ratio": 20}],
                "same_bank_as": {"sites": "layer0.0.short", "site": "layer1.0.short"},
            }
        )
    )
    assert read_constraints(toml) == read_constraints(js)
    assert [one.label for one in read_constraints(toml)] == [
        'pin "ends"',
        'max_compression "*" of Conv2d',
        'same_bank_as "layer0.0.short"',
    ]


REFUSED = {
    "no table": ([1], "maps kinds to tables"),
    "unknown kind": ({"pins": []}, "'pins' is no constraint; there are pin, together"),
    "unknown field": ({"pin": [{"site": "fc"}]}, r"pin\[0\] has no field 'site'; there are sites"),
    "no pattern": ({"pin": [{"name": "x"}]}, r"pin\[0\] needs sites"),
    "a number": ({"pin": [{"sites": 3}]}, r"pin\[0\]: sites must be a text"),
    "missing": ({"max_compression": {"sites": "fc"}}, r"max_compression\[0\] needs .* 'ratio'"),
    "not a table": ({"tie": ["fc"]}, r"tie\[0\] is not a table"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_files_that_make_no_sense(case):
    data, message = REFUSED[case]
    with pytest.raises(ConstraintError, match=message):
        parse_constraints(data)


UNFIT = {
    "nothing matches": (Pin("layer7.*"), r'pin "layer7.\*": no parameter of the model matches'),
    "similar": (Pin("layer0.0.con1"), r"similar names: layer0.0.conv1"),
    "no such kind": (Pin(kind="LSTM"), "no parameter belongs to the kind 'LSTM'; there are Conv2d"),
    "kept anyway": (Together("*.bn1"), r"matches only tensors that keep their own .* \(a bias\)"),
    "other shapes": (Tie("layer?.1.conv2"), "layer0.1.conv2 is 16 x 16 x 3 x 3 of float32, layer1"),
    "one tensor": (Tie("fc"), "matches fc alone, a tie needs two"),
    "anchor": (SameBankAs("fc", site="layer9"), "no parameter of the model matches the site"),
    "kept anchor": (SameBankAs("fc", site="layer0.0.bn1"), "nothing can read its bank"),
    "both sides": (Apart(["layer0.*", "*.conv1"]), "two of the patterns match 'layer0.0.conv1'"),
    "templates": (MinTemplates("fc", templates=1), "templates must be from 2 to 16"),
    "ratio": (MaxCompression("fc", ratio=0.5), "ratio must be from 1 to"),
    "text": (MaxCompression("fc", ratio="two"), "ratio must be a number"),
    "budget": (BudgetPerGroup("fc", budget="much"), "budget 'much' cannot be read"),
    "generator": (UseGenerator("fc", use="magic"), "'magic' is not one of own, mix"),
    "no generator": (UseGenerator("fc"), "use must name one or more of own, mix"),
}


@pytest.mark.parametrize("case", UNFIT)
def test_constraints_that_do_not_fit_the_model(case):
    constraint, message = UNFIT[case]
    with pytest.raises(ConstraintError, match=message):
        resolve([constraint], SITES)


def test_a_bank_has_one_dtype():
    sites = [
        site_lists.weight("a", (8, 8), 0.1),
        site_lists.weight("b", (8, 8), 0.1, dtype="float16"),
    ]
    with pytest.raises(ConstraintError, match="these sites have float16 and float32"):
        allocated(Together("?"), budget=100, sites=sites)


# Constraints, the budget, the labels in the smallest conflict, and what would help.
CONFLICTS = {
    "pin and together": (
        [Pin(FIRST), Pin("fc"), Together("layer0.*.conv?")],
        DENSE,
        {'pin "layer0.*"', 'together "layer0.*.conv?"'},
        "exclude each other; drop",
    ),
    "pin and budget": (
        [Pin(THIRD), Pin("conv1")],
        DENSE // 10,
        {'pin "layer2.*"', "budget"},
        "raise the budget to",
    ),
    "apart and same bank": (
        [SameBankAs("fc", site="layer2.1.conv2"), Apart(["fc", "layer2.*"]), Pin("conv1")],
        DENSE // 5,
        {'same_bank_as "fc"', 'apart "fc", "layer2.*"'},
        "drop",
    ),
    "three of them": (
        [Together(["fc", "conv1"]), Together(["conv1", "layer0.0.conv1"]),
         Apart(["fc", "layer0.0.conv1"])],
        DENSE // 5,
        {'together "fc", "conv1"', 'together "conv1", "layer0.0.conv1"',
         'apart "fc", "layer0.0.conv1"'},
        "exclude each other; drop",
    ),
    "generator and templates": (
        [UseGenerator(THIRD, use="hash"), MinTemplates("layer2.0.*", templates=4)],
        DENSE // 5,
        {'generator "layer2.*"', 'min_templates "layer2.0.*"'},
        "drop",
    ),
    "ratio and budget": (
        [MaxCompression("*", ratio=2)],
        DENSE // 5,
        {'max_compression "*"', "budget"},
        'raise the ratio of max_compression "*" to',
    ),
    "too little for a part": (
        [BudgetPerGroup(THIRD, budget=200), Pin("layer2.1.conv2")],
        DENSE,
        {'budget_per_group "layer2.*"'},
        'raise the budget of budget_per_group "layer2.*" to',
    ),
    "templates and budget": (
        [MinTemplates(THIRD, templates=16), UseGenerator(THIRD, use="mix")],
        DENSE,
        {'min_templates "layer2.*"', 'generator "layer2.*"', "budget"},
        'lower the templates of min_templates "layer2.*" to 6',
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CONFLICTS)
def test_conflicts_are_explained(case):
    constraints, budget, names, change = CONFLICTS[case]
    with pytest.raises(ConstraintConflictError) as caught:
        allocated(*constraints, budget=budget)
    assert {*caught.value.names} == names
    assert change in str(caught.value)


def test_the_changes_proposed_are_enough_and_the_least():
    constraints = [Pin(THIRD), Pin("conv1")]
    with pytest.raises(ConstraintConflictError) as caught:
        allocated(*constraints, budget=DENSE // 10)
    words = str(caught.value).replace(",", "").split("raise the budget to ")[1]
    least = int(words.split()[0])
    assert parameter_count(SITES, allocated(*constraints, budget=least)) <= least
    with pytest.raises(ConstraintConflictError):
        allocated(*constraints, budget=least - 1)


def test_the_conflict_named_is_a_smallest_one():
    """Every smaller set of constraints can be kept, by trying all of them."""
    constraints = [
        Pin("fc"),
        Together(["fc", "layer0.0.conv1"]),
        Together(["conv1", "layer0.0.conv1"]),
        Apart(["conv1", "layer0.0.conv1"]),
        UseGenerator("conv1", use="own"),
    ]
    rules = resolve(constraints, SITES)
    budget = DENSE // 5
    evidence = widen(shape_evidence(SITES), SITES, rules, dissimilarity)
    problem = formulate(SITES, evidence, MENU, rules)
    sizes = [
        len(chosen)
        for count in range(len(rules) + 1)
        for chosen in itertools.combinations(range(len(rules)), count)
        if not _feasible(problem, frozenset(chosen), budget)
    ]
    with pytest.raises(ConstraintConflictError) as caught:
        allocated(*constraints, budget=budget)
    assert len(caught.value.names) == min(sizes) == 2


def test_a_budget_that_is_too_small_without_constraints_is_no_conflict():
    with pytest.raises(InfeasibleBudgetError):
        allocated(Pin("conv1"), budget=10)


@pytest.fixture
def command(tmp_path_factory):
    command = Command(tmp_path_factory.mktemp("command"))
    yield command
    command.close()


def test_the_command_reads_a_file_and_the_plan_remembers_it(command, tmp_path):
    (tmp_path / "rules.toml").write_text('[[pin]]\nsites = "9.weight"\n')
    model = ["plan", f"{ZOO / 'mlp.py'}:mlp", "--arg", "width=64", "--budget", "50%"]
    asked = [*model, "--constraints", "rules.toml"]
    done = command(*asked, "-o", "plan.json", "--json", cwd=tmp_path)
    assert done.status == 0, done.messages
    assert json.loads((tmp_path / "plan.json").read_text())["constraints"] == [
        '[[pin]] sites = "9.weight"'
    ]
    (tmp_path / "rules.toml").write_text('[[pin]]\nsites = "nowhere.*"\n')
    done = command(*asked, "-o", "other.json", cwd=tmp_path)
    assert done.status == 1
    assert done.messages.startswith('error: pin "nowhere.*": no parameter of the model matches')
    assert not (tmp_path / "other.json").exists()
    (tmp_path / "rules.toml").write_text("[[pin]\n")
    done = command(*asked, cwd=tmp_path)
    assert done.status == 1
    assert "rules.toml cannot be parsed" in done.messages
