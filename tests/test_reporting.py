"""A report's figures add up, and its text fits a terminal and a pipe alike."""

import dataclasses
import io
import json

import pytest
from rich.console import Console

from planner.ir import Verification
from planner.patterns import collapse_names
from planner.reporting import print_report
from planner.summary import summarise
from small_plans import small_plan


def changed(plan, **fields):
    return plan.model_copy(update=fields)


def text_of(plan, *, every_site=False, width=80, **console):
    out = io.StringIO()
    print_report(
        plan,
        Console(file=out, width=width, highlight=False, **console),
        every_site=every_site,
    )
    return out.getvalue()


def test_totals_count_every_parameter_once():
    totals = summarise(small_plan()).totals
    assert totals.emitted == 64 + 128 + 2 + 4 * 8 == 226
    assert totals.unused == 259 - 226
    assert totals.compression == pytest.approx(288 / 226, rel=1e-5)
    assert totals.gradient_bytes == totals.momentum_bytes == 4 * 226
    assert totals.adam_bytes == 8 * 226


@pytest.mark.parametrize(
    ("verification", "line"),
    [
        (None, None),
        (Verification((2, 3), (2, 3)), "outputs equal in train and eval at batches 2 and 3"),
        (
            Verification((), (2, 3), "one value"),
            "outputs equal in eval at batches 2 and 3; one value",
        ),
        (
            Verification((2,), (2, 3)),
            "outputs equal in train at batch 2, eval at batches 2 and 3",
        ),
        (Verification(reason="too large"), "no: too large"),
    ],
)
def test_one_line_tells_how_the_program_was_verified(verification, line):
    plan = small_plan()
    plan = changed(plan, program=dataclasses.replace(plan.program, verification=verification))
    lines = [text for text in text_of(plan).splitlines() if text.startswith("verified")]
    assert lines == ([] if line is None else [f"verified   {line}"])


@pytest.mark.parametrize(
    ("free", "fixed", "line"),
    [
        ((), (), None),
        (("length 10", "height and width 64"), (), "free in batch, length 10, height and width 64"),
        (
            ("length 10",),
            (("length 7", "rnn"),),
            "free in batch, length 10; as in the example: length 7, by rnn",
        ),
        ((), (("width 5", ""),), "free in batch; as in the example: width 5, by the root module"),
    ],
)
def test_one_line_tells_which_sizes_are_free(free, fixed, line):
    plan = small_plan()
    verification = Verification((2, 3), (2, 3), free=free, fixed=fixed)
    plan = changed(plan, program=dataclasses.replace(plan.program, verification=verification))
    lines = [text for text in text_of(plan).splitlines() if text.startswith("sizes")]
    assert lines == ([] if line is None else [f"sizes      {line}"])


def test_frozen_parameters_have_no_gradient():
    plan = small_plan()
    sites = tuple(
        dataclasses.replace(site, trainable=False) if site.name == "0.bias" else site
        for site in plan.sites
    )
    totals = summarise(changed(plan, sites=sites)).totals
    assert totals.gradient_bytes == 4 * (226 - 8)


def test_gradients_have_the_type_of_the_sites():
    plan = small_plan()
    sites = tuple(dataclasses.replace(site, dtype="bfloat16") for site in plan.sites)
    assert summarise(changed(plan, sites=sites)).totals.gradient_bytes == 2 * 226


def test_banks_say_how_much_they_are_read():
    ring, pair = summarise(small_plan()).banks
    assert (ring.sites, ring.elements, ring.reads, ring.compression) == (3, 192, 3.0, 3.0)
    assert (pair.sites, pair.elements, pair.reads) == (1, 64, 1.0)
    assert pair.compression == pytest.approx(64 / 130, rel=1e-5)
    assert (ring.templates, pair.templates) == ((1, 1), (2, 2))


@pytest.mark.parametrize("every_site", [False, True])
def test_rows_cover_every_element_once(every_site):
    plan = small_plan()
    summary = summarise(plan, every_site=every_site)
    listed = sum(row.elements for row in summary.generated)
    kept = sum(row.elements for row in summary.kept)
    dense = sum(site.size for site in plan.sites)
    assert listed == dense if every_site else listed + kept == dense
    assert sum(row.count for row in summary.generated) == (8 if every_site else 4)
    assert sum(row.share for row in summary.generated) == pytest.approx(listed / dense, rel=1e-5)


def test_repeated_sites_share_a_row():
    first, second = summarise(small_plan()).generated
    assert (first.name, first.count, first.generator) == ("{0..2}.weight", 3, "hash")
    assert (second.name, second.count, second.detail) == ("3.weight", 1, "K=2")


def test_kept_sites_are_counted_by_reason():
    (kept,) = summarise(small_plan()).kept
    assert (kept.reason, kept.sites, kept.elements) == ("one value a channel", 4, 32)


@pytest.mark.parametrize(
    ("form", "shown"),
    [
        ("the solver keeps it: {} of 8,000", "the solver keeps it"),
        ("at 1.{} bits: too few", "at # bits: too few"),
        ("frozen: not trainable", "frozen: not trainable"),
    ],
)
def test_reasons_that_differ_by_numbers_are_one(form, shown):
    plan = small_plan()
    sites = tuple(dataclasses.replace(site, kept=None) for site in plan.sites)
    placements = tuple(
        dataclasses.replace(placement, reason=form.format(index))
        if placement.generator == "own"
        else placement
        for index, placement in enumerate(plan.allocation.placements)
    )
    allocation = dataclasses.replace(plan.allocation, placements=placements)
    (kept,) = summarise(changed(plan, sites=sites, allocation=allocation)).kept
    assert (kept.reason, kept.sites, kept.elements) == (shown, 4, 32)


@pytest.mark.parametrize("frozen", [False, True])
def test_totals_add_up(frozen):
    plan = small_plan()
    sites = tuple(
        dataclasses.replace(site, trainable=not (frozen and site.name == "0.bias"))
        for site in plan.sites
    )
    summary = summarise(changed(plan, sites=sites))
    totals = summary.totals
    assert totals.banks == sum(bank.parameters for bank in summary.banks) == 64 + 128
    assert totals.coefficients == sum(bank.coefficients for bank in summary.banks) == 2
    assert totals.kept == sum(row.trainable for row in summary.kept)
    assert totals.frozen == (8 if frozen else 0)
    assert totals.kept + totals.frozen == sum(row.elements for row in summary.kept) == 32
    assert totals.emitted == totals.banks + totals.coefficients + totals.kept
    assert totals.emitted + totals.unused == totals.budget


def test_summary_is_plain_json():
    summary = dataclasses.asdict(summarise(small_plan()))
    assert json.loads(json.dumps(summary))["totals"]["emitted"] == 226


@pytest.mark.parametrize(
    ("names", "patterns"),
    [
        ([], []),
        (["conv.weight"], ["conv.weight"]),
        (["a.0.w", "a.1.w"], ["a.{0,1}.w"]),
        (["a.0.w", "a.1.w", "a.2.w"], ["a.{0..2}.w"]),
        (["a.10.w", "a.2.w", "a.9.w"], ["a.{2,9,10}.w"]),
        (["a.0.1.w", "a.0.2.w", "a.3.1.w", "a.3.2.w"], ["a.{0,3}.{1,2}.w"]),
        (["a.0.1.w", "a.0.2.w", "a.3.1.w"], ["a.{0,3}.1.w", "a.0.2.w"]),
        (["a.0.w", "b.0.w", "a.1.w"], ["a.{0,1}.w", "b.0.w"]),
    ],
)
def test_names_collapse_to_patterns_that_cover_them_alone(names, patterns):
    collapsed = collapse_names(names)
    assert [pattern for pattern, _ in collapsed] == patterns
    assert sorted(name for _, matched in collapsed for name in matched) == sorted(names)


@pytest.mark.parametrize("every_site", [False, True])
def test_text_fits_eighty_columns_and_has_no_boxes(every_site):
    text = text_of(small_plan(), every_site=every_site)
    assert max(len(line) for line in text.splitlines()) <= 80
    assert text.isascii()
    assert "\x1b" not in text
    assert not [line for line in text.splitlines() if line.endswith(" ")]


def test_long_names_break_after_a_dot():
    plan = small_plan()
    long = ".".join(["some_layer"] * 6 + ["weight"])
    names = {"3.weight": long}
    sites = tuple(
        dataclasses.replace(site, name=names.get(site.name, site.name)) for site in plan.sites
    )
    placements = tuple(
        dataclasses.replace(placement, site=names.get(placement.site, placement.site))
        for placement in plan.allocation.placements
    )
    allocation = dataclasses.replace(plan.allocation, placements=placements)
    lines = text_of(changed(plan, sites=sites, allocation=allocation)).splitlines()
    pieces = [line.partition(" ")[0] for line in lines if line.startswith(("some_layer", "weight"))]
    assert len(pieces) > 1
    assert "".join(pieces) == long
    assert all(piece.endswith(".") for piece in pieces[:-1])


def test_long_names_are_folded_not_cut():
    plan = small_plan()
    long = "encoder." + "layer_with_a_long_name." * 4 + "weight"
    sites = (dataclasses.replace(plan.sites[0], name=long), *plan.sites[1:])
    placements = (
        dataclasses.replace(plan.allocation.placements[0], site=long),
        *plan.allocation.placements[1:],
    )
    allocation = dataclasses.replace(plan.allocation, placements=placements)
    text = text_of(changed(plan, sites=sites, allocation=allocation))
    assert max(len(line) for line in text.splitlines()) <= 80
    firsts = "".join(line.partition(" ")[0] for line in text.splitlines())
    assert long in firsts


def test_names_are_not_read_as_markup():
    plan = changed(small_plan(), spec="[red]model.py:make[/red]")
    assert "[red]model.py:make[/red]" in text_of(plan)


def test_names_cannot_command_the_terminal():
    plan = changed(small_plan(), spec="\x1b[2Jmodel.py\r\n:make")
    text = text_of(plan)
    assert "\x1b" not in text
    assert "\\x1b[2Jmodel.py\\r\\n:make" in text


def test_large_figures_and_long_bank_names_fit():
    plan = small_plan()
    name = "model.decoder.layers.attention.projection"
    bank = dataclasses.replace(plan.allocation.banks[0], name=name, size=400 * 10**9)
    placements = tuple(
        dataclasses.replace(placement, bank=name) if placement.bank == "ring" else placement
        for placement in plan.allocation.placements
    )
    sites = (dataclasses.replace(plan.sites[0], shape=(128_256, 16_384)), *plan.sites[1:])
    banks = (bank, *plan.allocation.banks[1:])
    allocation = dataclasses.replace(plan.allocation, banks=banks, placements=placements)
    text = text_of(changed(plan, sites=sites, allocation=allocation))
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "400,000,000,000" in text
    assert "128256x16384" in text


def test_notes_are_printed():
    assert "note: planned on a Tuesday" in text_of(
        changed(small_plan(), notes=("planned on a Tuesday",))
    )


def test_no_color_is_respected(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[3" not in text_of(small_plan(), force_terminal=True)


def test_every_total_is_in_the_text():
    text = text_of(small_plan())
    for figure in ("288", "259", "226", "33", "904 B", "1.81 kB", "optimal", "gap 1.00%"):
        assert figure in text
