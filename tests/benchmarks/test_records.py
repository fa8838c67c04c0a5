"""The benchmark of the records against servers whose speed is known."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice

import pytest

from benchmarks import records
from benchmarks.records import RecordsOptions
from benchmarks.records_requests import OPERATIONS, NothingToAsk, Requests, Subjects, subjects
from benchmarks.records_servers import Store
from benchmarks.targets import Target
from tests.benchmarks import fake_records
from tests.benchmarks.fake_records import FakeRecords

BRIEF = RecordsOptions(clients=(2,), pairs=3, seconds=0.4, warm_up_s=0.1, patients=1)
FOUND = Subjects(("p1", "p2"), ("da Silva", "Conceição"), ("o1",))


class TwoFakes(Store):
    """A store of two servers that stand already."""

    def __init__(self, audited: Target, plain: Target) -> None:
        self.targets = (audited, plain)

    @contextmanager
    def serving(self, patients: int, seed: int) -> Iterator[tuple[Target, Target, str]]:
        yield (*self.targets, "key")


def test_the_cost_is_the_ratio_of_times_and_every_goal_gets_a_verdict() -> None:
    slow, fast = FakeRecords(delay_s=0.02), FakeRecords(delay_s=0.01)
    with slow.serving() as audited, fast.serving() as plain:
        report = records.compare(TwoFakes(audited, plain), BRIEF, quiet=True)
    assert [row["operation"] for row in report.rows[::2]] == list(OPERATIONS)
    costs = [row["cost"] for row in report.rows if row["side"] == "audit"]
    assert all(isinstance(cost, float) and 1.3 < cost < 2.3 for cost in costs)
    assert all(row.get("cost") is None for row in report.rows if row["side"] == "no audit")
    assert [goal.limit for goal in report.verdicts] == [2.0, 2.0, 1.3]
    assert not report.verdicts[2].met
    assert all(row["failed"] == 0 and row["turns"] == 3 for row in report.rows)
    assert not slow.unsigned + fast.unsigned
    assert max(slow.keys.values()) == 1
    assert not set(slow.keys) & set(fast.keys)


def test_a_running_platform_is_measured_without_a_ratio() -> None:
    fake = FakeRecords()
    with fake.serving() as target:
        report = records.run(target.url, "key", BRIEF, quiet=True)
    assert not report.verdicts
    assert {row["side"] for row in report.rows} == {"running"}
    assert all(isinstance(row["per_s"], float) and row["per_s"] > 20 for row in report.rows)


def test_failures_are_counted_by_status_and_not_as_speed() -> None:
    fake = FakeRecords(failing=2)
    options = RecordsOptions(
        clients=(1,), operations=("write",), pairs=1, seconds=0.3, warm_up_s=0.1
    )
    with fake.serving() as target:
        report = records.run(target.url, "key", options, quiet=True)
    [row] = report.rows
    requests, failed = row["requests"], row["failed"]
    assert isinstance(requests, int)
    assert isinstance(failed, int)
    assert abs(failed - requests / 2) <= 1
    assert row["failures"] == f"{failed} http 503"


def test_the_same_seed_asks_the_same_of_both_sides_but_for_the_keys_of_writes() -> None:
    requests = Requests(Target("127.0.0.1", 1), "key", FOUND)
    for operation in ("read", "search"):
        first = list(islice(requests.of(operation, "7"), 50))
        assert first == list(islice(requests.of(operation, "7"), 50))
        assert len(set(first)) > 2
    writes = list(islice(requests.of("write", "7"), 50))
    bodies = [write.partition(b"\r\n\r\n")[2] for write in writes]
    again = [write.partition(b"\r\n\r\n")[2] for write in islice(requests.of("write", "7"), 50)]
    assert bodies == again
    keys = [line for w in writes for line in w.split(b"\r\n") if line.startswith(b"idempotency")]
    assert len(set(keys)) == 50


def test_a_name_is_sent_in_characters_that_a_request_line_can_hold() -> None:
    requests = Requests(Target("127.0.0.1", 1), "key", FOUND)
    for request in islice(requests.of("search", "1"), 50):
        request.partition(b"\r\n")[0].decode("ascii")


def test_an_empty_platform_is_told_to_load_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fake_records, "PATIENTS", [])
    with FakeRecords().serving() as target, pytest.raises(NothingToAsk, match="demo load"):
        subjects(target, "key")
