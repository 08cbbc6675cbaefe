"""Names that differ only by numbers, gathered under one pattern."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

# A pattern, part by part between the dots: the words that may stand at each place.
_Pattern: TypeAlias = tuple[tuple[str, ...], ...]
_Row: TypeAlias = tuple[_Pattern, tuple[str, ...]]


def collapse_names(names: Sequence[str]) -> list[tuple[str, tuple[str, ...]]]:
    """Gather names that differ by numbers: ``a.0.b``, ``a.1.b`` become ``a.{0,1}.b``.

    A pattern stands for every combination of its numbers, so it never covers a name that is not
    among ``names``. Returns (pattern, names it stands for), in the order of the first of each.
    """
    rows: list[_Row] = [(tuple((part,) for part in name.split(".")), (name,)) for name in names]
    for place in range(max((len(pattern) for pattern, _ in rows), default=0)):
        rows = _merge(rows, place)
    return [(".".join(_numbers(words) for words in pattern), found) for pattern, found in rows]


def _merge(rows: Sequence[_Row], place: int) -> list[_Row]:
    """Rows that are equal but for the number at ``place`` become one."""
    merged: dict[tuple[object, ...], _Row] = {}
    for pattern, names in rows:
        if place >= len(pattern) or not pattern[place][0].isdecimal():
            merged[(pattern,)] = (pattern, names)
            continue
        before, after = pattern[:place], pattern[place + 1 :]
        if (before, after) in merged:
            earlier, found = merged[(before, after)]
            joined = earlier[place] + pattern[place]
            merged[(before, after)] = ((*before, joined, *after), found + names)
        else:
            merged[(before, after)] = (pattern, names)
    return list(merged.values())


def _numbers(words: tuple[str, ...]) -> str:
    if len(words) == 1:
        return words[0]
    values = sorted(int(word) for word in words)
    if len(values) > 2 and values == list(range(values[0], values[-1] + 1)):
        return f"{{{values[0]}..{values[-1]}}}"
    return "{" + ",".join(str(value) for value in values) + "}"
