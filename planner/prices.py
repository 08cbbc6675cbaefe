"""A bound on the worth of any allocation, from prices of parameters and of sites.

Give a parameter the price λ and each site of class c the price u_c, and relax two constraints of
``planner.allocation``: the budget, and that a site is made in one way alone. What remains falls
apart into the groups, each of which takes the sites that pay. For any λ ≥ 0 and u_c ≥ v_c

    worth ≤ λ · (budget - kept) + s · kept + Σ_c M_c · u_c + Σ_g max(0, max_m G_g(m))
    G_g(m) = Σ_c max_κ (κ · (value_cg(m) + b_p · w_c - u_c) + V_cg(m, κ))
             + (a_p - λ + s) · m - bank

with s the worth of a parameter spent, v_c that of the best option of c without a group less its
parameters' price, value_cg(m) that of the best option in g that a bank of m allows, κ ≤ M_c, and
V_cg the worth of what is seen (6 of ``planner.allocation``). (a_p, b_p) is any piece of SHARE, as
N · SHARE(m / N) ≤ a_p · m + b_p · N for each. What else restricts a bank is left out: how much its
sites read, and upper limits of its size.

Sizes are cut into intervals. Within one of them p is fixed, value_cg is taken at the upper end and
V_cg on one piece of VISIBLE; then G_g is a sum of maxima of functions that are linear in m, thus
convex, and greatest at an end.

λ is sought among what a parameter more is worth to the banks of a known allocation (``_levels``);
for each λ, u_c is what c is worth there, less its part of its bank's price (``_prices``). What is
worth less than the known allocation under these prices need not be looked at (``reduced``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from planner.formulation import SHARE, VISIBLE, Problem
from planner.valuation import SPENDING, Decision, Scale, shared_weights

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]

_RATIO = 1.1
"""Upper end of an interval of sizes over its lower end."""

_LEVELS = 8
_SLACK = 1e-9
"""Relative error of sums in floating point, with room to spare."""


@dataclass(frozen=True, slots=True)
class Bound:
    """No allocation is worth more than ``value``, in units of the objective.

    ``forced[c, g]`` bounds the allocations in which sites of class c read the bank of group g.
    """

    value: int
    forced: dict[tuple[int, int], int]


def bound_of(problem: Problem, budget: int, scale: Scale, known: Decision) -> Bound | None:
    """The least bound that prices taken from ``known`` give; None where nothing can be shared."""
    if not any(option.group is not None for item in problem.classes for option in item.options):
        return None
    table = _Table(problem, budget, scale)
    least: tuple[float, float, Floats, Integers] | None = None
    for level in _levels(problem, scale, known):
        prices = _prices(problem, scale, known, level, table.alone(level))
        pieces = table.pieces(level, prices)
        total = table.total(level, prices, pieces)
        if least is None or total < least[0]:
            least = total, level, prices, pieces
    if least is None:
        return None
    return table.bound(*least[1:])


def reduced(
    problem: Problem, bound: Bound, known: Decision, value: int
) -> tuple[Problem, Decision]:
    """The problem without options that no allocation worth ``value`` has, and ``known`` in it."""
    classes, choices = [], []
    for number, (item, (choice, count)) in enumerate(
        zip(problem.classes, known.choices, strict=True)
    ):
        left = [
            index
            for index, option in enumerate(item.options)
            if index == choice
            or option.group is None
            or bound.forced[number, option.group] >= value
        ]
        classes.append(replace(item, options=tuple(item.options[index] for index in left)))
        choices.append((None if choice is None else left.index(choice), count))
    return replace(problem, classes=tuple(classes)), Decision(tuple(choices), known.sizes)


def restored(problem: Problem, smaller: Problem, decision: Decision) -> Decision:
    """A decision on ``smaller``, a reduced ``problem``, as one on ``problem``."""
    choices = tuple(
        (None if choice is None else whole.options.index(item.options[choice]), count)
        for whole, item, (choice, count) in zip(
            problem.classes, smaller.classes, decision.choices, strict=True
        )
    )
    return Decision(choices, decision.sizes)


@dataclass(frozen=True, slots=True)
class _Member:
    """A class in a bank of the known allocation, with the pieces its worth lies on."""

    number: int
    weight: float
    worth: float
    slopes: tuple[float, float]


@dataclass(frozen=True, slots=True)
class _Known:
    """A bank of the known allocation: ``margins`` below and above its size."""

    size: int
    members: tuple[_Member, ...]
    margins: tuple[float, float]


def _banks(problem: Problem, scale: Scale, known: Decision) -> list[_Known]:
    weights = shared_weights(problem, known)
    members: dict[int, list[_Member]] = {}
    shares = {}
    for group, size in enumerate(known.sizes):
        if size:
            x = size * problem.resolution / max(1, weights[group])
            shares[group] = _at(SHARE, x)
    for number, (item, (choice, count)) in enumerate(
        zip(problem.classes, known.choices, strict=True)
    ):
        option = None if choice is None else item.options[choice]
        if option is None or option.group is None:
            continue
        below, above, intercept = _at(VISIBLE, min(1.0, known.sizes[option.group] / item.size))
        unit = item.weight * len(item.sites) / item.size / scale.unit
        each = option.value + item.weight * (
            intercept * len(item.sites) / count + shares[option.group][2]
        )
        members.setdefault(option.group, []).append(
            _Member(
                number,
                item.weight / max(1, weights[option.group]),
                each / scale.unit,
                (below * unit, above * unit),
            )
        )
    unit = problem.resolution / scale.unit
    return [
        _Known(
            known.sizes[group],
            tuple(found),
            (
                shares[group][0] * unit + sum(member.slopes[0] for member in found),
                shares[group][1] * unit + sum(member.slopes[0] for member in found),
            ),
        )
        for group, found in members.items()
    ]


def _at(table: tuple[tuple[int, int], ...], x: float) -> tuple[int, int, int]:
    """Slopes just below and above x, and the intercept of the former's piece."""
    piece = min(range(len(table)), key=lambda p: (table[p][0] * x + table[p][1], p))
    near = 1e-3 * (table[piece][0] * x + table[piece][1])
    after = min(piece + 1, len(table) - 1)
    if table[after][0] * x + table[after][1] > table[piece][0] * x + table[piece][1] + near:
        after = piece
    return table[piece][0], table[after][0], table[piece][1]


def _levels(problem: Problem, scale: Scale, known: Decision) -> list[float]:
    """Prices of a parameter to try, less the worth of spending it: a few within the margins."""
    banks = _banks(problem, scale, known)
    margins = sorted({0.0, *(margin for bank in banks for margin in bank.margins)})
    if len(margins) > 1:
        main = max(banks, key=lambda bank: bank.size)
        middle = [sum(main.margins) / 2, *main.margins]
        spread = [margins[round(i * (len(margins) - 1) / (_LEVELS - 1))] for i in range(_LEVELS)]
        margins = sorted({*middle, *spread, (main.margins[0] * main.margins[1]) ** 0.5})
    return margins


def _prices(problem: Problem, scale: Scale, known: Decision, level: float, alone: Floats) -> Floats:
    """Prices of sites at which the known allocation's banks just pay."""
    prices: Floats = alone.copy()
    for bank in _banks(problem, scale, known):
        excess = scale.bank + (level - bank.margins[0]) * bank.size
        for member in bank.members:
            price = member.worth - excess * member.weight
            prices[member.number] = max(prices[member.number], price)
    return prices


class _Table:
    """The terms of the bound, over pairs of group and class × intervals of sizes."""

    def __init__(self, problem: Problem, budget: int, scale: Scale) -> None:
        import numpy as np

        self.problem, self.scale = problem, scale
        self.free = max(1, budget - problem.kept)
        self.reward = SPENDING * problem.resolution / scale.unit
        count = max(1, math.ceil(math.log(self.free) / math.log(_RATIO)))
        self.above = np.unique(np.ceil(self.free ** (np.arange(count + 1) / count)))
        self.below = np.concatenate(([1.0], self.above[:-1]))
        self.sites = np.array([float(len(item.sites)) for item in problem.classes])
        self.weight = np.array([item.weight / scale.unit for item in problem.classes])
        self.slopes = np.array([slope for slope, _ in SHARE]) * problem.resolution / scale.unit
        self.intercepts = np.array([float(intercept) for _, intercept in SHARE])
        kinks = [(b - d) / (c - a) for (a, b), (c, d) in pairwise(SHARE)]
        # In units of the objective, as weights are.
        self.kinks = np.array(kinks) * scale.unit / problem.resolution
        self.pairs = sorted(
            {
                (option.group, c)
                for c, item in enumerate(problem.classes)
                for option in item.options
                if option.group is not None
            }
        )
        groups = np.array([group for group, _ in self.pairs])
        self.item = np.array([c for _, c in self.pairs])
        first = np.diff(groups, prepend=-1) > 0
        self.starts = np.flatnonzero(first)
        self.row = np.cumsum(first) - 1
        self.heavy = (self.sites * self.weight)[self.item][:, None]
        self.most = VISIBLE[-1][1] * self.weight[self.item][:, None]
        self._tabulate()

    def _tabulate(self) -> None:
        """What a site is worth in a pair, but for size, and what all its sites see."""
        import numpy as np

        shape = len(self.pairs), len(self.above)
        self.value_of = np.full(shape, -1e300)
        self.seen = np.zeros((2, *shape))
        self.cost = np.zeros((shape[0], 1))
        slopes, intercepts = np.array(VISIBLE, dtype=float).T
        for at, (group, c) in enumerate(self.pairs):
            item = self.problem.classes[c]
            options = [option for option in item.options if option.group == group]
            self.cost[at] = min(option.cost for option in options)
            for option in options:
                fits = self.value_of[at, int(np.searchsorted(self.above, option.need)) :]
                np.maximum(fits, option.value // self.scale.unit, out=fits)
            middle = (self.above + self.below) / (2 * item.size)
            piece = (slopes[:, None] * middle + intercepts[:, None]).argmin(axis=0)
            for end, sizes in enumerate((self.below, self.above)):
                share = slopes[piece] * sizes / item.size + intercepts[piece]
                self.seen[end, at] = self.heavy[at] * share

    def alone(self, level: float) -> Floats:
        """For each class, what a site is worth without a group, less its parameters."""
        import numpy as np

        bank, unit = self.scale.bank, self.scale.unit
        best = []
        for item in self.problem.classes:
            found = [item.own_value // unit - level * item.size] if item.may_own else []
            for option in item.options:
                if option.group is None:
                    each = level * option.cost + (bank if option.cost else 0)
                    once = level * option.fixed + (0 if option.cost else bank)
                    found.append(option.value // unit - each - once / len(item.sites))
            best.append(max(found, default=-1e300))
        return np.array(best)

    def pieces(self, level: float, prices: Floats) -> Integers:
        """The piece of SHARE at which each group in each interval is worth least.

        A later piece weighs the sites that are taken more, and more are taken: bisection finds
        where it stops to lessen the whole.
        """
        import numpy as np

        low = np.zeros((len(self.starts), len(self.above)), dtype=np.int64)
        high = np.full_like(low, len(SHARE) - 1)
        for _ in range(len(SHARE).bit_length()):
            middle = (low + high) // 2
            _, gain = self._end(1, self._each(level, prices, middle))
            taken = np.add.reduceat(np.where(gain > 0, self.heavy, 0.0), self.starts, axis=0)
            later = self.above > taken * self.kinks[np.minimum(middle, len(self.kinks) - 1)]
            later &= low < high
            low, high = np.where(later, middle + 1, low), np.where(later, high, middle)
        # Sites whose price is just what they are worth all join at one piece: it or the one before.
        before = np.maximum(low - 1, 0)
        worse = self._profits(level, prices, low)[0] > self._profits(level, prices, before)[0]
        chosen: Integers = np.where(worse, before, low)
        return chosen

    def total(self, level: float, prices: Floats, pieces: Integers) -> float:
        """The bound, but for rounding."""
        return self._total(level, prices, self._profits(level, prices, pieces)[0])

    def _total(self, level: float, prices: Floats, profit: Floats) -> float:
        import numpy as np

        top = np.maximum(0.0, profit.max(axis=1))
        fixed = (level + self.reward) * self.free + self.reward * self.problem.kept
        return float(fixed + np.cumsum(self.sites * prices)[-1] + np.cumsum(top)[-1])

    def _end(self, end: int, each: Floats) -> tuple[Floats, Floats]:
        """The sizes at one end of each interval, and what each pair adds to its group there."""
        import numpy as np

        count = self.sites[self.item][:, None]
        seen = self.seen[end]
        # Linear in κ up to where the sites see all there is to see, and again beyond.
        kink = np.minimum(seen / self.most, count)
        gain = np.maximum(
            count * each + np.minimum(seen, count * self.most), kink * (each + self.most)
        )
        return (self.below, self.above)[end], gain

    def _each(self, level: float, prices: Floats, pieces: Integers) -> Floats:
        """What a site of each pair is worth, but for what it sees, less its price."""
        shared = self.intercepts[pieces][self.row] * self.weight[self.item][:, None]
        each: Floats = self.value_of + shared - level * self.cost - prices[self.item][:, None]
        return each

    def _profits(
        self, level: float, prices: Floats, pieces: Integers
    ) -> tuple[Floats, list[tuple[Floats, Floats]]]:
        """G of each group in each interval; at both ends, G and what each pair adds to it."""
        import numpy as np

        each = self._each(level, prices, pieces)
        found = []
        for end in range(2):
            sizes, gain = self._end(end, each)
            sums = np.add.reduceat(np.maximum(gain, 0.0), self.starts, axis=0)
            found.append((sums + (self.slopes[pieces] - level) * sizes - self.scale.bank, gain))
        return np.maximum(found[0][0], found[1][0]), found

    def bound(self, level: float, prices: Floats, pieces: Integers) -> Bound:
        """The bound with these prices and pieces, and what it is with each pair forced."""
        import numpy as np

        profit, ends = self._profits(level, prices, pieces)
        total = self._total(level, prices, profit)
        others = total - np.maximum(0.0, profit.max(axis=1))[self.row]
        one = self._each(level, prices, pieces) + self.most
        forced = np.full(len(self.pairs), -1e300)
        for whole, gain in ends:
            with_it = whole[self.row] - np.maximum(gain, 0.0) + np.maximum(gain, one)
            forced = np.maximum(forced, with_it.max(axis=1))
        slack = _SLACK * abs(total) + 1
        bounds = np.floor(np.clip(others + forced, -1e15, total) + slack).astype(np.int64).tolist()
        keyed = {(c, group): value for (group, c), value in zip(self.pairs, bounds, strict=True)}
        return Bound(math.floor(total + slack), keyed)
