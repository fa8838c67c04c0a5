"""A series of faults: what is still due, what is kept, and how it is summed up and judged."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from benchmarks import failover
from benchmarks.failover import FailoverOptions, Journal
from benchmarks.report import Draft
from deployments.edge.drills.outcome import Moments, Outcome, noticed


def run_of(
    fault: str, *, plain: float | None = 0.4, lost: int = 0, two: float = 0.0
) -> dict[str, Any]:
    def kind(name: str, first: float | None) -> dict[str, Any]:
        return {
            "kind": name,
            "requests": 50,
            "failed": 0,
            "hung": 0,
            "repeated": 1,
            "first_success_s": first,
            "longest_s": 21.0,
        }

    return {
        "fault": fault,
        "failed": 0,
        "hung": 0,
        "lost_acknowledged_writes": lost,
        "two_primaries_s": two,
        "restored_s": 40.0,
        "kinds": [kind("plain", plain), kind("record", 18.0), kind("write", 19.0)],
    }


def summed(*runs: dict[str, Any], tmp_path: Path) -> Draft:
    options = FailoverOptions(faults=("machine-lost",))
    draft = Draft("failover", options.values(), failover.COLUMNS)
    failover._sum_up(draft, Journal(tmp_path / "j", list(runs)), options)
    return draft


def test_a_series_goes_on_where_it_was_broken_off_with_the_faults_in_turn(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    first = Journal.opened(path)
    for _ in range(2):
        first.add(run_of("machine-lost"))
    options = FailoverOptions(faults=("machine-lost", "api-killed", "disk-full"), runs=3)
    again = Journal.opened(path)
    due = failover._due(options, again, "")
    assert [f.name for f in due] == ["machine-lost", "api-killed", "api-killed", "api-killed"]
    assert [f.name for f in failover._due(options, again, "small-disk")] == ["disk-full"] * 3


def test_the_two_main_faults_are_made_more_often_than_the_others() -> None:
    options = FailoverOptions()
    assert [options.wanted(n) for n in ("machine-lost", "postgres-killed", "partition")] == [
        20,
        20,
        3,
    ]
    with pytest.raises(ValueError, match="no such fault: flood"):
        FailoverOptions(faults=("flood",))


def test_every_limit_of_the_issue_is_judged(tmp_path: Path) -> None:
    good = {v.goal: v.met for v in summed(run_of("machine-lost"), tmp_path=tmp_path).verdicts}
    assert len(good) == 6
    assert all(good.values())
    bad = summed(run_of("machine-lost", plain=1.4, lost=1, two=0.5), tmp_path=tmp_path)
    missed = {verdict.goal for verdict in bad.verdicts if not verdict.met}
    assert missed == {
        "machine-lost: lost acknowledged writes",
        "machine-lost: seconds with two primaries",
        "machine-lost: needs no database, first success p95, s",
    }


def test_a_kind_that_never_succeeded_meets_no_limit(tmp_path: Path) -> None:
    draft = summed(run_of("machine-lost"), run_of("machine-lost", plain=None), tmp_path=tmp_path)
    [verdict] = [v for v in draft.verdicts if "no database" in v.goal]
    assert verdict.figure is None
    assert not verdict.met
    [row] = [row for row in draft.rows if row["kind"] == "plain"]
    assert row["first_max_s"] is None


def test_first_success_counts_what_began_after_the_fault_and_failures_what_ended_after_it() -> None:
    outcomes = [
        Outcome("plain", 9.0, 9.5, "failed"),
        Outcome("plain", 9.9, 10.2, "ok"),
        Outcome("plain", 9.8, 14.0, "failed"),
        Outcome("plain", 10.1, 13.0, "ok", attempts=2),
        Outcome("plain", 10.2, 10.25, "ok"),
        Outcome("plain", 10.5, 12.0, "ok"),
        Outcome("write", 10.1, 10.2, "ok"),
    ]
    found = noticed("plain", outcomes, Moments(since=10.0, fault=10.0, struck=10.3))
    assert (found.requests, found.failed, found.repeated) == (5, 1, 1)
    assert found.first_success_s is not None
    assert math.isclose(found.first_success_s, 2.0)
    assert math.isclose(found.longest_s, 4.2)
