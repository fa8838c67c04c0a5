from __future__ import annotations

import io
import json
import math
from pathlib import Path

import pytest
from pydantic import ValidationError
from rich.console import Console

from benchmarks.report import Chart, Column, Draft, Report, save, verdict
from benchmarks.screen import show

COLUMNS = [
    Column(key="load", title="load", meaning="clients"),
    Column(key="speed", title="tokens/s", meaning="tokens a second"),
    Column(key="worst", title="worst", meaning="ms"),
]


def _report() -> Report:
    draft = Draft("example", {"seed": 1}, COLUMNS)
    draft.row(load="1 clients", speed=12.5, worst=math.nan)
    draft.row(load="2 clients", speed=1234.5, worst=None)
    draft.verdicts.append(verdict("faster", 1.3, "at least", 1.2))
    draft.charts.append(Chart(title="speed", x="clients", y="t/s", series={"a": [(1, 2), (2, 3)]}))
    draft.notes.append("A note.")
    return draft.close()


def test_the_file_holds_the_report_whole(tmp_path: Path) -> None:
    report = _report()
    written, picture = save(report, tmp_path)
    assert Report.model_validate_json(written.read_text()) == report
    assert picture is not None
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_file_says_what_it_was_measured_on(tmp_path: Path) -> None:
    content = json.loads(save(_report(), tmp_path)[0].read_text())
    assert content["machine"]["cores"] >= 1
    assert {"python", "ray", "mlx", "mlx-lm", "commit"} <= set(content["versions"])
    assert content["options"] == {"seed": 1}
    assert content["started_at"].endswith("Z")


def test_no_figure_is_null_and_never_nan(tmp_path: Path) -> None:
    text = save(_report(), tmp_path)[0].read_text()
    assert "NaN" not in text
    assert json.loads(text)["rows"][0]["worst"] is None


def test_a_report_without_charts_has_no_picture(tmp_path: Path) -> None:
    report = _report().model_copy(update={"charts": []})
    assert save(report, tmp_path)[1] is None


@pytest.mark.parametrize("kind", ["line", "bar", "step"])
def test_every_kind_of_chart_is_drawn(tmp_path: Path, kind: str) -> None:
    series = {"a": [(1.0, 2.0), (2.0, 3.0)], "b": [(1.0, 1.0)]}
    chart = Chart.model_validate({"title": "t", "x": "x", "y": "y", "kind": kind, "series": series})
    picture = save(_report().model_copy(update={"charts": [chart] * 3}), tmp_path)[1]
    assert picture is not None
    assert picture.stat().st_size > 5000


def test_a_cell_that_no_column_explains_is_refused() -> None:
    draft = Draft("example", {}, COLUMNS)
    draft.row(speed=1.0, secret=2.0)
    with pytest.raises(ValidationError, match="secret"):
        draft.close()


def test_limits_are_met_from_their_own_side() -> None:
    assert verdict("g", 1.2, "at least", 1.2).met
    assert not verdict("g", 1.19, "at least", 1.2).met
    assert verdict("g", 5, "at most", 5).met
    assert not verdict("g", 5.1, "at most", 5).met


def test_a_side_that_failed_meets_no_limit() -> None:
    failed = verdict("g", math.nan, "at most", 5)
    assert not failed.met
    assert failed.figure is None


def test_the_screen_shows_figures_goals_and_notes_but_no_empty_column() -> None:
    out = io.StringIO()
    show(_report(), Console(file=out, width=120))
    shown = out.getvalue()
    assert all(word in shown for word in ("tokens/s", "12.5", "1,234", "met", "A note."))
    assert "worst" not in shown
