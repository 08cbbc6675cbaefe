"""Plan → report for a terminal.

It fits 80 columns, and has no boxes, so that it reads the same in a pipe. Rich leaves out colour
where output is no terminal or ``NO_COLOR`` is set.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from planner.summary import SiteFigures, Summary, summarise

if TYPE_CHECKING:
    from planner.plans import Plan


def print_report(plan: Plan, console: Console | None = None, *, every_site: bool = False) -> None:
    """Print the report of ``plan``, by default to standard output."""
    (console or Console(highlight=False)).print(report(plan, every_site=every_site))


def report(plan: Plan, *, every_site: bool = False) -> RenderableType:
    """Totals, banks, sites, kept parameters, notes and the solver's word, in this order.

    Sites that differ only by numbers in their names share a row, unless ``every_site`` is set.
    """
    summary = summarise(plan, every_site=every_site)
    tables = [_totals(summary)]
    if summary.banks:
        tables.append(_banks(summary))
    if summary.generated:
        tables.append(_sites(summary))
    if summary.kept:
        tables.append(_kept(summary))
    parts: list[RenderableType] = []
    for table in tables:
        parts += [table, Text("")]
    notes = [_plain(f"note: {note}") for note in summary.notes]
    return Group(*parts, *notes, _solver(summary))


def _table(*headers: str, left: int = 1) -> Table:
    """A table without boxes whose first ``left`` columns are text and the others numbers."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for index, header in enumerate(headers):
        if index < left:
            table.add_column(header, overflow="fold")
        else:
            table.add_column(header, justify="right", no_wrap=True)
    return table


def _totals(summary: Summary) -> Table:
    totals = summary.totals
    table = _table("", "", left=0)
    table.show_header = False
    table.columns[0].justify = "left"
    table.add_column(overflow="fold")
    table.add_row("model", "", _plain(summary.model))
    table.add_row("plan", "", _plain(f"{summary.digest[:16]}, seed {summary.seed}"))
    table.add_row("dense", f"{totals.dense:,}", "parameters")
    table.add_row("budget", f"{totals.budget:,}", _plain(f"parameters ({summary.budget})"))
    table.add_row(
        "emitted", f"{totals.emitted:,}", f"parameters, compression {_ratio(totals.compression)}"
    )
    table.add_row("unused", f"{totals.unused:,}", "parameters of the budget")
    table.add_row("gradients", _size(totals.gradient_bytes), "a step")
    table.add_row(
        "optimiser",
        _size(totals.momentum_bytes),
        f"SGD with momentum; Adam {_size(totals.adam_bytes)}",
    )
    return table


def _banks(summary: Summary) -> Table:
    table = _table("bank", "parameters", "coeff.", "sites", "elements", "reads", "compr.", "std")
    for bank in summary.banks:
        table.add_row(
            _plain(bank.name),
            f"{bank.parameters:,}",
            f"{bank.coefficients:,}",
            str(bank.sites),
            f"{bank.elements:,}",
            f"{bank.reads:.2f}",
            _ratio(bank.compression),
            f"{bank.std:.3g}",
        )
    return table


def _sites(summary: Summary) -> Table:
    table = _table("site", "shape", "generator", "bank", "sites", "share", left=4)
    for column in table.columns[1:3]:
        column.no_wrap = True
    for site in summary.generated:
        table.add_row(
            _plain(site.name),
            "x".join(str(length) for length in site.shape),
            _generator(site),
            _plain(site.bank or "-"),
            str(site.count),
            f"{100 * site.share:.1f}%",
        )
    return table


def _generator(site: SiteFigures) -> str:
    return f"{site.generator} {site.detail}".rstrip()


def _kept(summary: Summary) -> Table:
    table = _table("kept as they are, because", "sites", "parameters")
    for row in summary.kept:
        table.add_row(_plain(row.reason), str(row.sites), f"{row.elements:,}")
    return table


def _solver(summary: Summary) -> Text:
    solver = summary.solver
    return _plain(
        f"{solver.allocator}: {solver.status.lower()}, objective {solver.objective:,}, "
        f"bound {solver.bound:,}, gap {100 * solver.gap:.2f}%"
    )


def _plain(text: str) -> Text:
    """``text`` with no markup, and with what a terminal would obey made visible.

    A plan may come from a stranger, and its names reach the terminal.
    """
    return Text("".join(char if char.isprintable() else repr(char)[1:-1] for char in text))


def _ratio(value: float) -> str:
    return f"{value:.3g}x" if value < 1000 else f"{value:,.0f}x"


def _size(count: int) -> str:
    """Bytes in the largest decimal unit that keeps at least one whole one."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:,.3g} TB"
