"""Plan → report for a terminal.

It fits 80 columns, and has no boxes and no trailing spaces, so that it reads the same in a pipe.
Rich leaves out colour where output is no terminal or ``NO_COLOR`` is set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from planner.ir import Verification
from planner.summary import BankFigures, CaptureFigures, SiteFigures, Summary, summarise

if TYPE_CHECKING:
    from planner.effort import Progress
    from planner.plans import Plan

_CLASSES = 5
"""Classes that a line of the report names."""


def print_report(plan: Plan, console: Console | None = None, *, every_site: bool = False) -> None:
    """Print the report of ``plan``, by default to standard output."""
    (console or Console(highlight=False)).print(report(plan, every_site=every_site))


def report(plan: Plan, *, every_site: bool = False) -> RenderableType:
    """Totals, banks, sites, kept parameters, constraints, notes and the solver's word, in order.

    Sites that differ only by numbers in their names share a row, unless ``every_site`` is set.
    """
    summary = summarise(plan, every_site=every_site)
    parts: list[RenderableType] = [_heading(summary), _totals(summary), Text("")]
    for rows, table in (
        (summary.banks, _banks),
        (summary.generated, _sites),
        (summary.kept, _kept),
    ):
        if rows:
            parts += [table(summary), Text("")]
    parts += [_plain(f"asked for: {one}") for one in summary.constraints]
    parts += [_plain(f"note: {note}") for note in summary.notes]
    return _Trimmed(Group(*parts, _solver(summary)))


@dataclass(frozen=True)
class _Trimmed:
    """``content`` without the spaces that fill its lines up to the width of the terminal."""

    content: RenderableType

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in console.render_lines(self.content, options, pad=False):
            while line and not line[-1].text.strip(" "):
                line.pop()
            if line:
                last = line.pop()
                line.append(Segment(last.text.rstrip(" "), last.style, last.control))
            yield from line
            yield Segment.line()


@dataclass(frozen=True)
class _Named:
    """A table whose first column holds names, which break after a dot where space is short.

    The last row holds the sums.
    """

    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left: int = 1

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        longest = max(len(row[0]) for row in self.rows)
        wanted = Measurement.get(console, options.update(width=10_000), self._table(longest))
        yield self._table(max(12, longest - max(0, wanted.maximum - options.max_width)))

    def _table(self, width: int) -> Table:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        for index, header in enumerate(self.headers):
            if index == 0:
                table.add_column(header, overflow="fold")
            elif index < self.left:
                table.add_column(header, no_wrap=True)
            else:
                table.add_column(header, justify="right", no_wrap=True)
        for first, *others in self.rows:
            table.add_row(_plain(first, width), *(_plain(other) for other in others))
        return table


def _heading(summary: Summary) -> Group:
    lines = [
        f"model      {summary.model}",
        f"plan       {summary.digest[:16]}, seed {summary.seed}",
    ]
    if summary.evidence != "shape":
        lines.append(f"evidence   {summary.evidence}")
    for index, one in enumerate(summary.captured):
        lines.append(f"{'' if index else 'captured':<10} {_captured(one)}")
    if summary.obstacle:
        lines += ["captured   not, so that it cannot be emitted:", *summary.obstacle.splitlines()]
    if summary.verification is not None:
        lines.append(f"verified   {_verified(summary.verification)}")
        if summary.verification.free or summary.verification.fixed:
            lines.append(f"sizes      {_sizes(summary.verification)}")
    return Group(*map(_plain, lines))


def _captured(one: CaptureFigures) -> str:
    """``12 modules by a recorded run: BertModel, BertEncoder and 9 more``."""
    way = {"symbolic": "by symbolic tracing", "recorded": "by a recorded run"}[one.rung]
    names, rest = one.classes[:_CLASSES], len(one.classes) - _CLASSES
    more = f" and {rest} more" if rest > 0 else ""
    return f"{_counted(one.modules, 'module')} {way}: {', '.join(names)}{more}"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' if count != 1 else ''}"


def _verified(known: Verification) -> str:
    modes = [("train", known.train), ("eval", known.eval)]
    if known.train == known.eval:
        modes = [("train and eval", known.train)]
    places = [
        f"{mode} at batch{'es' if len(sizes) > 1 else ''} {' and '.join(map(str, sizes))}"
        for mode, sizes in modes
        if sizes
    ]
    if not places:
        return f"no: {known.reason}"
    return "; ".join(filter(None, [f"outputs equal in {', '.join(places)}", known.reason]))


def _sizes(known: Verification) -> str:
    """``free in batch, length 10; as in the example: height 32, by encoder.blocks.0``."""
    free = [*(["batch"] if len({*known.train, *known.eval}) > 1 else []), *known.free]
    fixed = [f"{size}, by {path or 'the root module'}" for size, path in known.fixed]
    told = [f"free in {', '.join(free)}"] if free else []
    return "; ".join(told + ([f"as in the example: {'; '.join(fixed)}"] if fixed else []))


def _totals(summary: Summary) -> Group:
    totals = summary.totals
    rows = [
        ("dense", f"{totals.dense:,}", "parameters"),
        ("budget", f"{totals.budget:,}", summary.budget),
        ("emitted", f"{totals.emitted:,}", f"compression {_ratio(totals.compression)}"),
        ("  banks", f"{totals.banks:,}", ""),
        ("  mixing", f"{totals.coefficients:,}", "coefficients"),
        ("  kept", f"{totals.kept:,}", ""),
        ("unused", f"{totals.unused:,}", ""),
        ("frozen", f"{totals.frozen:,}", "not trained, not counted"),
        ("gradients", _size(totals.gradient_bytes), "a step"),
        ("optimiser", _size(totals.momentum_bytes), "SGD with momentum"),
        ("", _size(totals.adam_bytes), "Adam"),
    ]
    if not totals.frozen:
        rows = [row for row in rows if row[0] != "frozen"]
    width = max(len(figure) for _, figure, _ in rows)
    lines = (f"{name:<11}{figure:>{width}}  {remark}".rstrip() for name, figure, remark in rows)
    return Group(*(_plain(line) for line in lines))


def _banks(summary: Summary) -> _Named:
    """The sum of the elements counts each generated tensor once, as each has one bank."""
    banks = summary.banks
    rows = [_bank_row(bank) for bank in banks]
    elements = sum(bank.elements for bank in banks)
    totals = summary.totals
    rows.append(
        (
            "total",
            f"{totals.banks:,}",
            f"{totals.coefficients:,}",
            "",
            f"{sum(bank.sites for bank in banks):,}",
            f"{elements:,}",
            "",
            _ratio(elements / max(1, totals.banks + totals.coefficients)),
        )
    )
    headers = ("bank", "parameters", "mixing", "templates", "sites", "elements", "reads", "compr.")
    return _Named(headers, tuple(rows))


def _bank_row(bank: BankFigures) -> tuple[str, ...]:
    least, most = bank.templates
    return (
        bank.name,
        f"{bank.parameters:,}",
        f"{bank.coefficients:,}",
        str(most) if least == most else f"{least}-{most}",
        f"{bank.sites:,}",
        f"{bank.elements:,}",
        _figure(bank.reads),
        _ratio(bank.compression),
    )


def _sites(summary: Summary) -> _Named:
    rows = [
        (
            site.name,
            "x".join(str(length) for length in site.shape) or "scalar",
            _generator(site),
            site.bank or "-",
            f"{site.count:,}",
            f"{100 * site.share:.1f}%",
        )
        for site in summary.generated
    ]
    count = _sum(site.count for site in summary.generated)
    share = sum(site.share for site in summary.generated)
    rows.append(("total", "", "", "", count, f"{100 * share:.1f}%"))
    headers = ("site", "shape", "generator", "bank", "sites", "share")
    return _Named(headers, tuple(rows), left=4)


def _generator(site: SiteFigures) -> str:
    return f"{site.generator} {site.detail}".rstrip()


def _kept(summary: Summary) -> _Named:
    rows = [(row.reason, f"{row.sites:,}", f"{row.elements:,}") for row in summary.kept]
    sites = _sum(row.sites for row in summary.kept)
    rows.append(("total", sites, _sum(row.elements for row in summary.kept)))
    return _Named(("kept as they are", "sites", "parameters"), tuple(rows))


def _solver(summary: Summary) -> Text:
    solver = summary.solver
    if solver.status == "RULE":
        return _plain(f"{solver.allocator}: by rule, objective {solver.objective:,}")
    return _plain(
        f"{solver.allocator}: {solver.status.lower()}, objective {solver.objective:,}, "
        f"bound {solver.bound:,}, gap {100 * solver.gap:.2f}%"
        + (f" (stopped early: {solver.stopped})" if solver.stopped else "")
    )


@contextmanager
def progress_line() -> Iterator[Callable[[Progress], None]]:
    """A line on the terminal's standard error that says where a search stands, while it lasts."""
    console = Console(stderr=True, highlight=False)
    with console.status("") as status:
        status.stop()

        def show(progress: Progress) -> None:
            status.update(progress_text(progress))
            status.start()

        yield show


def progress_text(progress: Progress) -> str:
    """Seconds, objective, bound and gap in words."""
    said = [f"solving for {progress.seconds:.0f} s"]
    if progress.objective is not None:
        said.append(f"objective {progress.objective:,}")
    if progress.bound is not None:
        said.append(f"bound {progress.bound:,}")
    if progress.gap is not None:
        said.append(f"gap {100 * progress.gap:.2f}%")
    return ", ".join(said) + "; Ctrl-C keeps the best plan so far"


def _plain(text: str, width: int | None = None) -> Text:
    """``text`` with no markup, and with what a terminal would obey made visible.

    A plan may come from a stranger, and its names reach the terminal. Names longer than ``width``
    break after a dot.
    """
    shown = "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
    return Text("\n".join(_broken(shown, width or len(shown))), overflow="fold")


def _broken(text: str, width: int) -> Iterator[str]:
    while len(text) > width:
        dot = text.rfind(".", 0, width) + 1
        if dot == 0 or " " in text:
            break
        yield text[:dot]
        text = text[dot:]
    yield text


def _sum(counts: Iterable[int]) -> str:
    return f"{sum(counts):,}"


def _figure(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def _ratio(value: float) -> str:
    return f"{_figure(value)}x"


def _size(count: int) -> str:
    """Bytes in the largest decimal unit that keeps at least one whole one."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:,.3g} TB"
