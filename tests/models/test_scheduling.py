"""The engine's decisions, and the sentences that give their reasons."""

from __future__ import annotations

import itertools

import pytest

from models.generation import Priority
from models.scheduling import (
    BatchLoad,
    Fairness,
    PrefillPace,
    admission,
    columns_for,
    outgrown,
    place,
    row_count,
)


@pytest.mark.parametrize(
    ("numbers", "action", "reason"),
    [
        ((10, 0, 100, 0, 4), "admit", "10 KV bytes fit beside 0 of 100"),
        ((10, 90, 100, 3, 4), "admit", "10 KV bytes fit beside 90 of 100"),
        ((10, 91, 100, 3, 4), "wait", "91 of 100 KV bytes are promised"),
        ((10, 0, 100, 4, 4), "wait", "4 sequences run, the most allowed"),
        ((101, 0, 100, 0, 4), "refuse", "needs 101 KV bytes of a budget of 100"),
    ],
)
def test_admission_gives_its_reason(
    numbers: tuple[int, int, int, int, int], action: str, reason: str
) -> None:
    decision = admission(*numbers)
    assert (decision.action, decision.reason) == (action, reason)


def test_the_least_served_user_of_the_highest_priority_is_next() -> None:
    fairness = Fairness()
    for user in ("a", "b", "c"):
        fairness.arrive(user)
    fairness.charge("a", 100)
    fairness.charge("b", 5)
    waiting = [
        (Priority.BATCH, "c", 0),
        (Priority.INTERACTIVE, "a", 1),
        (Priority.INTERACTIVE, "b", 2),
        (Priority.INTERACTIVE, "b", 3),
        (Priority.EMERGENCY, "a", 4),
    ]
    order = sorted(waiting, key=lambda w: fairness.key(*w))
    assert [arrival for *_, arrival in order] == [4, 2, 3, 1, 0]


def test_a_user_who_was_away_saves_nothing_up_and_is_forgotten() -> None:
    fairness = Fairness()
    fairness.arrive("a")
    fairness.arrive("a")
    fairness.charge("a", 70)
    fairness.leave("a")
    assert fairness.served == {"a": 70}
    fairness.arrive("b")
    assert fairness.served["b"] == 70
    fairness.leave("a")
    fairness.leave("b")
    assert fairness.served == fairness.active == {}
    fairness.charge("gone", 9)
    assert fairness.served == {}


def test_the_pace_learns_a_fixed_and_a_growing_part() -> None:
    pace = PrefillPace(largest=512)
    assert pace.tokens(None) == 512
    assert pace.tokens(1.0) == pace.smallest
    for tokens in (32, 64, 128, 256, 32, 64, 128, 256):
        pace.observe(tokens, 0.004 + 0.0001 * tokens)
    assert pace.fixed_s == pytest.approx(0.004, rel=0.01)
    assert pace.token_s == pytest.approx(0.0001, rel=0.01)
    assert pace.tokens(0.024) == pytest.approx(200, abs=2)
    assert pace.tokens(10.0) == 512
    assert pace.tokens(0.0) == pace.tokens(-1.0) == pace.smallest


def test_the_pace_follows_a_change_and_survives_passes_of_one_size() -> None:
    pace = PrefillPace(largest=512)
    for _ in range(5):
        pace.observe(100, 0.1)
    assert (pace.token_s, pace.fixed_s) == pytest.approx((0.001, 0.0))
    for tokens in (50, 100) * 20:
        pace.observe(tokens, 0.01 * tokens)
    assert pace.token_s == pytest.approx(0.01, rel=0.02)
    assert PrefillPace(largest=4).tokens(0.001) == 4


def test_a_sequence_goes_where_it_pads_least() -> None:
    short, long = BatchLoad(64, (20, 30)), BatchLoad(1088, (900, 950))
    assert place(25, [short, long], 1, 10_000) == 0
    assert place(900, [short, long], 1, 10_000) == 1
    assert place(25, [long], 1, 10_000) == 0
    # Beside the long ones it would read a thousand columns that are not its own.
    assert place(25, [long], 1, 1000) == 1
    assert place(25, [], 1, 0) == 0


def test_the_longest_leave_a_batch_that_has_to_grow() -> None:
    assert outgrown(BatchLoad(64, (10, 12, 64)), 1, 10_000) == []
    assert outgrown(BatchLoad(64, (10, 12, 64)), 1, 200) == [2]
    assert outgrown(BatchLoad(64, (64,)), 1, 0) == []
    leaving = outgrown(BatchLoad(128, (10, 127, 128, 126)), 1, 0)
    assert leaving == [2, 1, 3]


def test_rings_have_room_to_grow_and_few_empty_rows() -> None:
    for tokens in range(1, 3000, 7):
        columns = columns_for(tokens)
        assert columns % 64 == 0
        assert tokens + 32 <= columns <= tokens + max(32, tokens // 8) + 64
    for rows in range(1, 300):
        assert rows <= row_count(rows) <= max(rows + 1, rows * 4 / 3)
    assert all(row_count(b) >= row_count(a) for a, b in itertools.pairwise(range(1, 300)))
