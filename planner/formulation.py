"""The allocation problem as data: classes of sites, their options, and what each is worth.

No solver is imported here. ``planner.allocation`` states the mathematics and solves it,
``planner.valuation`` says what a decision spends and is worth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from planner.errors import AllocationError
from planner.ir import GENERATORS, Evidence, Generator, Initial, Site
from planner.rules import Rule, join_ties, permits

# Values are in thousandths of an element's worth: an element with its own parameter has the worth
# SHARE(1) + VISIBLE(1) + BONUS["own"].

SHARE: tuple[tuple[int, int], ...] = (
    (753664, 45),
    (376832, 91),
    (188416, 137),
    (94208, 183),
    (47104, 229),
    (23552, 275),
    (11520, 322),
    (8704, 333),
    (5888, 377),
    (3872, 440),
    (2304, 538),
    (1264, 668),
    (668, 817),
    (396, 953),
    (288, 1034),
    (80, 1242),
    (30, 1342),
    (10, 1422),
    (2, 1486),
)
"""Concave worth of s parameters per element, the least of slope·s + intercept.

Up to s = 1 it interpolates a constant and ln(1 + 50 s) / ln 51 at 1/256, 1/64, 1/32, …, 1/2, 3/4,
1: each halving of the parameters costs about the same, as the accuracies of shared networks show.
Below 1/256 each halving costs 0.046, as between 1/64 and 1/128, down to 1/16384, so that no group
starves. Beyond 1 it rises slowly (by 0.08, 0.14, 0.18 at 2, 4, 8): more templates than weights help
a little.
"""

VISIBLE: tuple[tuple[int, int], ...] = ((2000, 0), (500, 96), (76, 202), (0, 250))
"""Concave worth of the share u ≤ 1 of its elements that a site can set independently of each other.

Kinks at about 1/16, 1/4 and 5/8. This is what makes one large bank better than several small ones.
"""

DISSIMILARITY = 500
"""Cost of an element that shares with what is wholly unlike it: VISIBLE cannot make up for it."""

BONUS: dict[str, int] = {
    "own": 20,
    "mix": 4,
    "lowrank": 4,
    "hash": 0,
    "mask": -40,
    "repeat": -50,
    "interpolate": -60,
    "tie": -100,
}
"""Worth of a generator as such. Own parameters win whatever they can be had for; a mix learns which
templates to read, so it is a little better than a fixed hash; upsampling correlates neighbours; a
low rank saves the product as well, where rank is what the tensor has to spare."""

DOUBLING = (2, 4, 8, 16)
"""The numbers of templates to choose from below the dense count."""

TEMPLATES: dict[int, int] = {2: 0, 3: 2, 4: 3, 6: 3, 8: 2, 12: 1, 16: 0}
"""Menu of K, and the worth of K templates beyond two: concave, less K multiplications a weight.

K templates of n elements need a bank of (K + 1) n / 2 and read at most K n. Each of the menu needs
no more than the one before reads, so that no size from 3 n / 2 to 16 n is out of reach.
"""

SMALL = 100
"""What is smaller than one part in this many of the model is worth keeping as if it were not."""

COPIES = (2, 3, 4, 6, 8, 12, 16, 32, 64)
"""Menu of copies for repeat and mask, which fixes how many coefficients they have."""

WINDOWS: dict[Generator, int] = {"repeat": 1, "mask": 8}
"""Coefficients a copy."""

RANKS = (1, 4, 16, 64, 256)

LEAST_BANK = 16
"""Parameters below which a bank is not worth its name, unless its sites are as small."""

CHUNKS_PER_HASH = 16
"""Least number of chunks a hash reads, so that signs alone tell two tensors apart."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """What generators may be tried with: K and their worth, copies, ranks."""

    templates: Mapping[int, int] = field(default_factory=lambda: TEMPLATES)
    copies: tuple[int, ...] = COPIES
    ranks: tuple[int, ...] = RANKS


@dataclass(frozen=True, slots=True)
class Option:
    """One way to make a class of sites other than by own parameters.

    With m the size of the group's bank: ``need`` ≤ m ≤ ``room``. ``reads`` bank parameters are read
    by a site, ``cost`` parameters besides the bank are spent on each, ``fixed`` once for the class.
    ``value`` is the worth of a site, not counting what the bank's size adds.
    """

    generator: Generator
    group: int | None
    parameter: int
    need: int
    room: int | None
    reads: int
    cost: int
    fixed: int
    value: int


@dataclass(frozen=True, slots=True)
class SiteClass:
    """Sites (by index) that nothing tells apart, of ``size`` elements that weigh ``weight``.

    ``pinned`` names the rules that make them keep their own parameters.
    """

    sites: tuple[int, ...]
    size: int
    weight: int
    own_value: int
    may_own: bool
    options: tuple[Option, ...]
    pinned: str = ""


@dataclass(frozen=True, slots=True)
class Problem:
    """What is to be solved. Weights are elements times importance times ``resolution``.

    ``rules`` speak of classes by number.
    """

    classes: tuple[SiteClass, ...]
    groups: tuple[str, ...]
    kept: int
    chunk: int
    resolution: int
    rules: tuple[Rule, ...] = ()

    def joins(self) -> list[list[tuple[int, int]]]:
        """For each group, the (class, option) pairs that use its bank."""
        found: list[list[tuple[int, int]]] = [[] for _ in self.groups]
        for c, item in enumerate(self.classes):
            for o, option in enumerate(item.options):
                if option.group is not None:
                    found[option.group].append((c, o))
        return found


def formulate(
    sites: Sequence[Site],
    evidence: Evidence,
    generators: tuple[Generator, ...],
    rules: Sequence[Rule] = (),
    parameters: Parameters | None = None,
) -> Problem:
    """Collapses sites to classes and lists the options of each, by default with the solver's menus.

    Sites of one class are in the same groups and the same rules.

    Raises:
        AllocationError: a generator is unknown, or the evidence names a site that is not there,
            puts one twice into a group, or mixes dtypes in a group.
    """
    unknown = [name for name in generators if name not in GENERATORS]
    if unknown:
        raise AllocationError(
            f"unknown generator {unknown[0]!r}; there are {', '.join(GENERATORS)}"
        )
    parameters = parameters or Parameters()
    member_of = _memberships(sites, evidence)
    importance = dict(evidence.importance)
    total = sum(site.size for site in sites if site.shareable)
    chunk = chunk_length(total)
    neutral = all(value == 1.0 for value in importance.values())
    # Importance is rounded, more coarsely where products would not fit into 64 bits.
    resolution = 1 if neutral else min(100, max(1, 10**11 // max(1, total)))
    rules = join_ties(rules)
    ruled = _ruled(len(sites), rules)
    tied = {index for rule in rules if rule.kind == "tie" for index in rule.members}

    grouped: dict[tuple[object, ...], list[int]] = {}
    for index, site in enumerate(sites):
        if site.shareable:
            worth = max(1, round(resolution * importance.get(site.name, 1.0)))
            # What is tied is one tensor, whatever else tells its sites apart.
            alike = () if index in tied else (*_likeness(site), tuple(member_of[index]), worth)
            grouped.setdefault((*alike, *ruled[index]), []).append(index)
    classes = []
    for members in grouped.values():
        site = sites[members[0]]
        worth = max(1, round(resolution * importance.get(site.name, 1.0)))
        menu: tuple[Generator, ...] = (*generators, "tie") if members[0] in tied else generators
        groups = member_of[members[0]]
        options = _options(site, len(members), worth, groups, menu, chunk, parameters)
        classes.append(
            SiteClass(
                sites=tuple(members),
                size=site.size,
                weight=site.size * worth,
                own_value=worth * _own_value(site.size, total),
                may_own="own" in generators or not options,
                options=options,
            )
        )
    return Problem(
        classes=tuple(classes),
        groups=tuple(group.name for group in evidence.groups),
        kept=sum(site.size for site in sites if site.trainable and not site.shareable),
        chunk=chunk,
        resolution=resolution,
        rules=_of_classes(rules, classes),
    )


def coarse(problem: Problem) -> Problem:
    """The problem with the numbers of templates in ``DOUBLING`` alone.

    Others fill holes between what banks of more than a tensor's size can hold. Below the dense
    count they are worth next to nothing, and take the search its time.
    """
    classes = tuple(
        replace(item, options=tuple(one for one in item.options if _is_coarse(one)))
        for item in problem.classes
    )
    return replace(problem, classes=classes)


def _is_coarse(option: Option) -> bool:
    return option.generator != "mix" or option.parameter in DOUBLING


def dense_count(problem: Problem) -> int:
    """Trainable parameters of the model itself."""
    return problem.kept + sum(item.size * len(item.sites) for item in problem.classes)


def prune(problem: Problem) -> Problem:
    """The problem without the options that a rule excludes by itself."""
    classes = list(problem.classes)
    for rule in problem.rules:
        for number in rule.members:
            item = classes[number]
            options = tuple(option for option in item.options if permits(rule, item, option))
            kept = item.may_own and permits(rule, item, None)
            pinned = rule.label if item.options and not options else item.pinned
            classes[number] = replace(item, options=options, may_own=kept, pinned=pinned)
    return replace(problem, classes=tuple(classes))


def _ruled(count: int, rules: Sequence[Rule]) -> list[tuple[tuple[int, int], ...]]:
    """For each site the rules that speak of it, with the set that it is in."""
    found: list[list[tuple[int, int]]] = [[] for _ in range(count)]
    for number, rule in enumerate(rules):
        for place, members in enumerate(rule.sets):
            for index in members:
                found[index].append((number, place))
    return [tuple(one) for one in found]


def _of_classes(rules: Sequence[Rule], classes: Sequence[SiteClass]) -> tuple[Rule, ...]:
    """The rules with classes by number in place of sites."""
    home = {index: number for number, item in enumerate(classes) for index in item.sites}
    return tuple(
        replace(
            rule,
            sets=tuple(
                tuple(sorted({home[index] for index in members if index in home}))
                for members in rule.sets
            ),
        )
        for rule in rules
    )


def chunk_length(shareable: int) -> int:
    """Length of a hash's chunks in a model with ``shareable`` elements to share.

    Long chunks make reading cheap and the permutation coarse. It depends on the model alone, so
    that what is possible under a budget stays possible under a larger one.
    """
    for length, least in ((64, 1 << 20), (16, 1 << 17), (4, 1 << 14)):
        if shareable >= least:
            return length
    return 1


def share_value(parameters: int, elements: int) -> int:
    """``elements`` times SHARE at their ratio, rounded down."""
    return min(slope * parameters + intercept * elements for slope, intercept in SHARE)


def visible_value(parameters: int, elements: int) -> int:
    """``elements`` times VISIBLE at their ratio, rounded down."""
    return min(slope * parameters + intercept * elements for slope, intercept in VISIBLE)


def templates_value(count: int) -> int:
    """The worth of any number of templates up to the menu's most, as of K in TEMPLATES.

    Between two of the menu it is on the line between theirs, rounded down. One template is read as
    a hash is: no choice.
    """
    if count == 1:
        return BONUS["hash"] - BONUS["mix"]
    below = max(k for k in TEMPLATES if k <= count)
    above = min(k for k in TEMPLATES if k >= count)
    rise = TEMPLATES[above] - TEMPLATES[below]
    return TEMPLATES[below] + rise * (count - below) // max(1, above - below)


def _own_value(size: int, total: int) -> int:
    """Worth of a tensor that keeps its own parameters, in a model with ``total`` to share.

    A layer of a few hundred weights costs next to nothing to keep and does as much as any other:
    what is smaller than one part in SMALL of the model has the bonus of a tensor of that size.
    """
    return size * (share_value(1, 1) + VISIBLE[-1][1]) + BONUS["own"] * max(size, total // SMALL)


def _likeness(site: Site) -> tuple[str, str, tuple[int, ...], str, Initial]:
    return site.owner, site.parameter, site.shape, site.dtype, site.initial


def _memberships(sites: Sequence[Site], evidence: Evidence) -> list[list[tuple[int, int]]]:
    """For each site, its groups by index with its dissimilarity in thousandths."""
    index_of = {site.name: index for index, site in enumerate(sites)}
    member_of: list[list[tuple[int, int]]] = [[] for _ in sites]
    for number, group in enumerate(evidence.groups):
        dtypes = set()
        for name, unlike in zip(group.members, group.dissimilarity, strict=True):
            if name not in index_of:
                raise AllocationError(
                    f"group {group.name} names {name!r}, which is not a parameter"
                )
            index = index_of[name]
            if member_of[index] and member_of[index][-1][0] == number:
                raise AllocationError(f"group {group.name} names {name!r} twice")
            if sites[index].shareable:
                dtypes.add(sites[index].dtype)
                member_of[index].append((number, round(1000 * min(1.0, max(0.0, unlike)))))
        if len(dtypes) > 1:
            raise AllocationError(
                f"group {group.name} mixes {' and '.join(sorted(dtypes))}: a bank has one dtype"
            )
    return member_of


def _options(
    site: Site,
    count: int,
    worth: int,
    groups: Sequence[tuple[int, int]],
    generators: tuple[Generator, ...],
    chunk: int,
    parameters: Parameters,
) -> tuple[Option, ...]:
    options: list[Option] = []
    for group, unlike in groups:
        options += _shared_options(site, worth, group, unlike, generators, chunk, parameters)
    if site.initial.std > 0:
        if "lowrank" in generators:
            options += _lowrank_options(site, worth, parameters.ranks)
        if "tie" in generators and count > 1:
            n = site.size
            each = share_value(n, count * n) // count + n * (VISIBLE[-1][1] + BONUS["tie"])
            options.append(Option("tie", None, 0, 0, None, 0, 0, n, worth * each))
    return tuple(options)


def _shared_options(
    site: Site,
    worth: int,
    group: int,
    unlike: int,
    generators: tuple[Generator, ...],
    chunk: int,
    parameters: Parameters,
) -> list[Option]:
    """Options in one group. A site that starts at zero needs coefficients that start there."""
    n = site.size
    loss = unlike * DISSIMILARITY // 1000
    least = max(1, min(LEAST_BANK, n // 2))
    random = site.initial.std > 0
    options = []

    def offer(
        generator: Generator, parameter: int, need: int, room: int | None, reads: int, cost: int
    ) -> None:
        worth_of = BONUS[generator] - loss
        worth_of += parameters.templates[parameter] if generator == "mix" else 0
        options.append(
            Option(
                generator, group, parameter, max(need, least), room, reads, cost, 0,
                worth * n * worth_of,
            )
        )  # fmt: skip

    if "mix" in generators:
        for k in parameters.templates:
            # Neighbouring windows overlap by half at most, and more than n of them are redundant.
            if k <= n:
                offer("mix", k, -(-(k + 1) * n // 2), None, k * n, k)
    if "hash" in generators and random and n >= CHUNKS_PER_HASH * chunk:
        offer("hash", 0, 1, None, n - n % chunk, 0)
        # Hash reads as much, costs no coefficients and is worth more than all that follow.
        return options
    if "interpolate" in generators and random and n > 2:
        # Two different templates need a ring of two.
        offer("interpolate", 2, 2, n - 1, n, 2)
    for generator, windows in WINDOWS.items():
        if generator in generators:
            for copies in parameters.copies:
                need, room = -(-n // copies), -(-n // (copies - 1)) - 1
                if max(need, least) <= room:
                    offer(generator, copies, need, room, n, _windows(n, copies * windows))
    return options


def _windows(size: int, most: int) -> int:
    """How many windows of one length begin within ``size`` elements: at most ``most``."""
    return -(-size // -(-size // most))


def _lowrank_options(site: Site, worth: int, ranks: Sequence[int]) -> list[Option]:
    rows, columns = site.matrix
    n, options = site.size, []
    for rank in ranks:
        size = rank * (rows + columns)
        if size < n:
            each = share_value(size, n) + BONUS["lowrank"] * n
            each += visible_value(n * rank // min(rows, columns), n)
            options.append(Option("lowrank", None, rank, 0, None, 0, size, 0, worth * each))
    return options
