"""The generators against the formulas that define them."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

pytest_plugins = ["runtime_models"]
torch.set_num_threads(2)


def expected_mix(b: np.ndarray, c: np.ndarray, n: int, start: int, stride: int) -> np.ndarray:
    i = np.arange(n)
    return sum(c[k] * b[(start + k * stride + i) % len(b)] for k in range(len(c)))


def expected_hash(b: np.ndarray, n: int, start: int, stride: int, seed: int, L: int) -> np.ndarray:
    m = len(b)
    C, F_ = -(-m // L), n // L
    P = max(1, min(F_, C))
    out = np.zeros(n)
    for i in range(n):
        j = i // L
        if j < F_:
            q = (start + (stride * (j % P) + seed * (j // P)) % P) % C
        else:
            q = (start + F_) % C
        h = ((j + 1) * 2654435761 + seed * 668265263) % 2**32
        h = (h ^ (h // 2**15)) * 1540483477 % 2**32
        out[i] = (1 - 2 * (h // 2**31)) * b[(q * L + i % L) % m]
    return out


def expected_resize(small: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Bilinear, half-pixel centres, edges clamped."""

    def axis(size: int, source: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        at = np.maximum((np.arange(size) + 0.5) * source / size - 0.5, 0)
        low = np.minimum(at.astype(int), source - 1)
        return low, np.minimum(low + 1, source - 1), at - low

    (r0, r1, fr), (c0, c1, fc) = axis(rows, small.shape[0]), axis(columns, small.shape[1])
    fr = fr[:, None]
    top = small[r0][:, c0] * (1 - fc) + small[r0][:, c1] * fc
    bottom = small[r1][:, c0] * (1 - fc) + small[r1][:, c1] * fc
    return top * (1 - fr) + bottom * fr


def random_bank(m: int, count: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(m)
    weight = torch.randn(m, generator=generator, dtype=torch.float64)
    return weight, torch.randn(count + 3, generator=generator, dtype=torch.float64)


sizes = st.integers(1, 300)


@settings(max_examples=60, deadline=None)
@given(m=sizes, data=st.data(), count=st.integers(1, 5), start=sizes, stride=sizes)
def test_mix_is_the_sum_of_its_templates(
    cnn: ModuleType, m: int, data: st.DataObject, count: int, start: int, stride: int
) -> None:
    n = data.draw(st.integers(1, m))
    b, c = random_bank(m, count)
    site = cnn.Mix(
        bank="a", start=start, stride=stride, coefficient=2, count=count, step=0.5, scale=3.0
    )
    made = site(b, c, (n, 1))
    used = c.numpy()[2 : 2 + count] * 0.5
    assert made.shape == (n, 1) and made.is_contiguous()
    np.testing.assert_allclose(
        made.numpy().ravel(), 3 * expected_mix(b.numpy(), used, n, start, stride), atol=1e-9
    )


@settings(max_examples=60, deadline=None)
@given(
    m=sizes,
    n=st.integers(1, 2000),
    L=st.integers(1, 70),
    start=sizes,
    stride=sizes,
    seed=st.integers(0, 2**31),
)
def test_hash_follows_its_formula(
    cnn: ModuleType, m: int, n: int, L: int, start: int, stride: int, seed: int
) -> None:
    b, c = random_bank(m)
    site = cnn.Hash(bank="a", start=start, stride=stride, seed=seed, chunk=L, scale=0.5)
    made = site(b, c, (n,))
    assert made.is_contiguous()
    np.testing.assert_allclose(
        made.numpy(), 0.5 * expected_hash(b.numpy(), n, start, stride, seed, L)
    )


@settings(max_examples=60, deadline=None)
@given(m=sizes, n=st.integers(1, 2000), length=st.integers(1, 300), start=sizes)
def test_tile_scales_each_window_of_the_ring(
    cnn: ModuleType, m: int, n: int, length: int, start: int
) -> None:
    count = -(-n // length)
    b, c = random_bank(m, count)
    site = cnn.Tile(bank="a", start=start, coefficient=1, count=count, step=0.25)
    i, window = np.arange(n), -(-n // count)
    assert i[-1] // window == count - 1
    expected = c.numpy()[1 + i // window] * 0.25 * b.numpy()[(start + i) % m]
    made = site(b, c, (n,))
    assert made.is_contiguous()
    np.testing.assert_allclose(made.numpy(), expected)


@settings(max_examples=60, deadline=None)
@given(
    m=sizes,
    data=st.data(),
    rows=st.integers(1, 12),
    shape=st.sampled_from([(13,), (7, 9), (20, 3, 3, 3), (1, 11, 17), (1, 1, 9, 4), (1, 30)]),
)
def test_interpolate_resizes_the_blend(
    cnn: ModuleType, m: int, data: st.DataObject, rows: int, shape: tuple[int, ...]
) -> None:
    rows = min(rows, m)
    columns = data.draw(st.integers(1, m // rows))
    b, c = random_bank(m, 2)
    site = cnn.Interpolate(
        bank="a", start=m - 1, stride=7, coefficient=0, count=2, rows=rows, columns=columns
    )
    small = expected_mix(b.numpy(), c.numpy()[:2], rows * columns, m - 1, 7).reshape(rows, columns)
    height, width = {
        (13,): (13, 1),
        (7, 9): (7, 9),
        (20, 3, 3, 3): (20, 27),
        (1, 11, 17): (11, 17),
        (1, 1, 9, 4): (9, 4),
        (1, 30): (1, 30),
    }[shape]
    made = site(b, c, shape)
    assert made.shape == shape and made.is_contiguous()
    np.testing.assert_allclose(
        made.numpy().reshape(height, width), expected_resize(small, height, width), atol=1e-9
    )


def test_low_rank_is_a_product_and_tie_the_bank_itself(cnn: ModuleType) -> None:
    b, c = random_bank(3 * (4 + 10))
    low = cnn.LowRank(bank="a", rank=3, scale=2.0)(b, c, (4, 5, 2))
    left, right = b.numpy()[:12].reshape(4, 3), b.numpy()[12:].reshape(3, 10)
    np.testing.assert_allclose(low.numpy().reshape(4, 10), 2 * left @ right)
    np.testing.assert_array_equal(cnn.Tie(bank="a")(b, c, (6, 7)).numpy().ravel(), b.numpy())
    np.testing.assert_array_equal(
        cnn.Tie(bank="a", scale=0.5)(b, c, (6, 7)).numpy().ravel(), b.numpy() / 2
    )
