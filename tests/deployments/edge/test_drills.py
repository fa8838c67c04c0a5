"""Drills: the report and its page, what a year of them lacks, and that none begins on a sick site."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest

from deployments.cell.state import CellError
from deployments.edge.drills import drill
from deployments.edge.drills.drill import EVERY_DAYS, Report
from deployments.edge.drills.experiment import Experiment
from deployments.edge.drills.outcome import Noticed
from deployments.edge.drills.scene import Scene

DAY_S = 86_400.0


def experiment(fault: str = "machine-lost", **changes: Any) -> Experiment:
    values: dict[str, Any] = {
        "fault": fault,
        "title": "the <serving> machine loses its power",
        "started": 1_795_000_000.0,
        "first_success_s": 18.5,
        "failed": 0,
        "hung": 0,
        "lost_acknowledged_writes": 0,
        "doubled_writes": 0,
        "acknowledged_writes": 120,
        "two_primaries_s": 0.0,
        "restored_s": 42.0,
        "kinds": (
            Noticed("plain", 300, 0, 0, 3, 0.5, 1.2),
            Noticed("write", 90, 0, 0, 4, 18.5, 19.0),
        ),
        "decisions": ("edge-1: serve: mac-a does not answer",),
        "ended_s": 90.0,
        "timeline": (
            ("plain", -1.0, -0.9, "ok"),
            ("plain", 0.1, 0.6, "failed"),
            ("write", 0.2, 18.7, "ok"),
        ),
        "problems": (),
    }
    return Experiment(**{**values, **changes})


def report(
    name: str = "failover", *, started: float = 1_795_000_000.0, problems: tuple[str, ...] = ()
) -> Report:
    return Report(cast(Any, name), started, started + 90, (experiment(),), problems, is_local=True)


def test_a_report_has_the_keys_that_were_asked_for_and_its_page_shows_every_request(
    tmp_path: Path,
) -> None:
    path = drill.save(report(), tmp_path)
    values = json.loads(path.read_text())
    assert {
        "fault": "machine-lost",
        "first_success_s": 18.5,
        "failed": 0,
        "hung": 0,
        "lost_acknowledged_writes": 0,
        "two_primaries_s": 0.0,
        "restored_s": 42.0,
        "passed": True,
    }.items() <= values.items()
    page = path.with_suffix(".html").read_text()
    assert page.count("<line") == 3 + 1  # each request, and the moment of the fault
    assert "&lt;serving&gt;" in page
    assert "<script" not in page


def test_the_slowest_experiment_stands_at_the_top_one_without_any_success_first() -> None:
    found = Report(
        "full", 0, 1, (experiment(), experiment("both-lost", first_success_s=None)), (), True
    )
    assert found.values()["fault"] == "both-lost"


def test_a_year_lacks_what_was_not_run_in_time_or_failed_last(tmp_path: Path) -> None:
    now = time.time()
    assert drill.past(tmp_path, now) == [
        f"no {name} drill is on record" for name in ("health", "failover", "cloud", "full")
    ]
    for name, days in EVERY_DAYS.items():
        drill.save(report(name, started=now - 0.9 * days * DAY_S), tmp_path)
    assert drill.past(tmp_path, now) == []
    assert drill.past(tmp_path, now + 2 * DAY_S) == [
        "the last health drill was 3 days ago; one is due every 1"
    ]
    drill.save(report("cloud", started=now - DAY_S, problems=("mode: too late",)), tmp_path)
    assert drill.past(tmp_path, now) == ["the last cloud drill failed: mode: too late"]


class SickScene:
    """A site that is not whole."""

    is_local = True

    def ailments(self) -> list[str]:
        return ["mac-b does not answer"]


def test_no_drill_begins_on_a_degraded_site_and_a_health_drill_says_what_is_wrong() -> None:
    scene = cast(Scene, SickScene())
    with pytest.raises(CellError, match="degraded, and no drill begins: mac-b does not answer"):
        drill.run("failover", scene, None, {}, tell=print)
    found = drill.run(
        "health", scene, None, {"certificates": lambda: ["host.crt ends"]}, tell=print
    )
    assert found.problems == ("certificates: host.crt ends", "mac-b does not answer")
    assert not found.is_passed


def test_a_drill_that_is_told_to_end_waits_for_nobody_any_more() -> None:
    scene = Scene.__new__(Scene)
    scene._turn = 0
    asked = threading.Event()

    def never() -> bool:
        asked.set()
        return False

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(scene.wait, never, 600)
        assert asked.wait(30)
        scene.interrupt()
        with pytest.raises(CellError, match="interrupted"):
            waiting.result(30)
    assert scene.wait(lambda: True, 1) is not None, "what is mended afterwards is waited for"
