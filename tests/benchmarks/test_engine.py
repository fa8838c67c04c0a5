"""The engine benchmark on the demo weights, small; and its report on figures known beforehand."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import engine
from benchmarks.endless import endless
from benchmarks.engine import EngineOptions
from benchmarks.engine_jobs import Answer, Job, Scenario, Side, throughput_prompts
from benchmarks.report import Report
from configs.reader import PROJECT_ROOT

DEMO = PROJECT_ROOT / "models" / "weights" / "gemma3-demo"


PEERS = [
    pytest.param(side, marks=pytest.mark.slow) for side in ("batch_generator", "one_at_a_time")
]


@pytest.mark.parametrize("side", ["engine", *PEERS])
def test_every_side_generates_exactly_what_was_asked(tmp_path: Path, side: Side) -> None:
    folder = endless(DEMO, tmp_path / "model")
    job = Job(side=side, scenario="shared-prefix", folder=str(folder), threads=1, sequences=3)
    answer = engine.work(job)
    assert answer is not None
    expected = sum(prompt.max_tokens for prompt in throughput_prompts("shared-prefix", 3, job.seed))
    assert answer.tokens == expected
    assert answer.wall_s > 0
    assert answer.prompt_tokens > 100


def test_a_side_that_fails_gives_no_answer(tmp_path: Path) -> None:
    job = Job(side="engine", scenario="equal", folder=str(tmp_path), threads=1)
    assert engine.work(job) is None


def _report(
    monkeypatch: pytest.MonkeyPatch, scenario: Scenario, answers: dict[Side, list[Answer | None]]
) -> Report:
    supply = {side: iter(found) for side, found in answers.items()}
    monkeypatch.setattr(engine, "work", lambda job: next(supply[job.side]))
    pairs = len(answers["engine"])
    return engine.run(DEMO, EngineOptions((scenario,), pairs, threads=1), quiet=True)


def test_throughput_is_compared_pair_by_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: dict[Side, list[Answer | None]] = {
        "engine": [Answer(tokens=100, wall_s=1), Answer(tokens=100, wall_s=2)],
        "batch_generator": [Answer(tokens=100, wall_s=2), Answer(tokens=100, wall_s=2)],
        "one_at_a_time": [Answer(tokens=100, wall_s=10), None],
    }
    report = _report(monkeypatch, "equal", answers)
    rows = {str(row["side"]): row for row in report.rows}
    assert rows["batch_generator"]["ratio"] == pytest.approx(1.5)
    assert rows["batch_generator"]["ratio_least"] == pytest.approx(1)
    assert (rows["one_at_a_time"]["runs"], rows["one_at_a_time"]["failed"]) == (1, 1)
    assert rows["one_at_a_time"]["ratio"] == pytest.approx(10)
    assert [(goal.figure, goal.limit, goal.met) for goal in report.verdicts] == [(1.5, 0.95, True)]


def test_a_gap_is_held_against_the_median_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    calm = [0.01, 0.02, 0.03]
    steady = Answer(undisturbed_gaps_s=calm, disturbed_gaps_s=[0.04] * 50, prefill_s=1)
    stalled = Answer(undisturbed_gaps_s=calm, disturbed_gaps_s=[0.04] * 5 + [3.0], prefill_s=1)
    answers: dict[Side, list[Answer | None]] = {"engine": [steady], "batch_generator": [stalled]}
    report = _report(monkeypatch, "gap", answers)
    rows = {str(row["side"]): row for row in report.rows}
    assert rows["engine"]["gap_ratio"] == pytest.approx(2)
    assert float(str(rows["batch_generator"]["gap_ratio"])) > 50
    assert report.verdicts[0].met


def test_a_second_turn_is_held_against_the_cold_one(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = Answer(cold_first_s=[1.0, 1.0, 9.0], warm_first_s=[0.3, 0.3, 0.1], prompt_tokens=6000)
    report = _report(monkeypatch, "second-turn", {"engine": [answer]})
    assert report.rows[0]["warm_ratio"] == pytest.approx(0.3)
    assert report.rows[0]["prompt_tokens"] == 2000
    assert not report.verdicts[0].met


def test_an_engine_that_always_fails_meets_no_goal(monkeypatch: pytest.MonkeyPatch) -> None:
    report = _report(monkeypatch, "second-turn", {"engine": [None, None]})
    assert report.rows[0]["failed"] == 2
    assert not report.verdicts[0].met
