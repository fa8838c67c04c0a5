"""Walks the whole chain, in parts: millions of entries in little memory.

Up to where the head stood at the beginning in short transactions: a long one would keep PostgreSQL
from clearing away the head's old versions, and so slow every append down. Only the end, where head
and last entry must agree, is read in one consistent view.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from deployments.data.audit.anchor import Anchor
from deployments.data.audit.verification import COLUMNS, GENESIS, Fault, Row, Walk

_PART = 5000


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a walk found. `found` may be more than the faults that are listed."""

    first: int
    head_seq: int
    head_hash: bytes
    checked: int
    anchors: int
    found: int
    faults: tuple[Fault, ...]

    @property
    def is_sound(self) -> bool:
        """Whether nothing is wrong."""
        return self.found == 0


def verify(
    dsn: str,
    *,
    first: int = 1,
    anchors: Sequence[Anchor] = (),
    progress: Callable[[int], None] = lambda checked: None,
) -> Verdict:
    """Check every entry from sequence `first` to the head, and that the chain passes `anchors`.

    A walk that does not begin at 1 holds the first entry to what it says it follows. Raises
    psycopg's errors.
    """
    if first < 1:
        raise ValueError("the chain begins at 1")
    with psycopg.connect(dsn) as connection:
        connection.read_only = True
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.execute("SELECT set_config('medrec.chain', 'verify', false)")
        walk = Walk(first - 1, GENESIS if first == 1 else None)
        head = _head(connection)
        connection.commit()
        while head is not None and _part(connection, walk, head[0]):
            progress(walk.checked)
        head = _head(connection)
        if head is None:
            walk.note(0, "head", "the head was removed")
        _rest(connection, walk, progress)
        head_seq, head_hash = head or (0, GENESIS)
        walk.end(head_seq, head_hash)
        for anchor in anchors:
            _pass(connection, walk, anchor, head_seq)
    return Verdict(
        first, head_seq, head_hash, walk.checked, len(anchors), walk.found, tuple(walk.faults)
    )


def _head(connection: psycopg.Connection[Any]) -> tuple[int, bytes] | None:
    row = connection.execute("SELECT seq, hash FROM audit.head").fetchone()
    return None if row is None else (row[0], bytes(row[1]))


def _part(connection: psycopg.Connection[Any], walk: Walk, last: int) -> bool:
    """Check the next entries up to `last`, in a transaction of their own. False: there are none."""
    query = sql.SQL(
        "SELECT {} FROM audit.entry WHERE seq > %s AND seq <= %s ORDER BY seq LIMIT %s"
    ).format(sql.SQL(COLUMNS))
    # In binary: bytes arrive as bytes, not as hexadecimal digits.
    rows = connection.execute(query, [walk.seq, last, _PART], binary=True).fetchall()
    connection.commit()
    walk.feed(rows)
    return bool(rows)


def _rest(connection: psycopg.Connection[Any], walk: Walk, progress: Callable[[int], None]) -> None:
    """Check everything behind the place that is reached, also what is beyond the head."""
    query = sql.SQL("SELECT {} FROM audit.entry WHERE seq > %s ORDER BY seq").format(
        sql.SQL(COLUMNS)
    )
    with psycopg.ServerCursor[Row](connection, "audit_walk") as cursor:
        cursor.execute(query, [walk.seq], binary=True)
        while rows := cursor.fetchmany(_PART):
            walk.feed(rows)
            progress(walk.checked)


def _pass(connection: psycopg.Connection[Any], walk: Walk, anchor: Anchor, head_seq: int) -> None:
    """The chain must still hold the entry that the anchor was taken of."""
    if anchor.seq == 0:
        return
    row = connection.execute("SELECT hash FROM audit.entry WHERE seq = %s", [anchor.seq]).fetchone()
    if row is None:
        detail = f"the anchor of {anchor.at} was taken of this entry; the head is at {head_seq}"
        walk.note(anchor.seq, "anchor", detail)
    elif bytes(row[0]) != anchor.hash:
        detail = f"the anchor of {anchor.at} has another hash: entries up to here were rewritten"
        walk.note(anchor.seq, "anchor", detail)
