"""A conversation keeps its replica; load is spread; a full replica is passed over."""

from __future__ import annotations

from collections import Counter

from deployments.ai.affinity import choose, rank

REPLICAS = ["r1", "r2", "r3"]
IDLE = dict.fromkeys(REPLICAS, 0)


def test_every_caller_sends_a_session_to_the_same_replica() -> None:
    for number in range(50):
        session = f"s{number}"
        orders = {tuple(rank(session, order)) for order in (REPLICAS, REPLICAS[::-1])}
        assert len(orders) == 1
        assert choose(session, IDLE, 10)[0] == rank(session, REPLICAS)[0]


def test_sessions_are_spread_over_the_replicas() -> None:
    owners = Counter(choose(f"s{number}", IDLE, 10)[0] for number in range(3000))
    assert set(owners) == set(REPLICAS)
    assert all(850 < count < 1150 for count in owners.values())


def test_a_new_replica_takes_only_its_own_share_of_the_sessions() -> None:
    sessions = [f"s{number}" for number in range(1000)]
    before = {s: rank(s, REPLICAS)[0] for s in sessions}
    after = {s: rank(s, [*REPLICAS, "r4"])[0] for s in sessions}
    moved = [s for s in sessions if before[s] != after[s]]
    assert all(after[s] == "r4" for s in moved)
    assert 180 < len(moved) < 320


def test_a_known_session_stays_where_its_cache_is_even_if_that_is_the_busier_one() -> None:
    session = "s1"
    last = rank(session, REPLICAS)[-1]
    load = {**IDLE, last: 9}
    assert choose(session, load, 10, kept=last)[0] == last


def test_a_full_replica_is_passed_over() -> None:
    session = "s1"
    owner, second, _ = rank(session, REPLICAS)
    load = {**dict.fromkeys(REPLICAS, 8), owner: 10}
    assert choose(session, load, 10, kept=owner)[0] == second


def test_a_new_session_leaves_an_owner_that_is_far_busier_than_the_mean() -> None:
    session = "s1"
    owner, second, third = rank(session, REPLICAS)
    assert choose(session, {owner: 9, second: 1, third: 1}, 100)[0] == second
    assert choose(session, {owner: 6, second: 5, third: 5}, 100)[0] == owner


def test_the_others_follow_least_loaded_first() -> None:
    session = "s1"
    owner, second, third = rank(session, REPLICAS)
    assert choose(session, {owner: 1, second: 2, third: 1}, 10) == [owner, third, second]


def test_when_all_are_full_each_is_still_asked() -> None:
    order = choose("s1", dict.fromkeys(REPLICAS, 10), 10)
    assert sorted(order) == REPLICAS


def test_a_replica_that_is_gone_is_forgotten() -> None:
    assert choose("s1", IDLE, 10, kept="r9")[0] == rank("s1", REPLICAS)[0]


def test_new_sessions_that_arrive_at_once_end_up_balanced() -> None:
    load = dict.fromkeys(["r1", "r2"], 0)
    for number in range(32):
        load[choose(f"s{number}", load, 100)[0]] += 1
    assert abs(load["r1"] - load["r2"]) <= 7
