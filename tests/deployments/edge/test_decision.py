"""The state machine of a site: what it does, and the sentence in which it says why."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.edge.decision import (
    CellSeen,
    CloudSeen,
    Decision,
    Order,
    Rules,
    Seen,
    Standing,
    decide,
    first,
    gives_up,
    is_kept,
    obey,
    server_states,
)

RULES = Rules(hold_s=3.0, unfit_hold_s=30.0, copy_limit_s=60.0)
BOTH_RULES = replace(RULES, both=True)
CLOUD = CloudSeen("cloud", True, copy_age_s=4.0)
START = first(["mac-a", "mac-b"], both=False, now=0.0)
SERVED = replace(START, has_served=True)
BOTH = first(["mac-a", "mac-b"], both=True, now=0.0)


def seen(
    now: float = 100.0,
    *,
    a: bool = True,
    b: bool = True,
    faults: tuple[str, ...] = (),
    cloud: CloudSeen | None = CLOUD,
    is_active: bool = True,
    others_reach: frozenset[str] = frozenset(),
) -> Seen:
    cells = (CellSeen("mac-a", a), CellSeen("mac-b", b, faults))
    return Seen(now, cells, cloud, is_active, others_reach)


def silent_for(seconds: float, **view: Any) -> Decision:
    """Both cells have been silent for so long."""
    before = decide(SERVED, seen(100.0, a=False, b=False), RULES).standing
    return decide(before, seen(100.0 + seconds, a=False, b=False, **view), RULES)


def in_emergency() -> Standing:
    return silent_for(4.0).standing


def test_nothing_moves_while_the_one_that_serves_answers() -> None:
    decision = decide(START, seen(), RULES)
    assert (decision.action, decision.reason) == ("keep", "mac-a answers")
    assert decision.standing == SERVED


def test_a_lost_primary_is_replaced_by_a_fit_second_cell() -> None:
    decision = decide(START, seen(a=False), RULES)
    assert decision.action == "serve"
    assert decision.reason == (
        "mac-a does not answer; mac-b is fit: its database, blobs and models are whole"
    )
    assert decision.standing.serving == ("mac-b",)
    assert decision.standing.retired == {"mac-a"}
    assert decision.standing.number == START.number + 1


def test_what_comes_back_does_not_get_the_traffic_back_by_itself() -> None:
    after = decide(START, seen(a=False), RULES).standing
    later = decide(after, seen(200.0), RULES)
    assert (later.action, later.reason) == ("keep", "mac-b answers")
    assert server_states(later.standing, seen(200.0)) == {
        "mac-a": "drain",
        "mac-b": "ready",
        "cloud": "drain",
    }


def test_a_retired_cell_is_taken_again_when_the_other_is_lost() -> None:
    after = decide(START, seen(a=False), RULES).standing
    again = decide(after, seen(300.0, b=False), RULES)
    assert again.action == "serve"
    assert again.standing.serving == ("mac-a",)
    assert again.standing.retired == {"mac-b"}


def test_an_unfit_second_cell_gets_its_time_and_then_serves_with_what_is_wrong_named() -> None:
    faults = ("2 documents are missing on it",)
    waits = decide(START, seen(100.0, a=False, faults=faults), RULES)
    assert waits.action == "wait"
    assert waits.reason == (
        "mac-a does not answer; mac-b is not fit yet: 2 documents are missing on it; it has 30 s more"
    )
    serves = decide(waits.standing, seen(130.0, a=False, faults=faults), RULES)
    assert serves.action == "serve"
    assert serves.reason == (
        "mac-a does not answer for 30 s; mac-b serves although 2 documents are missing on it"
    )


def test_an_unfit_second_cell_is_kept_out_of_haproxys_own_failover() -> None:
    assert server_states(START, seen(faults=("x",)))["mac-b"] == "drain"
    assert server_states(START, seen())["mac-b"] == "ready"


def test_emergency_is_decided_after_the_hold_and_says_what_may_be_missing() -> None:
    assert silent_for(2.0).action == "wait"
    decision = silent_for(4.0)
    assert decision.action == "emergency"
    assert decision.reason == (
        "no cell has answered for 4 s; what was written in the last 4 s may be missing at cloud"
    )
    assert server_states(decision.standing, seen(a=False, b=False)) == {
        "mac-a": "drain",
        "mac-b": "drain",
        "cloud": "ready",
    }


@pytest.mark.parametrize(
    ("age_s", "words"),
    [
        (None, "cloud cannot say how old its copy is: anything recent may be missing"),
        (
            90.0,
            "what was written in the last 90 s may be missing at cloud, which is over the limit of 60 s",
        ),
    ],
)
def test_an_old_copy_still_serves_and_says_so(age_s: float | None, words: str) -> None:
    before = decide(SERVED, seen(a=False, b=False), RULES).standing
    view = seen(104.0, a=False, b=False, cloud=CloudSeen("cloud", True, age_s))
    decision = decide(before, view, RULES)
    assert decision.action == "emergency"
    assert decision.reason == f"no cell has answered for 4 s; {words}"


@pytest.mark.parametrize(
    ("view", "words"),
    [
        ({"cloud": None}, "no cell has answered for 4 s, and this site has no emergency cell"),
        (
            {"cloud": CloudSeen("cloud", False)},
            "no cell has answered for 4 s, and the emergency cell does not answer either",
        ),
        (
            {"others_reach": frozenset({"mac-b"})},
            "no cell has answered for 4 s, but the other edge reaches mac-b",
        ),
        (
            {"is_active": False},
            "no cell has answered for 4 s; the edge that has the address decides",
        ),
    ],
)
def test_emergency_is_not_decided_without_a_ground_for_it(view: dict[str, Any], words: str) -> None:
    decision = silent_for(4.0, **view)
    assert (decision.action, decision.reason) == ("wait", words)
    assert decision.standing.mode == "normal"


def test_a_site_that_is_only_starting_is_no_emergency() -> None:
    before = decide(START, seen(100.0, a=False, b=False), RULES).standing
    decision = decide(before, seen(900.0, a=False, b=False), RULES)
    assert (decision.action, decision.reason) == (
        "wait",
        "no cell has served yet: the site is being started",
    )


def test_cells_that_come_later_than_the_edges_are_not_lost() -> None:
    before = replace(SERVED, silent_since=100.0)
    after_a_power_cut = seen(200.0, a=False, b=False)
    decision = decide(before, replace(after_a_power_cut, is_starting=True), RULES)
    assert (decision.action, decision.reason) == (
        "wait",
        "the site is being started: no cell is up yet",
    )
    assert decide(before, after_a_power_cut, RULES).action == "emergency"


def test_a_cell_that_is_only_slow_is_no_emergency_for_two_minutes() -> None:
    before = decide(SERVED, seen(100.0, a=False, b=False), RULES).standing
    slow = Seen(200.0, (CellSeen("mac-a", False, is_heard=True), CellSeen("mac-b", False)), CLOUD)
    decision = decide(before, slow, RULES)
    assert (decision.action, decision.reason) == (
        "wait",
        "mac-a fails its checks, but is heard; it has 20 s more",
    )
    # One whose models never load is heard for ever.
    assert decide(before, replace(slow, now=221.0), RULES).action == "emergency"


def test_a_cell_that_answers_again_does_not_end_emergency_by_itself() -> None:
    decision = decide(in_emergency(), seen(500.0), RULES)
    assert decision.action == "keep"
    assert decision.reason == ("mac-a and mac-b answers again; an operator's return ends emergency")


def test_an_operators_return_ends_emergency_at_a_fit_cell_only() -> None:
    refused = obey(in_emergency(), seen(500.0, a=False), Order("return", "mac-a"), RULES)
    assert (refused.action, refused.reason) == ("refuse", "mac-a does not answer")
    done = obey(in_emergency(), seen(500.0), Order("return", "mac-a"), RULES)
    assert done.action == "serve"
    assert done.standing.mode == "normal"
    assert done.standing.serving == ("mac-a",)
    assert done.standing.retired == frozenset()


def test_with_both_serving_a_lost_one_is_retired_and_the_other_goes_on() -> None:
    decision = decide(BOTH, seen(a=False), RULES)
    assert decision.action == "retire"
    assert decision.reason == "mac-a does not answer; mac-b goes on serving"
    assert decision.standing.serving == ("mac-b",)


def test_draining_moves_the_traffic_first_and_refuses_where_it_cannot() -> None:
    done = obey(START, seen(), Order("drain", "mac-a"), RULES)
    assert done.reason == "an operator drained mac-a; mac-b serves"
    assert done.standing.serving == ("mac-b",)
    refused = obey(START, seen(b=False), Order("drain", "mac-a"), RULES)
    assert refused.action == "refuse"
    assert refused.reason == "mac-a cannot be drained: mac-b does not answer"
    assert refused.standing == START


def test_a_drained_cell_is_taken_when_nobody_else_is_left_and_has_not_been_for_a_while() -> None:
    drained = replace(obey(SERVED, seen(), Order("drain", "mac-a"), RULES).standing)
    waits = decide(drained, seen(101.0, b=False), RULES)
    assert (waits.action, waits.reason) == (
        "wait",
        "mac-b does not answer; mac-a answers, but was drained; it has 3 s more",
    )
    serves = decide(waits.standing, seen(104.0, b=False), RULES)
    assert serves.reason == "mac-b does not answer for 3 s; mac-a serves although it was drained"
    assert serves.standing.serving == ("mac-a",)
    assert serves.standing.drained == frozenset()


def test_a_drained_cell_that_is_only_heard_keeps_no_emergency_away() -> None:
    drained = obey(SERVED, seen(), Order("drain", "mac-a"), RULES).standing
    heard = (CellSeen("mac-a", False, is_heard=True), CellSeen("mac-b", False))
    view = Seen(101.0, heard, CLOUD, others_reach=frozenset({"mac-a"}))
    before = decide(drained, view, RULES).standing
    assert decide(before, replace(view, now=105.0), RULES).action == "emergency"


def test_an_edge_whom_no_client_asks_decides_nothing_while_it_hears_the_other_one() -> None:
    view = replace(seen(101.0, a=False, is_active=False), follows=True)
    decision = decide(SERVED, view, RULES)
    assert decision.action == "wait"
    assert decision.reason.endswith(": the edge that has the address decides")
    assert decision.standing.number == SERVED.number
    assert decide(SERVED, replace(view, follows=False), RULES).action == "serve"


def test_an_edge_that_reaches_no_cell_gives_the_address_up_to_one_that_does() -> None:
    theirs = frozenset({"mac-b"})
    before = decide(SERVED, seen(100.0, a=False, b=False, others_reach=theirs), RULES).standing

    def gives(now: float, **view: Any) -> bool:
        return gives_up(before, seen(now, **{"a": False, "b": False, **view}), RULES)

    assert gives(104.0, others_reach=theirs)
    assert not gives(102.0, others_reach=theirs), "checks may differ by a second"
    assert not gives(104.0), "the other one is as blind"
    assert not gives(104.0, others_reach=theirs, b=True)
    assert not gives(104.0, others_reach=theirs, is_active=False)


def test_what_an_edge_decided_in_its_isolation_does_not_move_a_site_that_is_well() -> None:
    told = decide(SERVED, seen(200.0, a=False), RULES).standing
    assert is_kept(SERVED, told, seen(201.0))
    assert not is_kept(SERVED, replace(told, ordered=True), seen(201.0)), "an order goes before all"
    assert not is_kept(SERVED, told, seen(201.0, a=False)), "it is lost here as well"
    follower = replace(seen(201.0, is_active=False), follows=True)
    assert not is_kept(SERVED, told, follower), "the clients ask the other edge"
    new = replace(START, since=300.0)
    assert not is_kept(new, told, seen(301.0)), "an edge without a memory knows less"
    emergency = silent_for(4.0).standing
    assert is_kept(SERVED, emergency, seen(201.0))
    assert not is_kept(emergency, told, seen(201.0)), "nobody serves by it"


def test_both_serve_where_none_is_the_others_backup_and_then_one_alone_if_ordered() -> None:
    refused = obey(SERVED, seen(), Order("both"), RULES)
    assert (refused.action, "failover.serving: both" in refused.reason) == ("refuse", True)
    both = obey(SERVED, seen(), Order("both"), BOTH_RULES).standing
    assert both.serving == ("mac-a", "mac-b")
    one = obey(both, seen(), Order("serve", "mac-a"), BOTH_RULES).standing
    states = server_states(one, seen(), both=True)
    assert (states["mac-a"], states["mac-b"]) == ("ready", "drain")


def test_orders_are_marked_and_decisions_are_not() -> None:
    ordered = obey(SERVED, seen(), Order("drain", "mac-a"), RULES).standing
    assert ordered.ordered
    lost = decide(
        obey(ordered, seen(), Order("serve", "mac-a"), RULES).standing, seen(a=False), RULES
    )
    assert (lost.action, lost.standing.ordered) == ("serve", False)


def test_failback_is_an_order_and_needs_a_fit_cell_unless_forced() -> None:
    after = decide(START, seen(a=False), RULES).standing
    faulty = Seen(
        200.0,
        (CellSeen("mac-a", True, ("its database is 12.0 s behind",)), CellSeen("mac-b", True)),
    )
    refused = obey(after, faulty, Order("serve", "mac-a"), RULES)
    assert refused.reason == "mac-a is not fit: its database is 12.0 s behind"
    forced = obey(after, faulty, Order("serve", "mac-a", is_forced=True), RULES)
    assert forced.standing.serving == ("mac-a",)


@pytest.mark.parametrize(
    ("standing", "order", "words"),
    [
        (START, Order("serve", "mac-z"), "there is no cell mac-z: mac-a, mac-b"),
        (
            START,
            Order("return", "mac-a"),
            "this is no emergency: `medrec site handover` moves traffic",
        ),
        (
            replace(START, mode="emergency"),
            Order("both"),
            "emergency goes on: `medrec site return` ends it",
        ),
    ],
)
def test_an_order_that_makes_no_sense_is_refused_with_the_reason(
    standing: Standing, order: Order, words: str
) -> None:
    decision = obey(standing, seen(), order, RULES)
    assert (decision.action, decision.reason) == ("refuse", words)
    assert decision.standing == standing


VIEWS = st.builds(
    seen,
    now=st.floats(100, 1000),
    a=st.booleans(),
    b=st.booleans(),
    faults=st.sampled_from([(), ("faulty",)]),
    cloud=st.sampled_from([None, CLOUD, CloudSeen("cloud", False)]),
    is_active=st.booleans(),
)
ORDERS: st.SearchStrategy[Order | None] = st.sampled_from(
    [
        None,
        *(
            Order(kind, cell)
            for kind in ("serve", "drain", "return")
            for cell in ("mac-a", "mac-b")
        ),
        Order("both"),
        Order("emergency"),
    ]
)


@given(st.lists(st.tuples(VIEWS, ORDERS), max_size=25))
def test_whatever_happens_somebody_serves_or_it_is_an_emergency(
    steps: list[tuple[Seen, Order | None]],
) -> None:
    standing = START
    for view, order in sorted(steps, key=lambda step: step[0].now):
        before = standing
        decision = (
            decide(standing, view, RULES) if order is None else obey(standing, view, order, RULES)
        )
        standing = decision.standing
        assert bool(standing.serving) == (standing.mode == "normal")
        assert not standing.retired & set(standing.serving)
        assert order is not None or before.drained - standing.drained <= set(standing.serving)
        assert standing.number >= before.number
        assert (decision.action in ("keep", "wait", "refuse")) == (standing.number == before.number)
        states = server_states(standing, view)
        assert "cloud" not in states or (states["cloud"] == "ready") == (
            standing.mode == "emergency"
        )
