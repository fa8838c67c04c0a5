"""The one output format of every benchmark: a record, shown as table, JSON file and PNG."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from benchmarks.machine import PROJECT_ROOT, Machine, this_machine, versions

RESULTS = PROJECT_ROOT / "benchmarks" / "results"
Cell = float | int | str | None


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Column(_Record):
    """One column: its `key` in the rows, its `title`, its `meaning` in a phrase with the unit."""

    key: str
    title: str
    meaning: str


class Chart(_Record):
    """One picture: a line or a group of bars for each series of (x, y) points."""

    title: str
    x: str
    y: str
    kind: Literal["line", "bar", "step"] = "line"
    series: dict[str, list[tuple[float, float]]]


class Verdict(_Record):
    """A figure held against a limit that was set before it was measured."""

    goal: str
    figure: float | None
    limit: float
    sense: Literal["at least", "at most"]
    met: bool


class Report(_Record):
    """One run of one benchmark, whole: what was asked, where it ran, and what came out."""

    format: Literal[1] = 1
    benchmark: str
    started_at: datetime
    duration_s: float = Field(ge=0)
    machine: Machine
    versions: dict[str, str]
    options: dict[str, JsonValue]
    columns: list[Column]
    rows: list[dict[str, Cell]]
    verdicts: list[Verdict] = []
    charts: list[Chart] = []
    notes: list[str] = []

    @model_validator(mode="after")
    def _rows_fit_the_columns(self) -> Report:
        known = {column.key for column in self.columns}
        for row in self.rows:
            if strangers := sorted(set(row) - known):
                raise ValueError(f"a row holds what no column explains: {', '.join(strangers)}")
        return self


def verdict(
    goal: str, figure: float, sense: Literal["at least", "at most"], limit: float
) -> Verdict:
    """nan, which a side that failed leaves behind, never meets a limit."""
    met = figure >= limit if sense == "at least" else figure <= limit
    shown = None if math.isnan(figure) else figure
    return Verdict(goal=goal, figure=shown, limit=limit, sense=sense, met=bool(met))


class Draft:
    """A report in the making: opened before the first measurement, closed after the last."""

    def __init__(
        self, benchmark: str, options: dict[str, JsonValue], columns: list[Column]
    ) -> None:
        self.benchmark = benchmark
        self.options = options
        self.columns = columns
        self.rows: list[dict[str, Cell]] = []
        self.verdicts: list[Verdict] = []
        self.charts: list[Chart] = []
        self.notes: list[str] = []
        self._started_at = datetime.now(UTC)

    def row(self, **cells: Cell) -> None:
        """Adds a row; nan becomes None, which JSON can carry and the table shows as a dash."""
        self.rows.append(
            {
                key: None if isinstance(cell, float) and math.isnan(cell) else cell
                for key, cell in cells.items()
            }
        )

    def close(self) -> Report:
        return Report(
            benchmark=self.benchmark,
            started_at=self._started_at,
            duration_s=(datetime.now(UTC) - self._started_at).total_seconds(),
            machine=this_machine(),
            versions=versions(),
            options=self.options,
            columns=self.columns,
            rows=self.rows,
            verdicts=self.verdicts,
            charts=self.charts,
            notes=self.notes,
        )


def save(report: Report, folder: Path | None = None) -> tuple[Path, Path | None]:
    """Writes `NAME-TIME.json` and, when the report has charts, `NAME-TIME.png`."""
    folder = folder or RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{report.benchmark}-{report.started_at:%Y%m%dT%H%M%SZ}"
    written = folder / f"{stem}.json"
    written.write_text(report.model_dump_json(indent=2) + "\n")
    if not report.charts:
        return written, None
    from benchmarks.picture import draw  # matplotlib takes a second to import

    picture = folder / f"{stem}.png"
    draw(report, picture)
    return written, picture
