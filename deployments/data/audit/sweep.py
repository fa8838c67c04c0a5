"""What the custodian does for the chain: take in what the dead left behind, and keep checking.

`sweep` chains rows of the outbox whose process died between its commit and the chain's.
`Watch.verify_step` walks the chain a little further at each call, for ever. Both log what people
must act on; their results are for metrics.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from psycopg import sql

from deployments.data.audit.verification import COLUMNS, GENESIS, Fault, Walk
from deployments.data.database import Database

_log = logging.getLogger("medrec.audit")

OLDER_THAN_S = 5.0
SWEEP_ENTRIES = 512
STEP_ENTRIES = 2000
_LOGGED_FAULTS = 10


@dataclass(frozen=True, slots=True)
class Swept:
    """Rows that joined the chain, and rows that cannot: their id is chained with another body."""

    chained: int
    stuck: int


async def sweep(
    database: Database, *, deadline: float, older_than_s: float = OLDER_THAN_S
) -> Swept:
    """Chain rows of the outbox that are older than `older_than_s` seconds. Raises `DataError`s."""
    chained, stuck = 0, 0
    while True:
        async with database.transaction(deadline=deadline) as connection:
            cursor = await connection.execute(
                "SELECT chained, stuck FROM audit.sweep(%s, %s)", [older_than_s, SWEEP_ENTRIES]
            )
            row = await cursor.fetchone()
        assert row is not None
        chained, stuck = chained + row[0], row[1]
        if row[0] + row[1] < SWEEP_ENTRIES or row[0] == 0:
            break
    if chained:
        _log.warning("chained %d audit entries of processes that had died", chained)
    if stuck:
        _log.critical("%d audit entries bear the id of another entry and stay unchained", stuck)
    return Swept(chained, stuck)


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the continuous check. `is_round_done`: it reached the head; the next starts over."""

    checked: int
    seq: int
    faults: tuple[Fault, ...]
    is_round_done: bool


@dataclass(slots=True)
class Watch:
    """The continuous check: where it is, and what it has seen that must not change any more.

    `faults` and `rounds` only grow. The head at the end of a round is remembered: later rounds must
    pass through it, and the chain must never be shorter. So a chain that is replaced as a whole while
    the custodian runs is found too.
    """

    faults: int = 0
    rounds: int = 0
    _walk: Walk = field(default_factory=Walk)
    _witness: tuple[int, bytes] = (0, GENESIS)

    async def verify_step(
        self, database: Database, *, deadline: float, entries: int = STEP_ENTRIES
    ) -> Step:
        """Check the next `entries` entries. Raises `DataError`s; then the step is simply repeated."""
        walk = self._walk
        async with database.transaction(deadline=deadline, read_only=True) as connection:
            await connection.execute("SELECT set_config('medrec.chain', 'verify', true)")
            query = sql.SQL(
                "SELECT {} FROM audit.entry WHERE seq > %s AND seq <= %s ORDER BY seq LIMIT %s"
            ).format(sql.SQL(COLUMNS))
            # The head first: what is beyond it then was appended since, and is not looked at.
            head = await (await connection.execute("SELECT seq, hash FROM audit.head")).fetchone()
            head_seq, head_hash = (head[0], bytes(head[1])) if head else (0, GENESIS)
            cursor = await connection.execute(query, [walk.seq, head_seq, entries], binary=True)
            rows = await cursor.fetchall()
        seen = walk.found
        for row in rows:
            walk.feed([row])
            if walk.seq == self._witness[0] and walk.hash != self._witness[1]:
                walk.note(walk.seq, "anchor", "it was seen with another hash before")
        done = len(rows) < entries
        if done:
            if head_seq < self._witness[0]:
                walk.note(
                    head_seq + 1, "cut", f"the chain was seen up to {self._witness[0]} before"
                )
            walk.end(head_seq, head_hash)
        return self._step(walk, len(rows), walk.found - seen, done)

    def _step(self, walk: Walk, checked: int, found: int, done: bool) -> Step:
        faults = tuple(walk.faults[len(walk.faults) - min(found, len(walk.faults)) :])
        for fault in faults[:_LOGGED_FAULTS]:
            _log.critical(
                "the audit chain is broken at entry %d (%s): %s",
                *(fault.seq, fault.what, fault.detail),
            )
        self.faults += found
        seq = walk.seq
        if done:
            self.rounds += 1
            if walk.hash is not None and walk.seq >= self._witness[0]:
                self._witness = (walk.seq, walk.hash)
            self._walk = Walk()
        else:
            walk.faults.clear()
        return Step(checked, seq, faults, done)
