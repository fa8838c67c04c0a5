"""Walks the whole chain in one consistent view, streamed: millions of entries in little memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from deployments.data.audit.anchor import Anchor
from deployments.data.audit.verification import COLUMNS, GENESIS, Fault, Row, Walk

_GROUP = 2000


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
        connection.execute("SELECT set_config('medrec.chain', 'verify', true)")
        head = connection.execute("SELECT seq, hash FROM audit.head").fetchone()
        head_seq, head_hash = (int(head[0]), bytes(head[1])) if head else (0, GENESIS)
        walk = Walk(first - 1, GENESIS if first == 1 else None)
        if head is None:
            walk.note(0, "head", "the head was removed")
        _stream(connection, walk, first, progress)
        walk.end(head_seq, head_hash)
        for anchor in anchors:
            _pass(connection, walk, anchor, head_seq)
    return Verdict(
        first, head_seq, head_hash, walk.checked, len(anchors), walk.found, tuple(walk.faults)
    )


def _stream(
    connection: psycopg.Connection[Any], walk: Walk, first: int, progress: Callable[[int], None]
) -> None:
    query = sql.SQL("SELECT {} FROM audit.entry WHERE seq >= {} ORDER BY seq").format(
        sql.SQL(COLUMNS), first
    )
    # In binary: bytes arrive as bytes, not as hexadecimal digits.
    with psycopg.ServerCursor[Row](connection, "audit_walk") as cursor:
        cursor.execute(query, binary=True)
        while rows := cursor.fetchmany(_GROUP):
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
