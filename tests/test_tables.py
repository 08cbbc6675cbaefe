"""Sites of one role share a row of the table, and the rows say what the placements say."""

import dataclasses
import re

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import planner
from planner.emission.initial import resets
from planner.emission.tables import tables
from planner.ir import Bank, Initial, Placement, Site
from round_trips import architecture, import_source

torch.set_num_threads(1)
KINDS = ("mix", "interpolate", "repeat", "mask", "hash", "lowrank", "tie")
CLASSES = ("Mix", "Interpolate", "Tile", "Hash", "LowRank", "Tie")
BANKS = (Bank("a", 100, 40, 0.1, 16), Bank("b", 50, 40, 0.1, 8))


def site(name, shape=(4, 4)):
    initial = Initial("normal", 0.0, 0.1)
    return Site(name, (), "Linear", "weight", shape, "float32", initial, name)


def lines(placements, shapes=None):
    """The lines of SITES for placements by name."""
    sites = [site(name, (shapes or {}).get(name, (4, 4))) for name in placements]
    return tables(sites, BANKS, placements).sites


def read(rows):
    """What SITES would hold: (class, fields) by name."""
    names = {name: lambda name=name, **fields: (name, fields) for name in CLASSES}
    return eval("{\n" + "\n".join(rows) + "\n}", names)


def hashed(**fields):
    return Placement("", "hash", "", bank="a", **fields)


names = st.lists(
    st.builds(
        "{}.{}.{}{}.weight".format,
        st.sampled_from(["layer", "block"]),
        st.integers(0, 12),
        st.sampled_from(["conv", "fc"]),
        st.integers(0, 3),
    ),
    unique=True,
    max_size=30,
)
numbers = st.integers(0, 3)
placements = st.builds(
    lambda kind, **fields: Placement("", kind, "", **fields),
    st.sampled_from(KINDS),
    bank=st.sampled_from(["a", "b"]),
    start=numbers,
    stride=numbers,
    seed=numbers,
    coefficient=numbers,
    count=st.sampled_from([2, 4]),
    rank=numbers,
    scale=st.sampled_from([1.0, 0.5]),
    step=st.sampled_from([1.0, 0.5]),
)


@settings(max_examples=300, deadline=None)
@given(names=names, data=st.data(), shapes=st.lists(st.sampled_from([(2, 2), (3, 3)]), min_size=30))
def test_rows_hold_every_site_as_it_is_placed(names, data, shapes):
    few = data.draw(st.lists(placements, min_size=1, max_size=2))
    placed = {
        name: dataclasses.replace(data.draw(st.sampled_from(few)), start=data.draw(numbers))
        for name in names
    }
    rows = lines(placed, dict(zip(names, shapes, strict=False)))
    alone = {name: read(lines({name: one}))[name] for name, one in placed.items()}
    assert read(rows) == alone
    assert len(rows) <= len(names)


def test_even_steps_are_expressions_and_others_are_listed():
    placed = {
        f"fc.{i}.weight": hashed(start=3 * i + 2, stride=7, seed=i * i, scale=0.5)
        for i in range(1, 5)
    }
    (row,) = lines(placed)
    assert "start=3 * i + 2, stride=7, seed=seed, chunk=16, scale=0.5)" in row
    assert row.endswith(" for i, seed in enumerate((1, 4, 9, 16), 1)},  # 4 x 4")


def test_what_sites_share_decides_who_stands_together():
    even = {f"layer.{i}.weight": hashed() for i in range(6)}
    odd = {f"layer.{i}.weight": dataclasses.replace(hashed(), bank="b") for i in (1, 4)}
    rows = lines({**even, **odd})
    assert rows[0].endswith("for i in (0, 2, 3, 5)},  # 4 x 4") and len(rows) == 2
    shapes = {"layer.0.weight": (8, 4)}
    assert lines(even, shapes)[0].startswith('"layer.0.weight": Hash(')
    assert "for i in range(1, 6)" in lines(even, shapes)[1]


def test_names_that_no_row_can_generate_stand_alone():
    odd = {f'la"yer{{x}}.{i}.weight': hashed() for i in range(4)}
    rows = lines(odd)
    assert len(rows) == 4 and set(read(rows)) == set(odd)
    padded = {f"layer.0{i}.weight": hashed() for i in range(4)}
    assert set(read(lines(padded))) == set(padded)


def test_rows_are_short():
    placed = {f"layer.{i}.weight": hashed(seed=(i * 7919**3) % 2**24) for i in range(48)}
    rows = lines(placed)
    assert len(rows) == 5 and max(map(len, rows)) <= 150
    assert read(rows) == {name: read(lines({name: one}))[name] for name, one in placed.items()}


# --------------------------------------------------------------------------- whole files


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.attend, self.project = nn.Linear(32, 32), nn.Linear(32, 32)
        self.widen, self.narrow = nn.Linear(32, 64), nn.Linear(64, 32, bias=False)

    def forward(self, x):
        x = x + self.project(self.attend(x).relu())
        return x + self.narrow(self.widen(x).relu())


class Stack(nn.Module):
    def __init__(self, depth, last=0.0):
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(depth))
        self.head = nn.Linear(32, 4)
        for module in self.modules():
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        nn.init.constant_(self.head.bias, last)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def emit(model, budget="10%", **options):
    return planner.emit(planner.plan(model, budget, (torch.randn(2, 32),), **options))


def without_tables(source):
    return re.sub(r"(?s)^BANKS.*?^# fmt: on", "", source, flags=re.MULTILINE)


def test_files_do_not_grow_with_depth_but_for_the_table():
    sources = [emit(Stack(depth), generators=("own", "hash")) for depth in (12, 24)]
    assert architecture(sources[0]).replace("range(12)", "range(24)") == architecture(sources[1])
    sizes = [len(without_tables(source).splitlines()) for source in sources]
    assert sizes[0] == sizes[1]
    for source, depth in zip(sources, (12, 24), strict=True):
        table = re.search(r"(?s)^SITES.*?^# fmt: on", source, re.MULTILINE)[0]
        assert len(table.splitlines()) < 4 * depth / 2
        assert len(import_source(source).SITES) >= 4 * depth


def test_a_file_holds_only_what_its_plan_uses():
    source = emit(Stack(3), generators=("own", "hash"))
    for word in ("ALIASES", "Mix", "factors", "zero:", "mean:", "look_up", "FROZEN"):
        assert word not in source, word
    assert import_source(source).build()(torch.randn(2, 32)).shape == (2, 4)


# --------------------------------------------------------------------------- initialisation


def test_layers_that_start_alike_are_initialised_in_one_loop():
    source = emit(Stack(3))
    assert source.count("nn.init.zeros_(") == 1
    assert "if isinstance(module, nn.Linear) and module.bias is not None:" in source
    model = import_source(source).build()
    biases = [value for key, value in model.named_parameters() if key.endswith("bias")]
    assert len(biases) == 10 and not any(value.any() for value in biases)


def test_layers_that_start_otherwise_keep_lines_of_their_own():
    source = emit(Stack(3, last=0.5))
    assert "isinstance(module, nn.Linear)" not in source
    assert source.count("nn.init.zeros_(self.") == 3
    model = import_source(source).build()
    assert (model.head.bias == 0.5).all() and not model.blocks[1].widen.bias.any()


def test_the_loop_spares_generated_tensors():
    model = Stack(3)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.constant_(module.weight, 0.5)
    plan = planner.plan(model, "100%", (torch.randn(2, 32),), generators=("own",))
    placed = {one.site: one for one in plan.allocation.placements}
    made = dataclasses.replace(placed["blocks.1.attend.weight"], generator="hash")
    for placements, looped in ((placed, True), ({**placed, made.site: made}, False)):
        lines = resets(plan.program, plan.sites, placements).lines["Stack"]
        assert ("        nn.init.constant_(module.weight, 0.5)" in lines) == looped
