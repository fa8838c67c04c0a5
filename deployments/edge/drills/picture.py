"""The page of a drill: what was asked, what came of it, and when, as one HTML file without scripts."""

from __future__ import annotations

import html
from collections.abc import Sequence
from datetime import UTC, datetime

from deployments.edge.drills.experiment import Experiment
from deployments.edge.drills.outcome import KINDS

_WIDTH, _ROW, _LEFT = 960, 26, 80
_COLOURS = {"ok": "#2a9d8f", "failed": "#d62828", "hung": "#6d597a"}
_STYLE = (
    "body{font:15px system-ui;margin:2em auto;max-width:70em;color:#222}"
    "table{border-collapse:collapse}td,th{padding:.2em .8em;text-align:left}"
    "td,th{border-bottom:1px solid #ddd}"
    "svg{width:100%;height:auto}.bad{color:#d62828}"
)


def page(title: str, experiments: Sequence[Experiment], problems: Sequence[str] = ()) -> str:
    """The whole page; `problems` are those of the drill as a whole."""
    told = "".join(f"<li class=bad>{html.escape(words)}" for words in problems)
    parts = [f"<ul>{told or '<li>every limit was kept'}</ul>"]
    parts += [_section(experiment) for experiment in experiments]
    head = f"<meta charset=utf-8><title>{html.escape(title)}</title><style>{_STYLE}</style>"
    return (
        f"<!doctype html><html lang=en>{head}<h1>{html.escape(title)}</h1>{''.join(parts)}</html>\n"
    )


def _section(experiment: Experiment) -> str:
    at = datetime.fromtimestamp(experiment.started, UTC).isoformat(timespec="seconds")
    rows = "".join(
        f"<tr><td>{n.kind}<td>{html.escape(KINDS[n.kind])}<td>{n.requests}<td>{n.failed}<td>{n.hung}"
        f"<td>{n.repeated}<td>{_seconds(n.first_success_s)}<td>{n.longest_s:.2f} s"
        for n in experiment.kinds
        if n.requests
    )
    problems = "".join(f"<li class=bad>{html.escape(p)}" for p in experiment.problems)
    decisions = "".join(f"<li>{html.escape(d)}" for d in experiment.decisions)
    return (
        f"<h2>{html.escape(experiment.fault)}</h2><p>{html.escape(experiment.title)}; {at}</p>"
        f"<p>first success {_seconds(experiment.first_success_s)}; whole again "
        f"{_seconds(experiment.restored_s)} after it was mended; acknowledged writes "
        f"{experiment.acknowledged_writes}, lost {experiment.lost_acknowledged_writes}; two primaries "
        f"{experiment.two_primaries_s:.1f} s</p>"
        f"<ul>{problems or '<li>every limit was kept'}</ul>{_svg(experiment)}"
        "<table><tr><th>kind<th>what<th>requests<th>failed<th>hung<th>repeated<th>first success"
        f"<th>longest{rows}</table><h3>Decisions</h3><ul>{decisions or '<li>none'}</ul>"
    )


def _seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.2f} s"


def _svg(experiment: Experiment) -> str:
    """Each request as a line from its beginning to its end; the fault at zero."""
    kinds = [n.kind for n in experiment.kinds if n.requests]
    ends = [end for _, _, end, _ in experiment.timeline]
    first, last = -5.0, max([*ends, 10.0])

    def x(moment: float) -> float:
        share = (max(first, moment) - first) / (last - first)
        return _LEFT + share * (_WIDTH - _LEFT - 10)

    height = _ROW * len(kinds) + 30
    dashes = 'stroke="#222" stroke-dasharray="3 3"'
    shapes = [f'<line x1="{x(0):.1f}" x2="{x(0):.1f}" y1="0" y2="{height - 20}" {dashes}/>']
    for row, kind in enumerate(kinds):
        y = _ROW * row + 16
        shapes.append(f'<text x="0" y="{y + 4}" font-size="13">{kind}</text>')
        for what, began, end, result in experiment.timeline:
            if what == kind:
                left, right = x(began), max(x(end), x(began) + 1.5)
                shapes.append(_line(left, right, y, result))
    step = max(1, int((last - first) / 12))
    for tick in range(0, int(last), step):
        place = f'x="{x(tick):.1f}" y="{height - 4}" font-size="11" text-anchor="middle"'
        shapes.append(f"<text {place}>{tick} s</text>")
    box = f'viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="timeline"'
    return f"<svg {box}>{''.join(shapes)}</svg>"


def _line(left: float, right: float, y: int, result: str) -> str:
    width = 7 if result == "ok" else 10
    stroke = f'stroke="{_COLOURS[result]}" stroke-width="{width}" stroke-opacity=".55"'
    return f'<line x1="{left:.1f}" x2="{right:.1f}" y1="{y}" y2="{y}" {stroke}/>'
