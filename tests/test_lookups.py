"""Embeddings generate the rows that are looked up, and no others."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from runtime_models import KINDS
from runtime_rendering import Owner, Root, Runtime, load, render

torch.set_num_threads(1)

ROWS, COLUMNS = 37, 10

ARCHITECTURE = """
class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding({rows}, {columns}{options})
        self.bag = nn.EmbeddingBag({rows}, {columns}{options})
"""


def table(kind: str, rows: int = ROWS, columns: int = COLUMNS) -> tuple[str, int]:
    """(a generator of a table of that shape, the size of its bank)."""
    share = rows * columns // 10
    mixed = "coefficient=0, count={}, step=0.5"
    return {
        "mix": (f"Mix(stride={share}, start=9, {mixed.format(3)})", rows * columns + share),
        "interpolate": (
            f"Interpolate(rows=7, columns=5, stride={share}, {mixed.format(3)})",
            2 * share + 35,
        ),
        "tile": (f"Tile(start=5, mean=0.5, {mixed.format(44)})", share + 1),
        "hash": ("Hash(stride=3, seed=11, chunk=8)", share + 3),
        "lowrank": ("LowRank(rank=3)", 3 * (rows + columns)),
        "tie": ("Tie()", rows * columns),
    }[kind]


def emitted(
    folder: Path, kind: str, options: str = "", rows: int = ROWS, columns: int = COLUMNS
) -> ModuleType:
    """A module with an embedding and a bag whose weights the generator ``kind`` makes."""
    text, size = table(kind, rows, columns)
    name, _, fields = text.partition("(")
    fields = 'bank="a"' + (f", {fields}" if fields != ")" else ")")
    coefficients = ', "coefficients": 44' if kind in ("mix", "interpolate", "tile") else ""
    bank = f'{{"size": {size}, "std": 0.2{coefficients}}}'
    tables = (
        f'BANKS: dict[str, dict[str, Any]] = {{"a": {bank}}}\n'
        f'SITES: dict[str, Generator] = {{"embed.weight": {name}({fields}}}\n'
        'ALIASES: dict[str, str] = {"bag.weight": "embed.weight"}'
    )
    owners = tuple(
        Owner(f"Generated{layer}", f"nn.{layer}", ("weight",), lookup=True)
        for layer in ("Embedding", "EmbeddingBag")
    )
    kinds = (kind, "mix") if kind == "interpolate" else (kind,)
    runtime = Runtime(kinds, owners, Root("GeneratedNet", "Net", "Net()"), lookups=(kind,))
    architecture = ARCHITECTURE.format(rows=rows, columns=columns, options=options)
    return load(render(runtime, architecture, tables), folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lookups")


def same_gradients(model: nn.Module, made: Tensor, expected: Tensor) -> None:
    """Both have the same values and give the banks the same gradients."""
    torch.testing.assert_close(made, expected)
    goal, parameters = torch.randn_like(made), list(model.parameters())
    pairs = [torch.autograd.grad(value, parameters, goal) for value in (made, expected)]
    for mine, other in zip(*pairs, strict=True):
        torch.testing.assert_close(mine, other)
        assert mine.abs().sum() > 0


@pytest.mark.parametrize("padding", ["", ", padding_idx=3"])
@pytest.mark.parametrize("kind", KINDS)
def test_rows_and_gradients_are_the_tables(kind: str, padding: str, folder: Path) -> None:
    torch.manual_seed(0)
    model = emitted(folder, kind, padding).build()
    ids = torch.randint(ROWS, (4, 5), dtype=torch.int32)
    ids[0, :3] = 3
    same_gradients(model, model.embed(ids), super(type(model.embed), model.embed).forward(ids))


@pytest.mark.parametrize("kind", ["hash", "mix"])
@pytest.mark.parametrize("options", ["mode='sum'", "mode='mean', padding_idx=3", "mode='max'"])
def test_bags_are_the_tables(kind: str, options: str, folder: Path) -> None:
    torch.manual_seed(0)
    architecture = f", {options}" if "padding" not in options else ", padding_idx=3"
    model = emitted(folder, kind, "" if "padding" not in options else architecture).build()
    model.bag.mode = options.split("'")[1]
    full = super(type(model.bag), model.bag).forward
    ids = torch.randint(ROWS, (20,))
    ids[5:9] = 3
    same_gradients(model, model.bag(ids.view(4, 5)), full(ids.view(4, 5)))
    calls: list[tuple[Tensor, ...]] = [(ids, torch.tensor([0, 7, 7, 12]))]
    if model.bag.mode == "sum":
        calls.append((*calls[0], torch.rand(20)))
    for call in calls:
        same_gradients(model, model.bag(*call), full(*call))


@settings(max_examples=80, deadline=None)
@given(
    m=st.integers(1, 200),
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    chunk=st.integers(1, 70),
    numbers=st.tuples(*(st.integers(0, 10**6) for _ in range(3))),
)
def test_hashed_rows_of_any_shape(
    hashed: ModuleType,
    m: int,
    shape: tuple[int, int],
    chunk: int,
    numbers: tuple[int, int, int],
) -> None:
    start, stride, seed = numbers
    bank, mixing = torch.randn(m), torch.empty(0)
    site = hashed.Hash(bank="a", start=start, stride=stride, seed=seed, chunk=chunk)
    made = site(bank, mixing, shape, torch.arange(shape[0]))
    assert torch.equal(made, site(bank, mixing, shape))


@settings(max_examples=80, deadline=None)
@given(
    m=st.integers(1, 200),
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    count=st.integers(1, 60),
    start=st.integers(0, 300),
)
def test_tiled_rows_of_any_shape(
    tiled: ModuleType, m: int, shape: tuple[int, int], count: int, start: int
) -> None:
    bank, mixing = torch.randn(m), torch.randn(count)
    site = tiled.Tile(bank="a", start=start, coefficient=0, count=count)
    made = site(bank, mixing, shape, torch.arange(shape[0]))
    assert torch.equal(made, site(bank, mixing, shape))


@settings(max_examples=80, deadline=None)
@given(
    small=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_interpolated_rows_of_any_shape(
    interpolated: ModuleType, small: tuple[int, int], shape: tuple[int, int], dtype: torch.dtype
) -> None:
    rows, columns = small
    bank, mixing = torch.randn(rows * columns + 5, dtype=dtype), torch.randn(2, dtype=dtype)
    site = interpolated.Interpolate(
        bank="a", start=1, stride=4, coefficient=0, count=2, rows=rows, columns=columns
    )
    made = site(bank, mixing, shape, torch.arange(shape[0]))
    torch.testing.assert_close(made, site(bank, mixing, shape))


@pytest.fixture(scope="module")
def hashed(folder: Path) -> ModuleType:
    return emitted(folder, "hash")


@pytest.fixture(scope="module")
def tiled(folder: Path) -> ModuleType:
    return emitted(folder, "tile")


@pytest.fixture(scope="module")
def interpolated(folder: Path) -> ModuleType:
    return emitted(folder, "interpolate")


class Largest(TorchDispatchMode):
    """Notes the size of the largest tensor that any operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.size = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and not func.is_view:
            self.size = max(self.size, result.numel())
        return result


@pytest.mark.parametrize("kind", KINDS)
def test_the_table_is_never_made(kind: str, folder: Path) -> None:
    model = emitted(folder, kind, rows=3000, columns=20).build()
    ids = torch.randint(3000, (2, 50))
    for look_up in (model.embed, model.bag):
        with Largest() as largest:
            look_up(ids)
        # Three templates of 100 rows, or a part of the bank, and never the 60,000 of the table.
        assert 2000 <= largest.size <= 12_100


def test_ids_that_are_no_rows_are_refused(hashed: ModuleType) -> None:
    model = hashed.build()
    for number in (-1, ROWS):
        for look_up in (model.embed, model.bag):
            with pytest.raises(IndexError, match="out of range"):
                look_up(torch.tensor([[number]]))


def test_more_ids_than_rows_take_the_whole_table(folder: Path) -> None:
    model = emitted(folder, "hash").build()
    ids = torch.randint(ROWS, (2, ROWS))
    with Largest() as largest:
        made = model.embed(ids)
    assert largest.size >= ROWS * COLUMNS
    assert torch.equal(made, model.embed.weight.detach()[ids])
    made.sum().backward()
    assert model.banks.a.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("padding", ["", ", padding_idx=3"])
@pytest.mark.parametrize("limit", [", max_norm=0.5", ", max_norm=0.4, norm_type=1.0", ""])
@pytest.mark.parametrize("kind", ["hash", "mix", "tie"])
def test_limits_take_the_rows_and_give_what_the_table_gives(
    kind: str, limit: str, padding: str, folder: Path
) -> None:
    torch.manual_seed(0)
    options = f"{limit}, scale_grad_by_freq=True{padding}"
    model = emitted(folder, kind, options, rows=3000, columns=20).build()
    ids = torch.randint(3000, (4, 5))
    ids[0, :3], ids[1, :4] = 3, 8
    table = model.embed.weight.detach()
    with Largest() as largest:
        model.embed(ids)
    assert largest.size <= 12_100
    plain = super(type(model.embed), model.embed).forward
    same_gradients(model, model.embed(ids), plain(ids))
    # Nothing is written to the bank.
    assert torch.equal(model.embed.weight, table)


def test_sparse_tables_pass_dense_gradients_on(folder: Path) -> None:
    model = emitted(folder, "hash", ", sparse=True").build()
    for look_up in (model.embed, model.bag):
        for length in (2, ROWS):
            model.zero_grad()
            look_up(torch.randint(ROWS, (2, length))).sum().backward()
            assert model.banks.a.weight.grad.layout is torch.strided


def test_look_ups_compile_and_run_under_autocast(hashed: ModuleType) -> None:
    model = hashed.build()
    ids = torch.randint(ROWS, (2, 3))
    expected = model.embed(ids)
    compiled = torch.compile(model.embed, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(ids), expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model.embed(ids), expected)
