"""Every decision of the memory guard is pure and says why."""

from __future__ import annotations

from deployments.ai.guard import Decision, PoolState, after, decide
from deployments.memory import PoolUse, Replica, ReplicaUse


def use(*used_gb: float, reserved_gb: tuple[float, ...] = (), budget_gb: float = 2.0) -> PoolUse:
    reserved = reserved_gb or (1.0,) * len(used_gb)
    replicas = [
        ReplicaUse(Replica("ai", f"m{i}", f"a{i}", f"n{i}", 100 + i, "ai", asked, True), gb)
        for i, (gb, asked) in enumerate(zip(used_gb, reserved, strict=True))
    ]
    return PoolUse("ai", budget_gb, tuple(replicas))


def run(samples: list[tuple[float, PoolUse]]) -> list[Decision]:
    state = PoolState()
    decisions = []
    for now_s, sample in samples:
        decision = decide(sample, state, now_s)
        state = after(decision, sample, state, now_s)
        decisions.append(decision)
    return decisions


def test_within_the_budget_it_admits() -> None:
    [decision] = run([(0.0, use(0.9, 0.8))])
    assert decision == Decision("admit", "pool ai uses 1.70 of 2.00 GB (85 %)")


def test_over_90_percent_it_stops_admitting() -> None:
    [decision] = run([(0.0, use(1.0, 0.9))])
    assert decision.action == "close"
    assert decision.reason == (
        "pool ai uses 1.90 of 2.00 GB (95 %), over 90 %: no new requests until it is below 85 %"
    )


def test_it_reopens_only_below_85_percent() -> None:
    closed, still, open_again = run([(0.0, use(1.9)), (1.0, use(1.75)), (2.0, use(1.69))])
    assert [closed.action, still.action, open_again.action] == ["close", "close", "admit"]
    assert still.reason == (
        "pool ai uses 1.75 of 2.00 GB (88 %): no new requests until it is below 85 %"
    )


def test_a_short_peak_over_the_budget_restarts_nothing() -> None:
    first, second, third = run([(0.0, use(2.1)), (1.0, use(2.1)), (2.0, use(1.0))])
    assert [first.action, second.action, third.action] == ["close", "close", "admit"]
    assert first.reason == (
        "pool ai uses 2.10 of 2.00 GB (105 %), over its budget: no new requests"
    )


def test_over_the_budget_it_restarts_the_replica_furthest_beyond_what_it_asked() -> None:
    big_but_within = use(1.5, 0.9, reserved_gb=(1.5, 0.3))
    decisions = run([(0.0, big_but_within), (1.0, big_but_within), (2.0, big_but_within)])
    assert [d.action for d in decisions] == ["close", "close", "restart"]
    assert decisions[2].worst is not None
    assert decisions[2].worst.replica.actor_name == "n1"
    assert decisions[2].reason == (
        "pool ai uses 2.40 of 2.00 GB (120 %) for 2 s: restarting the replica of ai/m1 with "
        "pid 101, which uses 0.90 GB and asked for 0.30"
    )


def test_it_restarts_one_replica_at_a_time() -> None:
    over = use(1.2, 1.2)
    decisions = run([(float(second), over) for second in range(36)])
    restarts = [second for second, d in enumerate(decisions) if d.action == "restart"]
    assert restarts == [2, 32]
    assert decisions[5].reason == (
        "pool ai uses 2.40 of 2.00 GB (120 %), over its budget, but a replica was restarted just "
        "now: no new requests, and no other restart for 27 s"
    )


def test_without_a_replica_it_can_only_stop_admitting() -> None:
    charged = PoolUse("data", 1.0, (), (("postgres", 1.5),))
    decision = run([(float(second), charged) for second in range(4)])[-1]
    assert decision.action == "close"
    assert decision.reason == (
        "pool data uses 1.50 of 1.00 GB (150 %), over its budget without a replica to restart: "
        "no new requests"
    )
