"""Feasible allocations by rule: the solver's starting point, quick at any size.

``construct`` proposes coherent sharings (every class in its largest group that is alike enough) and
mixings (every class by itself, with more than one template a site). From each proposal it climbs:
it goes over the groups and classes and keeps each change that adds to the solver's own objective.
For any such choice of options the banks grow in order of the worth of one more parameter
(``_fill``), which is best for them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from planner.effort import Effort
from planner.formulation import (
    DISSIMILARITY,
    DOUBLING,
    SHARE,
    VISIBLE,
    Option,
    Problem,
    SiteClass,
)
from planner.rules import needs, satisfied
from planner.valuation import Decision, Scale, spending, worth

_BEARABLE = (1000, 160, 80, 40, 20, 0)
_LEVELS = (1, 2)
_EFFORT = 300_000

_Choice = tuple[int | None, int]
_Choices = tuple[_Choice, ...]
_Sharing = tuple[int, int, int, int]
"""Of a class that reads a bank: weight, size, sites, and how many of them do."""


@dataclass(frozen=True, slots=True)
class _Found:
    """A decision with its worth."""

    value: int
    decision: Decision


def construct(
    problem: Problem,
    budget: int,
    scale: Scale,
    effort: Effort | None = None,
    start: Decision | None = None,
) -> Decision | None:
    """The best allocation that is found by rule within ``budget``, or None.

    It keeps the user's rules, and is no worse than ``start``, which must be within the budget. Once
    there is one, ``effort`` ends the climbing, as does Ctrl-C.
    """
    starts: dict[Decision, _Found] = {}
    first = []
    if start is not None:
        starts[start] = _Found(worth(problem, start, scale), start)
        first.append(start.choices)
    for choices in (*first, *_proposals(problem)):
        found = _better(problem, choices, budget, scale, None)
        if found is not None:
            starts.setdefault(found.decision, found)
    effort = effort or Effort(0.0)
    tries = effort.during(range(_patience(problem)))
    visited: set[Decision] = set()
    peaks = sorted(starts.values(), key=_falling)
    try:
        for place, foot in enumerate(peaks):
            peaks[place] = _climb(problem, foot, budget, scale, tries, visited)
            effort.known(peaks[place].value, None)
    except KeyboardInterrupt:
        if not peaks:
            raise
        effort.interrupt()
    return min(peaks, key=_falling).decision if peaks else None


def _falling(found: _Found) -> int:
    return -found.value


def _patience(problem: Problem) -> int:
    """How many changes are tried: fewer where each takes longer."""
    return _EFFORT // (1 + len(problem.classes) + len(problem.groups))


def _climb(
    problem: Problem,
    found: _Found,
    budget: int,
    scale: Scale,
    tries: Iterator[int],
    visited: set[Decision],
) -> _Found:
    """Makes every change that adds to the worth, until none does or the ways meet one before."""
    before = -1
    while found.value > before:
        before = found.value
        for _, change in zip(tries, _changes(problem), strict=False):
            choices = tuple(
                change.get(number, choice) for number, choice in enumerate(found.decision.choices)
            )
            better = _better(problem, choices, budget, scale, found) or found
            if better is not found and better.decision in visited:
                return better
            found = better
            visited.add(found.decision)
    return found


def _better(
    problem: Problem, choices: _Choices, budget: int, scale: Scale, best: _Found | None
) -> _Found | None:
    """``best``, or the decision with ``choices`` if that is worth more."""
    if best is not None and choices == best.decision.choices:
        return best
    for _ in range(2):
        decision = _fill(problem, choices, budget)
        if decision is None or not satisfied(problem, decision):
            return best
        value = worth(problem, decision, scale)
        if best is None or value > best.value:
            best = _Found(value, decision)
        # Which option of its group serves a class depends on the size that its bank has got.
        upgraded = _upgraded(problem, decision)
        if upgraded == choices:
            break
        choices = upgraded
    return best


def _proposals(problem: Problem) -> Iterator[_Choices]:
    if any(not item.may_own and not item.options for item in problem.classes):
        return
    sizes: dict[int, int] = {}
    for item in problem.classes:
        for group in {option.group for option in item.options if option.group is not None}:
            sizes[group] = sizes.get(group, 0) + item.size * len(item.sites)
    if all(item.may_own for item in problem.classes):
        yield ((None, 0),) * len(problem.classes)
        # All but one class: what fits just below the dense count.
        for number, item in enumerate(problem.classes[: _patience(problem)]):
            alone = _sharing(item, {group: -size for group, size in sizes.items()}, 1000)
            yield tuple(
                alone if other == number else (None, 0) for other in range(len(problem.classes))
            )
    for bearable in _BEARABLE:
        yield tuple(_sharing(item, sizes, bearable) for item in problem.classes)
    for level in _LEVELS:
        yield tuple(_nested(item, sizes, level) for item in problem.classes)
    for templates in DOUBLING:
        yield tuple(_mixing(item, sizes, templates) for item in problem.classes)


def _changes(problem: Problem) -> Iterator[dict[int, _Choice]]:
    """Everything that can join a group does, or one class goes elsewhere."""
    together = [rule.members for rule in problem.rules if rule.kind == "together"]
    for joins in problem.joins():
        for templates in (0, *DOUBLING):
            change = _joining(problem, joins, templates)
            if len(change) == 1 or (change and not templates):
                yield change
            for members in together:
                if all(number in change for number in members):
                    yield {number: change[number] for number in members}
    for number, item in enumerate(problem.classes):
        if item.may_own:
            yield {number: (None, 0)}
        # In a group the first option serves: ``_upgraded`` finds the best.
        entries = {option.group: index for index, option in reversed([*enumerate(item.options)])}
        for index, option in enumerate(item.options):
            if option.group is None or entries[option.group] == index:
                yield {number: (index, len(item.sites))}


def _joining(problem: Problem, joins: list[tuple[int, int]], templates: int) -> dict[int, _Choice]:
    """For each class that can: its first option in a group, or its mix of ``templates``."""
    change: dict[int, _Choice] = {}
    for number, index in joins:
        item = problem.classes[number]
        option = item.options[index]
        if _mixes(option, templates) if templates else option.generator != "mix":
            change.setdefault(number, (index, len(item.sites)))
    return change


def _mixes(option: Option, templates: int) -> bool:
    return option.generator == "mix" and option.parameter == templates


def _upgraded(problem: Problem, decision: Decision) -> _Choices:
    """The best option of each class in the group it is in, now that its bank has a size."""
    choices = []
    for item, (choice, count) in zip(problem.classes, decision.choices, strict=True):
        group = None if choice is None else item.options[choice].group
        if group is None or choice is None:
            choices.append((choice, count))
            continue
        size, reads = decision.sizes[group], item.options[choice].reads
        fitting = [
            (option.value, -index)
            for index, option in enumerate(item.options)
            if option.group == group
            and option.need <= size
            and option.reads >= min(reads, size)
            and (option.room is None or size <= option.room)
        ]
        choices.append((-max(fitting)[1] if fitting else choice, count))
    return tuple(choices)


def _sharing(item: SiteClass, sizes: dict[int, int], bearable: int) -> _Choice:
    """The largest group whose dissimilarity costs at most ``bearable`` thousandths."""
    best: tuple[tuple[int, ...], int] | None = None
    for index, option in enumerate(item.options):
        if option.group is None or (option.generator == "mix" and item.may_own):
            continue
        cost = -option.value * 1000 // (DISSIMILARITY * item.weight)
        key = (cost <= bearable, sizes[option.group], option.value, -option.need, -index)
        if best is None or key > best[0]:
            best = key, index
    if best is not None:
        return best[1], len(item.sites)
    if item.may_own:
        return None, 0
    cheapest = min(range(len(item.options)), key=lambda o: (item.options[o].cost, o))
    return cheapest, len(item.sites)


def _nested(item: SiteClass, sizes: dict[int, int], level: int) -> _Choice:
    """The class's group at a level of nesting, 0 the largest, or its smallest if it has fewer."""
    groups = {option.group for option in item.options if option.group is not None}
    ordered = sorted(groups, key=lambda group: (-sizes[group], group))
    chosen = ordered[: level + 1][-1:]
    return _sharing(item, {group: group in chosen for group in groups}, 1000)


def _mixing(item: SiteClass, sizes: dict[int, int], templates: int) -> _Choice:
    """A mix of K templates in the class's smallest group."""
    found = [
        (sizes[option.group], index)
        for index, option in enumerate(item.options)
        if option.group is not None and _mixes(option, templates)
    ]
    if found:
        return min(found)[1], len(item.sites)
    return (None, 0) if item.may_own else _sharing(item, sizes, 1000)


def _fill(problem: Problem, choices: _Choices, budget: int) -> Decision | None:
    """Sizes the banks: what each needs, then what is left where it is worth most."""
    count = len(problem.groups)
    least, most = [0] * count, [0] * count
    rooms: dict[int, int] = {}
    members: dict[int, list[_Sharing]] = {}
    for item, (choice, shared) in zip(problem.classes, choices, strict=True):
        option = None if choice is None else item.options[choice]
        if option is None or option.group is None:
            continue
        group = option.group
        least[group] = max(least[group], option.need)
        most[group] += option.reads * shared
        members.setdefault(group, []).append((item.weight, item.size, len(item.sites), shared))
        if option.room is not None:
            rooms[group] = min(option.room, rooms.get(group, option.room))
    for group, needed in needs(problem, choices).items():
        least[group] = max(least[group], needed)
    for group in members:
        most[group] = min(most[group], rooms.get(group, most[group]))
        if least[group] > most[group]:
            return None
    sizes = list(least)
    left = budget - spending(problem, Decision(choices, tuple(sizes)))
    if left < 0:
        return None
    growth = [
        (-slope, group, length)
        for group, sharing in members.items()
        for slope, length in _growth(problem.resolution, tuple(sharing), least[group], most[group])
    ]
    # Worth is concave in each size, so the steepest pieces of all banks come first, each in order.
    for _, group, length in sorted(growth):
        grown = min(length, left)
        sizes[group] += grown
        left -= grown
    return Decision(choices, tuple(sizes))


@lru_cache(maxsize=1 << 14)  # a change leaves most banks as they were
def _growth(
    resolution: int, sharing: tuple[_Sharing, ...], least: int, most: int
) -> tuple[tuple[int, int], ...]:
    """Worth of a parameter more in a bank, and for how many parameters, from ``least`` to ``most``.

    Each pair of neighbouring pieces of a table meets in a kink, where the slope falls.
    """
    total = sum(weight * count for weight, _, _, count in sharing)
    falls = _falls(SHARE, total, resolution, 1)
    for weight, size, sites, _ in sharing:
        falls += _falls(VISIBLE, weight, weight // size, sites)
    slope = sum(fall for _, fall in falls)
    pieces, reached = [], least
    for kink, fall in sorted(falls):
        if min(kink, most) > reached:
            pieces.append((slope, min(kink, most) - reached))
            reached = min(kink, most)
        slope -= fall
    return (*pieces, (slope, most - reached))


def _falls(
    table: tuple[tuple[int, int], ...], weight: int, unit: int, times: int
) -> list[tuple[int, int]]:
    """(size, fall of the slope) where the pieces of ``times`` the table meet, by ``weight``."""
    return [
        (weight * (higher - intercept) // ((slope - lower) * unit), (slope - lower) * unit * times)
        for (slope, intercept), (lower, higher) in pairwise(table)
    ]
