"""What the memory guard decides for one virtual node, from its use: pure, and with its reason."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from deployments.memory import PoolUse, ReplicaUse

CLOSE_AT = 0.90
REOPEN_AT = 0.85
RESTART_AT = 1.00
OVER_FOR_S = 2.0  # one sample may catch a replica that is just starting or giving memory back
_REOPEN = f"{REOPEN_AT * 100:.0f} %"
RESTART_PERIOD_S = 30.0  # a restarted replica needs this long before its memory can be judged


@dataclass(frozen=True, slots=True)
class PoolState:
    """What the guard remembers of a pool. Times are those of the monotonic clock."""

    closed: str | None = None
    over_since_s: float | None = None
    restarted_s: float | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do with a pool now, and why. `worst` is the replica that a restart names."""

    action: Literal["admit", "close", "restart"]
    reason: str
    worst: ReplicaUse | None = None


def decide(use: PoolUse, state: PoolState, now_s: float) -> Decision:
    """Admit requests, stop admitting, or restart the replica that is most beyond what it asked."""
    facts = (
        f"pool {use.pool} uses {use.used_gb:.2f} of {use.budget_gb:.2f} GB "
        f"({use.share * 100:.0f} %)"
    )
    if use.share > RESTART_AT:
        return _over(use, state, now_s, facts)
    if use.share > CLOSE_AT:
        return Decision(
            "close",
            f"{facts}, over {CLOSE_AT * 100:.0f} %: no new requests until it is below {_REOPEN}",
        )
    if state.closed is not None and use.share >= REOPEN_AT:
        return Decision("close", f"{facts}: no new requests until it is below {_REOPEN}")
    return Decision("admit", facts)


def after(decision: Decision, use: PoolUse, state: PoolState, now_s: float) -> PoolState:
    """The pool's state once the decision is carried out."""
    over = use.share > RESTART_AT
    state = replace(
        state,
        closed=None if decision.action == "admit" else decision.reason,
        over_since_s=(state.over_since_s if state.over_since_s is not None else now_s)
        if over
        else None,
    )
    if decision.action == "restart":
        state = replace(state, restarted_s=now_s, over_since_s=None)
    return state


def _over(use: PoolUse, state: PoolState, now_s: float, facts: str) -> Decision:
    for_s = 0.0 if state.over_since_s is None else now_s - state.over_since_s
    if for_s < OVER_FOR_S:
        return Decision("close", f"{facts}, over its budget: no new requests")
    if state.restarted_s is not None and now_s - state.restarted_s < RESTART_PERIOD_S:
        wait_s = RESTART_PERIOD_S - (now_s - state.restarted_s)
        return Decision(
            "close",
            f"{facts}, over its budget, but a replica was restarted just now: "
            f"no new requests, and no other restart for {wait_s:.0f} s",
        )
    worst = max(use.replicas, key=lambda r: r.excess_gb, default=None)
    if worst is None:
        return Decision(
            "close", f"{facts}, over its budget without a replica to restart: no new requests"
        )
    name = f"{worst.replica.application}/{worst.replica.deployment}"
    return Decision(
        "restart",
        f"{facts} for {for_s:.0f} s: restarting the replica of {name} with pid "
        f"{worst.replica.pid}, which uses {worst.used_gb:.2f} GB and asked for "
        f"{worst.replica.reserved_gb:.2f}",
        worst,
    )
