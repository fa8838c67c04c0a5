from __future__ import annotations

from typing import Any

import pytest

from benchmarks import autoscale
from benchmarks.autoscale import AutoscaleOptions, replica_counter, tokens_between
from benchmarks.outcome import Outcome
from benchmarks.report import Report
from benchmarks.targets import loopback
from tests.benchmarks.fake_openai import Script, serving

RISE_AT = 6
QUIET_LOOKS = 20


def _details(*states: str) -> dict[str, Any]:
    replicas = [{"state": state} for state in states]
    return {"applications": {"ai": {"deployments": {"m": {"replicas": replicas}}}}}


def test_only_running_replicas_of_the_model_are_counted() -> None:
    count = replica_counter(lambda: _details("RUNNING", "STARTING", "RUNNING", "STOPPING"), "m")
    assert count() == 2


class Growing:
    """One replica at first, two from a number of looks on, one again when no request comes any more.

    Looks and requests are counted, not seconds: a busy machine changes nothing.
    """

    def __init__(self, script: Script, *, rises: bool, falls: bool) -> None:
        self.script, self.rises, self.falls = script, rises, falls
        self.looks = self.seen = self.quiet = 0

    def __call__(self) -> int:
        self.looks += 1
        self.quiet = self.quiet + 1 if len(self.script.bodies) == self.seen else 0
        self.seen = len(self.script.bodies)
        is_over = self.falls and self.looks > RISE_AT and self.quiet >= QUIET_LOOKS
        return 2 if self.rises and self.looks > RISE_AT and not is_over else 1


def _run(monkeypatch: pytest.MonkeyPatch, *, rises: bool, falls: bool, fall_s: float) -> Report:
    monkeypatch.setattr(autoscale, "SAMPLE_S", 0.05)
    script = Script(gap_s=0.001)
    count = Growing(script, rises=rises, falls=falls)
    options = AutoscaleOptions(clients=2, seconds=2.0, fall_s=fall_s)
    with serving(script) as server:
        return autoscale.run(loopback(server.url), "m", count, options, quiet=True)


def test_growth_and_fall_are_both_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    report = _run(monkeypatch, rises=True, falls=True, fall_s=20)
    assert [(row["phase"], row["replicas"]) for row in report.rows] == [("before", 1), ("after", 2)]
    goals = {goal.goal: goal for goal in report.verdicts}
    assert goals["replicas under load"].met
    fallen = goals["s until they are gone"]
    assert fallen.figure is not None
    assert 0 < fallen.figure < 20
    assert {y for _, y in report.charts[0].series["replicas"]} == {1, 2}


def test_replicas_that_never_come_are_not_met(monkeypatch: pytest.MonkeyPatch) -> None:
    report = _run(monkeypatch, rises=False, falls=False, fall_s=0.3)
    assert [row["phase"] for row in report.rows] == ["before"]
    assert float(str(report.rows[0]["tokens_per_s"])) > 0
    assert not report.verdicts[0].met


def test_replicas_that_stay_are_not_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    report = _run(monkeypatch, rises=True, falls=False, fall_s=0.3)
    goals = {goal.goal: goal for goal in report.verdicts}
    assert goals["s until they are gone"].figure is None
    assert not goals["s until they are gone"].met


def test_an_answers_tokens_fall_where_its_pieces_came() -> None:
    outcome = Outcome(0.0, arrivals=[1.0, 2.0, 3.0, 4.0], completion_tokens=8)
    assert tokens_between([outcome], 0, 2.5) == 4
    assert tokens_between([outcome], 2.5, 9) == 4
    outcome.failure = "truncated"
    assert tokens_between([outcome], 0, 9) == 0
