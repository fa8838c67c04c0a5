"""What became of the requests of a load, and what a fault did to each kind of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["plain", "record", "write", "chat", "socket", "mode"]
Result = Literal["ok", "failed", "hung"]

KINDS: dict[Kind, str] = {
    "plain": "GET /v1/models: can be repeated, needs no database",
    "record": "GET of a patient: can be repeated, needs the database and the audit chain",
    "write": "POST of an observation with its idempotency key, repeated by the client as documented",
    "chat": "streaming chat without a patient, repeated by the client if it closes without [DONE]",
    "socket": "WebSocket of alerts: the time until it is connected again",
    "mode": "GET /v1/mode answering with the mode that the drill waits for",
}


_FAILURES = 5


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request, its repeats included. Moments are monotonic seconds."""

    kind: Kind
    began: float
    ended: float
    result: Result
    attempts: int = 1
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Noticed:
    """What clients of one kind noticed of a fault; seconds, None where nothing succeeded after it.

    `failures`: the first few of those that failed, each with its status or error and its moments.
    """

    kind: Kind
    requests: int
    failed: int
    hung: int
    repeated: int
    first_success_s: float | None
    longest_s: float
    failures: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Moments:
    """When a fault was made, in monotonic seconds.

    `since`: the drill's first touch; `fault`: what waits are counted from; `struck`: what it hits has
    stopped answering. A request that began before `struck` may have been answered before that.
    """

    since: float
    fault: float
    struck: float


def noticed(kind: Kind, outcomes: Iterable[Outcome], moments: Moments) -> Noticed:
    """Sum up the requests of a kind that ended after the first touch."""
    touched = [o for o in outcomes if o.kind == kind and o.ended >= moments.since]
    after = [o for o in touched if o.began >= moments.struck and o.result == "ok"]
    fault = moments.fault
    failures = [
        f"{o.detail} {o.ended - fault:.2f} s after the fault, asked {o.ended - o.began:.2f} s before"
        for o in touched
        if o.result == "failed"
    ]
    return Noticed(
        kind=kind,
        requests=len(touched),
        failed=sum(o.result == "failed" for o in touched),
        hung=sum(o.result == "hung" for o in touched),
        repeated=sum(o.attempts > 1 for o in touched),
        first_success_s=min((o.ended - fault for o in after), default=None),
        longest_s=max((o.ended - o.began for o in touched), default=0.0),
        failures=tuple(failures[:_FAILURES]),
    )


def worst(found: Sequence[Noticed]) -> float | None:
    """The longest that any kind waited for its first success; None if one never had any."""
    values = [n.first_success_s for n in found if n.requests]
    return None if not values or None in values else max(v for v in values if v is not None)
