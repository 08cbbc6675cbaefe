"""Emitted files at lengths and image sizes other than the example's: right, or refused."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import planner
from round_trips import architecture, import_source


class Sized(nn.Module):
    def __init__(self):
        super().__init__()
        self.proj = nn.Linear(8, 8)

    def forward(self, x):
        return self.proj(self.part(x))


class Positions(Sized):
    def __init__(self):
        super().__init__()
        self.register_buffer("table", torch.randn(1, 64, 8))

    def part(self, x):
        return x + self.table[:, : x.size(1)] if isinstance(x, torch.Tensor) else x


class Causal(Sized):
    def part(self, x):
        t = x.shape[1]
        mask = torch.triu(torch.ones(t, t, device=x.device), diagonal=1).bool()
        scores = (x @ x.transpose(1, 2)).masked_fill(mask, float("-inf"))
        return scores.softmax(-1) @ x + torch.arange(t, device=x.device)[:, None] / int(t)


class Pairs(Sized):
    def part(self, x):
        b, t, _ = x.shape
        return x.view(b, int(t / 2), 2, -1).flip(2).reshape(b, t, -1)


class Rounded(Sized):
    def part(self, x):
        t = x.shape[1]
        extra = torch.zeros(x.shape[0], math.ceil(t / 7), 8, device=x.device)
        kept = x[:, : int(t * 0.5)]
        steps = torch.linspace(-1, 1, max(t, 3), device=x.device).sum() + round(t / 3)
        return (
            torch.cat(
                [
                    kept,
                    extra + math.log2(t),
                    extra.new_full((1, 1, 8), min(t, 5)).expand(x.shape[0], -1, -1),
                ],
                1,
            )
            + steps
        )


class Patches(Sized):
    def part(self, x):
        side = int(math.sqrt(x.shape[1]))
        grid = x.transpose(1, 2).reshape(x.shape[0], 8, side, side)
        return F.avg_pool2d(grid, 2).flatten(2).transpose(1, 2)


class Windows(Sized):
    def part(self, x):
        t = x.shape[1]
        pad = (-t) % 4
        if pad > 0:
            x = F.pad(x, (0, 0, 0, pad))
        x = x.view(x.shape[0], -1, 4, 8).flip(2).flatten(1, 2)
        return x[:, :t]


class Steps(Sized):
    def part(self, x):
        state, found = torch.zeros_like(x[:, 0]), []
        for t in range(x.shape[1]):
            state = torch.tanh(state + x[:, t])
            found.append(state)
        return torch.stack(found, 1)


class Long(Sized):
    def part(self, x):
        if x.shape[1] > 9:
            x = x[:, ::2]
        return x


class Asserted(Sized):
    def part(self, x):
        if x.shape[1] > 30:
            raise ValueError("too long")
        assert x.shape[2] == 8
        return x * 2


class Remembered(Sized):
    """Burns a size in where nothing sees it."""

    def part(self, x):
        return x * float(str(x.shape[1])) if x.dim() != 2 else x


FREE = (Positions, Causal, Pairs, Rounded, Patches, Asserted)
REFUSED = (Steps, Long, Remembered)


def emitted(model, length):
    torch.manual_seed(0)
    plan = planner.plan(model, "100%", (torch.randn(2, length, 8),), generators=("own",))
    source = planner.emit(plan)
    built = import_source(source).build()
    built.load_dense_state_dict(model.state_dict())
    return plan, source, built


def outcome(model, x):
    with torch.no_grad():
        return model(x)


def served(built, x):
    """Whether ``built`` takes ``x``; if not, it must say that it was captured at other sizes."""
    try:
        outcome(built, x)
    except ValueError as error:
        if "captured at" not in str(error):
            raise
        return False
    return True


@pytest.mark.parametrize("made", FREE)
def test_sizes_are_free_where_the_models_are(made):
    model = made()
    plan, source, built = emitted(model, 16)
    assert "captured at" not in architecture(source)
    assert plan.program.verification.fixed == ()
    for length in (4, 16, 36):
        x = torch.randn(3, length, 8)
        try:
            expected = outcome(model, x)
        except ValueError:
            continue
        torch.testing.assert_close(outcome(built, x), expected)


@pytest.mark.parametrize("made", REFUSED)
def test_other_sizes_are_refused_where_the_examples_is_burnt_in(made):
    model = made()
    _, source, built = emitted(model, 6)
    assert "captured at" in architecture(source)
    x = torch.randn(5, 6, 8)
    torch.testing.assert_close(outcome(built, x), outcome(model, x))
    right = 0
    for length in (3, 5, 7, 10, 12, 24):
        x = torch.randn(2, length, 8)
        if served(built, x):
            torch.testing.assert_close(outcome(built, x), outcome(model, x))
            right += 1
    assert right < 6


def test_padding_serves_sizes_that_need_none():
    model = Windows()
    _, source, built = emitted(model, 6)
    assert "captured at" not in architecture(source)
    for length in (3, 6, 8, 13):
        x = torch.randn(2, length, 8)
        torch.testing.assert_close(outcome(built, x), outcome(model, x))


def test_no_padding_refuses_sizes_that_need_some():
    _, _, built = emitted(Windows(), 8)
    assert outcome(built, torch.randn(2, 12, 8)).shape == (2, 12, 8)
    with pytest.raises(ValueError, match=r"captured at -x\.shape\[1\] % 4 <= 0 alone"):
        built(torch.randn(2, 9, 8))


def test_the_module_that_fixes_a_size_is_named():
    model = nn.Sequential(nn.Linear(8, 8), Steps())
    plan, _, _ = emitted(model, 6)
    assert plan.program.verification.fixed == (("length 6", "1"),)
    plan, _, _ = emitted(nn.Sequential(nn.Linear(8, 8), Causal()), 6)
    assert plan.program.verification.free == ("length 6",)


class Image(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, x):
        out = self.stem(x)
        wide = F.interpolate(out, scale_factor=0.5, mode="bilinear")
        out = self.head(out) + F.interpolate(self.head(wide), size=out.shape[-2:])
        if out.shape[-2:] != x.shape[-2:]:
            out = F.interpolate(out, size=x.shape[-2:], mode="nearest")
        return out / max(x.shape[-2:])


def test_images_of_other_sides():
    model = Image()
    plan = planner.plan(model, "100%", (torch.randn(2, 3, 32, 32),), generators=("own",))
    assert plan.program.verification.free == ("height 32", "width 32")
    built = import_source(planner.emit(plan)).build()
    built.load_dense_state_dict(model.state_dict())
    for sides in ((32, 32), (40, 64), (17, 9)):
        x = torch.randn(1, 3, *sides)
        torch.testing.assert_close(outcome(built, x), outcome(model, x))
