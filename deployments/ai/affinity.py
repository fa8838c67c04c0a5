"""Which replica takes a request: a conversation keeps its own, and with it its prefix cache.

Sessions are spread by rendezvous hashing, which needs no shared memory: every API replica ranks
alike, and a replica that comes or goes moves only its own share of the sessions. Serve's
ConsistentHashRouter was not taken: it looks at load only once a replica refuses, and two engines
then wait for the busier of the two.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

from ray.serve.request_router import (
    PendingRequest,
    ReplicaID,
    RequestRouter,
    RunningReplica,
)

MAX_SESSIONS = 16_384
SLACK = 2
FACTOR = 1.1


def rank(session: str, replicas: Sequence[str]) -> list[str]:
    """Replicas by their rendezvous hash with `session`, the owner first."""
    return sorted(replicas, key=lambda replica: _weight(session, replica), reverse=True)


def choose(session: str, load: Mapping[str, int], limit: int, kept: str | None = None) -> list[str]:
    """Replicas in the order in which they are to be asked.

    `load` counts the requests on each replica, `limit` is what one of them takes. A session stays
    with `kept`, where its cache is, as long as that replica has room. A new session goes to its
    owner, unless the owner has more than `FACTOR` times the mean and `SLACK` requests over that:
    then to the first of its ranking that has not. The rest follow, least loaded first.
    """
    ranking = rank(session, list(load))
    bound = FACTOR * sum(load.values()) / max(1, len(load)) + SLACK
    first: str | None
    if kept is not None and load.get(kept, limit) < limit:
        first = kept
    else:
        first = next((r for r in ranking if load[r] < min(bound, limit)), None)
    rest = sorted((r for r in ranking if r != first), key=lambda r: load[r])
    return rest if first is None else [first, *rest]


class AffinityRouter(RequestRouter):  # type: ignore[misc]
    """Serve's router of a language model's handle; one lives in every API replica."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._kept: OrderedDict[str, ReplicaID] = OrderedDict()

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:
        """One replica per rank, so that Serve asks them in this order."""
        if pending_request is None:
            return [candidate_replicas]
        pending_request.routing_context.should_backoff = True
        by_id = {str(r.replica_id.unique_id): r for r in candidate_replicas}
        load = {
            key: self.replica_queue_len_cache.get(r.replica_id) or 0 for key, r in by_id.items()
        }
        limit = min((r.max_ongoing_requests for r in candidate_replicas), default=0)
        session = _session(pending_request)
        kept = self._kept.get(session)
        order = choose(session, load, limit, None if kept is None else str(kept.unique_id))
        return [[by_id[key]] for key in order]

    def on_request_routed(
        self, pending_request: PendingRequest, replica_id: ReplicaID, result: Any
    ) -> None:
        """Remember where the session went; the oldest sessions are forgotten first."""
        if not pending_request.metadata.session_id:
            return
        session = pending_request.metadata.session_id
        self._kept[session] = replica_id
        self._kept.move_to_end(session)
        while len(self._kept) > MAX_SESSIONS:
            self._kept.popitem(last=False)


def _session(pending_request: PendingRequest) -> str:
    metadata = pending_request.metadata
    return str(metadata.session_id or metadata.internal_request_id)


def _weight(session: str, replica: str) -> bytes:
    return blake2b(replica.encode(), key=blake2b(session.encode()).digest(), digest_size=8).digest()
