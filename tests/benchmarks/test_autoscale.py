from __future__ import annotations

import time
from typing import Any

import pytest

from benchmarks import autoscale
from benchmarks.autoscale import AutoscaleOptions, replica_counter, tokens_between
from benchmarks.outcome import Outcome
from benchmarks.report import Report
from benchmarks.targets import loopback
from tests.benchmarks.fake_openai import Script, serving


def _details(*states: str) -> dict[str, Any]:
    replicas = [{"state": state} for state in states]
    return {"applications": {"ai": {"deployments": {"m": {"replicas": replicas}}}}}


def test_only_running_replicas_of_the_model_are_counted() -> None:
    count = replica_counter(lambda: _details("RUNNING", "STARTING", "RUNNING", "STOPPING"), "m")
    assert count() == 2


def _run(monkeypatch: pytest.MonkeyPatch, rise_s: float, fall_s: float) -> Report:
    """A service of one replica that has two between `rise_s` and `fall_s` after its start."""
    monkeypatch.setattr(autoscale, "SAMPLE_S", 0.05)
    started = time.perf_counter()

    def count() -> int:
        return 2 if rise_s < time.perf_counter() - started < fall_s else 1

    options = AutoscaleOptions(clients=2, seconds=1.2, fall_s=1.5)
    with serving(Script(gap_s=0.001)) as server:
        return autoscale.run(loopback(server.url), "m", count, options, quiet=True)


def test_growth_and_fall_are_both_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    report = _run(monkeypatch, rise_s=0.5, fall_s=1.9)
    assert [(row["phase"], row["replicas"]) for row in report.rows] == [("before", 1), ("after", 2)]
    assert all(float(str(row["tokens_per_s"])) > 0 for row in report.rows)
    goals = {goal.goal: goal for goal in report.verdicts}
    assert goals["replicas under load"].met
    fallen = goals["s until they are gone"]
    assert fallen.figure is not None
    assert 0 < fallen.figure < 1.5
    assert {y for _, y in report.charts[0].series["replicas"]} == {1, 2}


def test_replicas_that_never_come_are_not_met(monkeypatch: pytest.MonkeyPatch) -> None:
    report = _run(monkeypatch, rise_s=99, fall_s=100)
    assert [row["phase"] for row in report.rows] == ["before"]
    assert not report.verdicts[0].met


def test_replicas_that_stay_are_not_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    goals = {goal.goal: goal for goal in _run(monkeypatch, rise_s=0.4, fall_s=99).verdicts}
    assert goals["s until they are gone"].figure is None
    assert not goals["s until they are gone"].met


def test_an_answers_tokens_fall_where_its_pieces_came() -> None:
    outcome = Outcome(0.0, arrivals=[1.0, 2.0, 3.0, 4.0], completion_tokens=8)
    assert tokens_between([outcome], 0, 2.5) == 4
    assert tokens_between([outcome], 2.5, 9) == 4
    outcome.failure = "truncated"
    assert tokens_between([outcome], 0, 9) == 0
