"""Print what becomes of each architecture: ``python -m benchmarks.architectures [NAME...]``."""

from __future__ import annotations

import sys

from architectures import ARCHITECTURES, measure

ROW = "{:<16} {:>12} {:>12} {:>12} {:>6} {:>10}"


def main(names: list[str]) -> None:
    """A row for each of ``names``, or for all."""
    print(ROW.format("architecture", "dense", "budget", "emitted", "lines", "deviation"))
    for name in names or ARCHITECTURES:
        row = measure(ARCHITECTURES[name])
        counts = (f"{count:,}" for count in (row.dense, row.budget, row.emitted))
        print(ROW.format(name, *counts, row.lines, f"{row.deviation:.1e}"), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
