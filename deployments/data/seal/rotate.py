"""Rotation: a new site key, and every wrapped key under it, while the platform works on.

The order makes every crash harmless. The new key is in the escrow's bundle, then in the file, then
in use; rows are re-wrapped in small transactions, their sealed data untouched; the old key goes when
a look at every row, begun after each write under it must have ended, has found none. Until then the
file says that a rotation is going on, and the next run goes on with it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from deployments.data.durable import replace_file
from deployments.data.seal import escrow, keys
from deployments.data.seal.errors import SealBroken, SiteKeysError
from deployments.data.seal.sealer import Sealer
from deployments.data.seal.tables import SEALED_TABLES, SealedTable

# Longer than a sealer takes to look at the file and a write to reach its end or its deadline.
SETTLE_S = 60.0
BATCH = 500
_PAGES = 256
_LOCK = 6_374_120_006
_LOCK_TIMEOUT = "10s"
_HELD_S = 120.0
_POLL_S = 0.5

Progress = Callable[[str], None]
# Gives every other cell of the site these keys, and returns once each has them. Raises
# `SiteKeysError` that names those which have not.
Carry = Callable[[keys.SiteKeys], None]


@dataclass(frozen=True, slots=True)
class Rotated:
    """What a rotation did. `broken` rows could not be opened, and keep the old keys from going."""

    old: str
    new: str
    rewrapped: int
    broken: int
    dropped: tuple[str, ...]
    resumed: bool


def rotate(
    secrets: Path,
    owner_dsn: str,
    *,
    keep_old: bool = False,
    settle_s: float = SETTLE_S,
    batch: int = BATCH,
    say: Progress = lambda _: None,
    carry: Carry | None = None,
) -> Rotated:
    """Make a new site key and re-wrap everything under it, or finish a rotation that was cut off.

    Blocks until it is done: `settle_s` seconds at least, from the new key's making. In a site every
    cell has the new key before one of them uses it, and uses it before the old one is dropped: `carry`
    sees to that. Raises `SiteKeysError` if another rotation runs, if there is nothing that could be
    rotated, or if a cell does not take the keys.
    """
    with keys.lock(secrets), alone(owner_dsn) as connection:
        loaded = keys.read(secrets)
        resumed = loaded.rotating_from is not None
        if not resumed:
            loaded = _begun(secrets, connection, loaded, carry)
            keys.write(secrets, loaded)
        if carry is not None:
            carry(loaded)
        old, new = str(loaded.rotating_from), loaded.current
        say(f"{'going on with the change' if resumed else 'changed'} from site key {old} to {new}")
        sealer = Sealer.load(secrets)
        first, _ = _pass(connection, sealer, new, batch, say)
        # Another cell wrote under the old key until it was given the new one, a moment ago.
        _settle(loaded.keys[new].created if carry is None else _now(), settle_s, say)
        rest, broken = _finish(connection, sealer, new, batch, say)
        unused = set() if keep_old or broken else set(loaded.keys) - {new}
        if not broken:
            keys.write(secrets, loaded.without(unused))
        return Rotated(old, new, first + rest, broken, tuple(sorted(unused)), resumed)


def renew_escrow(
    secrets: Path, connection: psycopg.Connection[Any], loaded: keys.SiteKeys
) -> escrow.Bundle | None:
    """Seal the keys to the escrow, if there is one: in the database, then beside the keys."""
    found = escrow.read_bundle(secrets)
    if found is None:
        return None
    # Whoever recovers may rotate again or not: with both keys there is nothing to be finished.
    renewed = found.renewed(replace(loaded, rotating_from=None))
    keep_bundle(secrets, connection, renewed)
    return renewed


def keep_bundle(secrets: Path, connection: psycopg.Connection[Any], bundle: escrow.Bundle) -> None:
    """Store a bundle durably in the database, where backups find it, and beside the keys."""
    connection.execute(
        "INSERT INTO records.escrow (fingerprint, bundle) VALUES (%s, %s)",
        (bundle.fingerprint, bundle.dump()),
    )
    replace_file(secrets / keys.BUNDLE, bundle.dump())


def newest_bundle(owner_dsn: str) -> bytes:
    """The bundle that the database holds. Raises `SiteKeysError` if it holds none."""
    try:
        with psycopg.connect(owner_dsn, connect_timeout=10) as connection:
            row = connection.execute(
                "SELECT bundle FROM records.escrow ORDER BY number DESC LIMIT 1"
            ).fetchone()
    except psycopg.Error:
        raise SiteKeysError("the database gives no bundle: name one by --bundle") from None
    if row is None:
        raise SiteKeysError("the database holds no bundle: name one by --bundle")
    return bytes(row[0])


@contextmanager
def alone(owner_dsn: str) -> Iterator[psycopg.Connection[Any]]:
    """The owner's connection, with the lock that makes this the only change of keys in it."""
    try:
        connection = psycopg.connect(owner_dsn, autocommit=True, connect_timeout=10)
    except psycopg.OperationalError:
        raise SiteKeysError("the database cannot be reached: nothing was changed") from None
    with connection:
        row = connection.execute("SELECT pg_try_advisory_lock(%s)", (_LOCK,)).fetchone()
        if row is None or not row[0]:
            raise SiteKeysError("another rotation of this database is going on")
        connection.execute(f"SET lock_timeout = '{_LOCK_TIMEOUT}'".encode())
        yield connection


def _begun(
    secrets: Path,
    connection: psycopg.Connection[Any],
    loaded: keys.SiteKeys,
    carry: Carry | None,
) -> keys.SiteKeys:
    """The keys with a new current one, which the escrow and every other cell have already."""
    begun = loaded.with_new_current()
    renew_escrow(secrets, connection, begun)
    if carry is not None:
        # Cut off from here on, it is one key more, which the next rotation drops.
        staged = replace(begun, current=loaded.current, rotating_from=None)
        keys.write(secrets, staged)
        carry(staged)
    return begun


def _now() -> str:
    return datetime.now(UTC).isoformat()


def _settle(changed: str, settle_s: float, say: Progress) -> None:
    """Wait until whatever was sealed under the old key before the change has been written."""
    made = datetime.fromisoformat(changed)
    # A clock that was put back makes this longer, never shorter, and not without end.
    left_s = settle_s - max(0.0, (datetime.now(UTC) - made).total_seconds())
    if left_s > 0:
        say(f"waiting {left_s:.0f} s for writes under the old key to end")
        time.sleep(left_s)


def _finish(
    connection: psycopg.Connection[Any], sealer: Sealer, new: str, batch: int, say: Progress
) -> tuple[int, int]:
    """Pass until no row is left under another key but broken ones. Returns re-wrapped and broken."""
    rewrapped = 0
    until = time.monotonic() + _HELD_S
    while True:
        more, broken = _pass(connection, sealer, new, batch, say)
        rewrapped += more
        # A pass leaves out what a writer holds, and what was added meanwhile.
        if _left(connection, new) <= broken:
            return rewrapped, broken
        if time.monotonic() > until:
            raise SiteKeysError("some rows are held by others for too long: run it again")
        time.sleep(_POLL_S)


def _left(connection: psycopg.Connection[Any], new: str) -> int:
    """Rows that are not under the new key, those included that somebody is changing."""
    total = 0
    for table in SEALED_TABLES:
        statement = sql.SQL("SELECT count(*) FROM {} WHERE key_id <> %s").format(table.identifier)
        row = connection.execute(statement, (new,)).fetchone()
        total += row[0] if row else 0
    return total


def _pass(
    connection: psycopg.Connection[Any], sealer: Sealer, new: str, batch: int, say: Progress
) -> tuple[int, int]:
    """Re-wrap every row that is not under the new key. Returns how many, and how many are broken."""
    rewrapped = broken = 0
    for table in SEALED_TABLES:
        for leaf in table.leaves(connection):
            done, failed = _table(connection, sealer, leaf, new, batch)
            rewrapped += done
            broken += failed
            if done or failed:
                say(f"{leaf.name}: {done} keys re-wrapped, {failed} broken")
    return rewrapped, broken


def _table(
    connection: psycopg.Connection[Any], sealer: Sealer, table: SealedTable, new: str, batch: int
) -> tuple[int, int]:
    """One walk through the table's pages, so that no row is looked at more often than need be."""
    row = connection.execute("SELECT pg_relation_size(%s::regclass)", (table.name,)).fetchone()
    pages = -(-int(row[0] if row else 0) // 8192)
    rewrapped = broken = 0
    for page in range(0, pages, _PAGES):
        after = f"({page},0)"
        end = f"({page + _PAGES},0)"
        while True:
            with connection.transaction():
                found = _locked(connection, table, new, after, end, batch)
                good, bad = _rewrapped(sealer, found)
                _store(connection, table, new, good)
            rewrapped += len(good)
            broken += bad
            if len(found) < batch:
                break
            after = found[-1][0]
    return rewrapped, broken


def _locked(
    connection: psycopg.Connection[Any],
    table: SealedTable,
    new: str,
    after: str,
    end: str,
    batch: int,
) -> list[tuple[str, str, bytes]]:
    """Rows under other keys, in physical order. What a writer holds now is left to the next pass."""
    statement = sql.SQL(
        "SELECT ctid::text, key_id, wrapped_key FROM {} WHERE ctid > %s::tid AND ctid < %s::tid"
        " AND key_id <> %s LIMIT %s FOR NO KEY UPDATE SKIP LOCKED"
    ).format(table.identifier)
    return connection.execute(statement, (after, end, new, batch)).fetchall()


def _rewrapped(
    sealer: Sealer, found: list[tuple[str, str, bytes]]
) -> tuple[list[tuple[str, bytes]], int]:
    good: list[tuple[str, bytes]] = []
    for place, key_id, wrapped in found:
        try:
            data_key = sealer.unwrap(key_id, wrapped)
        except SealBroken:
            continue
        good.append((place, sealer.wrap(data_key)[1]))
    return good, len(found) - len(good)


def _store(
    connection: psycopg.Connection[Any],
    table: SealedTable,
    new: str,
    rows: list[tuple[str, bytes]],
) -> None:
    """The rows are locked by this transaction, so their places still hold."""
    if not rows:
        return
    statement = sql.SQL(
        "UPDATE {} AS t SET key_id = %s, wrapped_key = v.wrapped"
        " FROM unnest(%s::text[], %s::bytea[]) AS v (place, wrapped) WHERE t.ctid = v.place::tid"
    ).format(table.identifier)
    places, wrapped = [place for place, _ in rows], [key for _, key in rows]
    done = connection.execute(statement, (new, places, wrapped))
    if done.rowcount != len(rows):
        raise SiteKeysError(f"{table.name} changed under the rotation: run it again")
