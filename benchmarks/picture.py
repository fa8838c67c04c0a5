"""Draws a report's charts into one PNG, without a display."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.report import Chart, Report

COLUMNS = 2
WIDTH_IN, HEIGHT_IN = 6.4, 4.0


def draw(report: Report, path: Path) -> None:
    """Charts side by side, the machine and the commit below them."""
    across = min(COLUMNS, len(report.charts))
    down = -(-len(report.charts) // across)
    figure = Figure(figsize=(WIDTH_IN * across, HEIGHT_IN * down + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(down, across, squeeze=False)
    for index, axis in enumerate(axes.flat):
        if index < len(report.charts):
            _plot(axis, report.charts[index])
        else:
            axis.set_visible(False)
    figure.suptitle(report.benchmark)
    figure.supxlabel(_origin(report), fontsize=8)
    figure.savefig(path, dpi=120)


def _plot(axis: Any, chart: Chart) -> None:
    positions = sorted({x for points in chart.series.values() for x, _ in points})
    width = 0.8 / max(1, len(chart.series))
    for number, (name, points) in enumerate(chart.series.items()):
        ys = [y for _, y in points]
        if chart.kind == "bar":
            offset = (number - (len(chart.series) - 1) / 2) * width
            axis.bar([positions.index(x) + offset for x, _ in points], ys, width, label=name)
        elif chart.kind == "step":
            axis.step([x for x, _ in points], ys, where="post", label=name)
        else:
            axis.plot([x for x, _ in points], ys, marker="o", label=name)
    if chart.kind == "bar":
        axis.set_xticks(range(len(positions)), [f"{x:g}" for x in positions])
    axis.set(title=chart.title, xlabel=chart.x, ylabel=chart.y)
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3)
    if len(chart.series) > 1:
        axis.legend(fontsize=8)


def _origin(report: Report) -> str:
    return (
        f"{report.machine.processor}, {report.machine.cores} cores, {report.machine.system}; "
        f"commit {report.versions['commit']}, {report.started_at:%Y-%m-%d}"
    )
