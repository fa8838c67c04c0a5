"""What a person sees: the table on standard output, the progress bar on standard error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from benchmarks.report import Cell, Report

WIDTH_WITHOUT_TERMINAL = 140


class Bar:
    """How far a benchmark is; `advance` is cheap enough to be called for every request."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress = progress
        self._task = progress.add_task("", total=total)

    def stage(self, text: str) -> None:
        self._progress.update(self._task, description=text)

    def advance(self, steps: int = 1) -> None:
        self._progress.advance(self._task, steps)


@contextmanager
def bar(total: int, *, quiet: bool = False) -> Iterator[Bar]:
    """Drawn four times a second: the generator shares its cores with what it measures."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    console = Console(stderr=True, quiet=quiet)
    with Progress(*columns, console=console, refresh_per_second=4) as progress:
        yield Bar(progress, total)


def show(report: Report, console: Console | None = None) -> None:
    """The report as a table, then the goals, then the notes.

    Runs stand side by side when they are fewer than the figures that each of them has.
    """
    console = console or _console()
    used = [c for c in report.columns if any(row.get(c.key) is not None for row in report.rows)]
    grid = [[column.title, *(_cell(row.get(column.key)) for row in report.rows)] for column in used]
    if len(report.rows) >= len(used):
        grid = [list(line) for line in zip(*grid, strict=True)]
    table = Table(title=report.benchmark, caption=_origin(report), caption_justify="left")
    for number, title in enumerate(grid[0] if grid else ()):
        table.add_column(title, justify="right" if number else "left", overflow="fold")
    for line in grid[1:]:
        table.add_row(*line)
    console.print(table)
    for goal in report.verdicts:
        mark = "[green]met[/green]" if goal.met else "[red]not met[/red]"
        figure = "no figure" if goal.figure is None else f"{goal.figure:.3g}"
        console.print(f"{goal.goal}: {figure}, {goal.sense} {goal.limit:g}: {mark}")
    for note in report.notes:
        console.print(f"- {note}", highlight=False)


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=WIDTH_WITHOUT_TERMINAL)


def _cell(value: Cell) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else value


def _origin(report: Report) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    machine = report.machine
    return (
        f"{machine.processor}, {machine.cores} cores, {machine.memory_gb:g} GB, {machine.system}\n"
        f"{versions}\n{report.started_at:%Y-%m-%d %H:%M} UTC, {report.duration_s:.0f} s"
    )
