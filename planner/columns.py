"""Comparisons and curves as text: columns of plain characters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from planner.comparison import Comparison, Entry
from planner.curves import Curve, Point

_BARS = "▁▂▃▄▅▆▇█"


def comparison_text(comparison: Comparison) -> str:
    """The table of a comparison, with the narrower model below it."""
    headers = "allocator objective parameters compr. unlike tied own shared seconds".split()
    rows = [_entry(entry) for entry in comparison.entries]
    narrow = comparison.narrow
    heading = [
        f"model   {_printable(comparison.model)}, {comparison.dense:,} parameters",
        f"budget  {comparison.parameters:,} ({_printable(comparison.budget)})",
    ]
    if narrow.fits:
        beside = (
            f"narrow: hidden widths times {narrow.factor:.4g}, {narrow.count:,} parameters; "
            "no allocation,\nas its tensors have other shapes"
        )
    else:
        beside = f"narrow: too few, as hidden widths of 1 take {narrow.count:,} parameters"
    return "\n".join([*heading, "", *_table(headers, rows), "", beside])


def curve_text(curve: Curve, *, bars: bool = True) -> str:
    """The table of a curve; with ``bars`` the objective as a line of bars below it."""
    rows = [_point(point) for point in curve.points]
    headers = ["budget", "parameters", "compr.", "objective", "gap", "seconds"]
    lines = [
        f"model  {_printable(curve.model)}, {curve.dense:,} parameters",
        "",
        *_table(headers, rows),
        "",
        f"captured once, in {curve.capture_seconds:.3g} seconds",
    ]
    heights = [point.objective for point in curve.points if point.objective is not None]
    if bars and len(heights) > 1:
        lines.append(f"objective  {sparkline(heights)}")
    return "\n".join(lines)


def sparkline(heights: Sequence[int]) -> str:
    """A bar for each of ``heights``, the lowest to the highest in eight steps."""
    low, span = min(heights), max(heights) - min(heights)
    return "".join(_BARS[(height - low) * 7 // span if span else 7] for height in heights)


def plain(made: Comparison | Curve) -> dict[str, Any]:
    """The figures as JSON holds them."""
    return asdict(made)


def _entry(entry: Entry) -> list[str]:
    if entry.minimum is not None:
        return [entry.allocator, f"too few: at least {entry.minimum:,}"]
    return [
        entry.allocator,
        f"{entry.objective:,}",
        f"{entry.count:,}",
        f"{entry.compression:.3g}x",
        f"{entry.dissimilarity:.3f}",
        f"{entry.tied}",
        f"{entry.own}",
        f"{entry.shared}",
        f"{entry.seconds:.3g}",
    ]


def _point(point: Point) -> list[str]:
    name = _printable(point.budget)
    if point.minimum is not None:
        return [name, f"{point.parameters:,}  too few: at least {point.minimum:,}"]
    return [
        name,
        f"{point.count:,}",
        f"{point.compression:.3g}x",
        f"{point.objective:,}",
        f"{100 * (point.gap or 0):.2f}%",
        f"{point.seconds:.3g}",
    ]


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Aligned to the right, but for names. A row that is short says in words what it lacks."""
    whole = [headers, *(row for row in rows if len(row) == len(headers))]
    widths = [max(len(row[column]) for row in whole) for column in range(len(headers))]
    widths[0] = max(len(row[0]) for row in [headers, *rows])
    lines = []
    for row in [headers, *rows]:
        cells = [row[0].ljust(widths[0])]
        if len(row) < len(headers):
            cells += row[1:]
        else:
            cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return lines


def _printable(text: str) -> str:
    """``text`` with what a terminal would obey made visible."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
