"""Partitions of the shareable sites, by names: the groups of the rules. A group has one dtype."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Hashable, Iterable, Sequence

from planner.ir import Evidence, Site

LOTS = 4
"""Groups that ``by_lot`` draws, if there are as many sites."""

Groups = list[list[str]]


def shareable(sites: Iterable[Site]) -> list[Site]:
    """The sites that a rule may generate."""
    return [site for site in sites if site.shareable]


def alone(sites: Sequence[Site], evidence: Evidence, seed: int) -> Groups:
    """A group for each site."""
    del evidence, seed
    return _grouped(sites, lambda site: site.name)


def together(sites: Sequence[Site], evidence: Evidence, seed: int) -> Groups:
    """One group."""
    del evidence, seed
    return _grouped(sites, lambda _: None)


def by_shape(sites: Sequence[Site], evidence: Evidence, seed: int) -> Groups:
    """A group for each shape."""
    del evidence, seed
    return _grouped(sites, lambda site: site.shape)


def by_lot(sites: Sequence[Site], evidence: Evidence, seed: int) -> Groups:
    """``LOTS`` groups of nearly as many sites each, drawn by ``seed``."""
    del evidence

    def draw(index: int) -> bytes:
        return hashlib.blake2b(f"{seed}/{index}".encode(), digest_size=8).digest()

    drawn = sorted(range(len(shareable(sites))), key=draw)
    lot = {shareable(sites)[index].name: place % LOTS for place, index in enumerate(drawn)}
    return _grouped(sites, lambda site: lot[site.name])


def by_evidence(sites: Sequence[Site], evidence: Evidence, seed: int) -> Groups:
    """As few groups as the evidence allows: the largest first, each of the sites still free."""
    del seed
    size = {site.name: site.size for site in shareable(sites)}
    free, found = dict.fromkeys(size), dict[str, int]()
    groups = [[name for name in group.members if name in size] for group in evidence.groups]
    for number, members in enumerate(
        sorted(groups, key=lambda names: -sum(size[name] for name in names))
    ):
        for name in members:
            if name in free:
                del free[name]
                found[name] = number
    return _grouped(sites, lambda site: found.get(site.name, site.name))


def repeated(sites: Sequence[Site]) -> Groups:
    """Sites of one role in repeated blocks that start alike: what manual sharing makes one.

    The places of a list count as one role where the model's own class holds the list, as no block
    has a name there.
    """

    def place(site: Site) -> Hashable:
        role = site.role
        if role.endswith(site.name):
            role = re.sub(r"(?<![^.])[0-9]+(?![^.])", "*", role)
        return role, site.owner, site.parameter, site.shape, site.initial

    return [names for names in _grouped(sites, place) if len(names) > 1]


def _grouped(sites: Sequence[Site], key: Callable[[Site], Hashable]) -> Groups:
    found: dict[tuple[str, Hashable], list[str]] = {}
    for site in shareable(sites):
        found.setdefault((site.dtype, key(site)), []).append(site.name)
    return list(found.values())
