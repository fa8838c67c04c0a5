"""The emergency copy: the site's published subset in this cell's own database, kept up to date.

It begins with a snapshot that replaces everything in one transaction, so that a copy is never half
there, and goes on by a subscription from that very place in the site's log. A slot that is lost, to a
failover or to a cell that was away for too long, leads to the next snapshot; while an emergency is
open, or where the site holds no patients, the copy stays as it is.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal

import psycopg
from psycopg import conninfo, sql

from deployments.data.emergency.publisher import PUBLICATION, SLOT_PREFIX
from deployments.data.emergency.tables import TABLES, Copied

SUBSCRIPTION = "medrec_emergency"
_CONNECT_S = 3
_STATEMENT = "30s"
_SNAPSHOT_STATEMENT = "300s"
State = Literal["streaming", "catching-up", "copied-anew", "held", "refused", "unreachable", "none"]

_MINE = """
SELECT s.subslotname, s.subenabled, s.subconninfo,
    EXISTS (SELECT FROM pg_stat_subscription AS t
            WHERE t.subid = s.oid AND t.worker_type = 'apply' AND t.pid IS NOT NULL)
FROM pg_subscription AS s WHERE s.subname = %s
    AND s.subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
_SLOT = """
SELECT wal_status, invalidation_reason FROM pg_replication_slots
WHERE slot_name = %s AND database = current_database()
"""
_STALE = """
SELECT slot_name FROM pg_replication_slots WHERE slot_name LIKE %s AND slot_name <> %s
    AND NOT active AND database = current_database()
"""
_AGE = "SELECT extract(epoch FROM clock_timestamp() - at)::float8 FROM emergency.heartbeat"
_PATIENTS = "SELECT count(*) FROM records.resource_patient WHERE NOT deleted"
_OPEN = (
    "SELECT EXISTS (SELECT FROM emergency.activation WHERE ended_at IS NULL AND expires_at > now())"
)


@dataclass(frozen=True, slots=True)
class Condition:
    """The copy as it is: seconds since the site was last heard of through it, and patients."""

    state: State
    age_s: float | None
    patients: int
    reason: str = ""


class Copy:
    """The copy of one emergency cell. Blocking calls, each bounded: for a thread."""

    def __init__(self, owner_dsn: str, source_dsn: str) -> None:
        """`owner_dsn` is this cell's, `source_dsn` leads to the site's primary as `medrec_copy`."""
        self._owner_dsn, self._source_dsn = owner_dsn, source_dsn

    def keep(self) -> Condition:
        """See that the copy goes on, begin it anew where it cannot, and tell how it is."""
        with _connected(self._owner_dsn, _STATEMENT) as here:
            try:
                state, reason = self._kept(here)
            except psycopg.OperationalError as error:
                state, reason = "unreachable", type(error).__name__
            return _condition(here, state, reason)

    def look(self) -> Condition:
        """Tell how it is, and touch nothing."""
        with _connected(self._owner_dsn, _STATEMENT) as here:
            return _condition(here, "none", "")

    def _kept(self, here: psycopg.Connection[Any]) -> tuple[State, str]:
        mine = here.execute(_MINE, (SUBSCRIPTION,)).fetchone()
        with _connected(self._source_dsn, _STATEMENT) as there:
            slot = there.execute(_SLOT, (mine[0],)).fetchone() if mine is not None else None
            lost = slot is None or slot[0] == "lost" or slot[1] is not None
            way = self._way(there)
            if mine is not None and not lost and mine[1]:
                if mine[2] != way:
                    here.execute(
                        sql.SQL("ALTER SUBSCRIPTION {} CONNECTION {}").format(
                            sql.Identifier(SUBSCRIPTION), sql.Literal(way)
                        )
                    )
                return ("streaming" if mine[3] else "catching-up"), ""
            if _asked(here, _OPEN):
                return "held", "an emergency is open: the copy stays as it was at the take-over"
            if not _asked(there, _PATIENTS) and _asked(here, _PATIENTS):
                return "refused", "the site holds no patients, and the copy does"
        self._begin(here, way)
        return "copied-anew", ""

    def _way(self, there: psycopg.Connection[Any]) -> str:
        """How the subscription reaches the site: PostgreSQL's account may not read our passfile.

        Its own catalogue keeps the password, which nobody but its superuser can read.
        """
        known = conninfo.conninfo_to_dict(self._source_dsn)
        if known.pop("passfile", None) is not None:
            known["password"] = there.info.password
        return conninfo.make_conninfo("", **known)

    def _begin(self, here: psycopg.Connection[Any], way: str) -> None:
        """A snapshot and a subscription that goes on from it, in one transaction of this database."""
        slot = SLOT_PREFIX + secrets.token_hex(4)
        with (
            self._slot(slot) as snapshot,
            _connected(self._source_dsn, _SNAPSHOT_STATEMENT) as there,
        ):
            with here.transaction():
                here.execute(f"SET LOCAL statement_timeout = '{_SNAPSHOT_STATEMENT}'")
                self._forget(here)
                # The replica's triggers alone fire, and no foreign key is asked for, as in applying.
                here.execute("SET LOCAL session_replication_role = replica")
                there.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                there.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(sql.Literal(snapshot)))
                for copied in TABLES:
                    _replace(here, there, copied)
                there.execute("COMMIT")
                here.execute(_subscribe(way, slot))
            self._drop_stale(there, slot)

    def _forget(self, here: psycopg.Connection[Any]) -> None:
        """Take the subscription of before away, without a word to the site."""
        if here.execute(_MINE, (SUBSCRIPTION,)).fetchone() is not None:
            here.execute(f"ALTER SUBSCRIPTION {SUBSCRIPTION} DISABLE")
            here.execute(f"ALTER SUBSCRIPTION {SUBSCRIPTION} SET (slot_name = NONE)")
            here.execute(f"DROP SUBSCRIPTION {SUBSCRIPTION}")

    @contextmanager
    def _slot(self, name: str) -> Iterator[str]:
        """A new slot on the site and its snapshot, which is there as long as the block lasts.

        If the block fails, the slot goes: nobody would read from it.
        """
        dsn = conninfo.make_conninfo(
            self._source_dsn, replication="database", connect_timeout=_CONNECT_S
        )
        with psycopg.connect(dsn, autocommit=True) as walsender:
            made = walsender.pgconn.exec_(
                f"CREATE_REPLICATION_SLOT {name} LOGICAL pgoutput (SNAPSHOT 'export')".encode()
            )
            snapshot = made.get_value(0, 2) if made.ntuples else None
            if snapshot is None:
                text = made.error_message.decode("utf-8", "replace").strip()
                raise psycopg.OperationalError(f"the site gives no replication slot: {text}")
            try:
                yield snapshot.decode("ascii")
            except BaseException:
                with suppress(psycopg.Error):
                    walsender.pgconn.exec_(f"DROP_REPLICATION_SLOT {name}".encode())
                raise

    def _drop_stale(self, there: psycopg.Connection[Any], kept: str) -> None:
        """Slots of earlier snapshots, which would hold the site's log back."""
        stale = there.execute(_STALE, (SLOT_PREFIX + "%", kept)).fetchall()
        for (name,) in stale:
            with suppress(psycopg.Error):
                there.execute("SELECT pg_drop_replication_slot(%s)", (name,))


def _subscribe(way: str, slot: str) -> sql.Composed:
    return sql.SQL(
        "CREATE SUBSCRIPTION {} CONNECTION {} PUBLICATION {} WITH (create_slot = false,"
        " copy_data = false, slot_name = {}, origin = none, streaming = off, disable_on_error = true)"
    ).format(
        sql.Identifier(SUBSCRIPTION),
        sql.Literal(way),
        sql.Identifier(PUBLICATION),
        sql.Literal(slot),
    )


def _replace(here: psycopg.Connection[Any], there: psycopg.Connection[Any], copied: Copied) -> None:
    """The rows of the source instead of those here, column by column by name."""
    columns = [
        name
        for (name,) in here.execute(
            "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0"
            " AND NOT attisdropped AND attgenerated = '' ORDER BY attnum",
            (copied.table,),
        )
    ]
    listed = sql.SQL(", ").join(map(sql.Identifier, columns))
    names = (copied.table, copied.source)
    target, origin = (sql.Identifier(*name.split(".")) for name in names)
    if copied.is_shared:
        staging = sql.Identifier("copied")
        here.execute(
            sql.SQL("CREATE TEMP TABLE {} ON COMMIT DROP AS SELECT * FROM {} LIMIT 0").format(
                staging, target
            )
        )
        _stream(here, there, origin, staging, listed)
        here.execute(
            sql.SQL(
                "INSERT INTO {target} ({listed}) SELECT {listed} FROM {staging} ON CONFLICT (id)"
                " DO UPDATE SET ({listed}) = ROW({new})"
            ).format(
                target=target,
                listed=listed,
                staging=staging,
                new=sql.SQL(", ").join(sql.Identifier("excluded", name) for name in columns),
            )
        )
        here.execute(sql.SQL("DROP TABLE {}").format(staging))
        return
    here.execute(sql.SQL("DELETE FROM {}").format(target))
    _stream(here, there, origin, target, listed)


def _stream(
    here: psycopg.Connection[Any],
    there: psycopg.Connection[Any],
    origin: sql.Identifier,
    target: sql.Identifier,
    listed: sql.Composed,
) -> None:
    reading = sql.SQL("COPY (SELECT {} FROM {}) TO STDOUT (FORMAT binary)").format(listed, origin)
    writing = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(target, listed)
    with (
        there.cursor().copy(reading) as rows,
        here.cursor().copy(writing) as into,
    ):
        for part in rows:
            into.write(part)


def _condition(here: psycopg.Connection[Any], state: State, reason: str) -> Condition:
    age = here.execute(_AGE).fetchone()
    age_s = None if age is None or age[0] is None else max(0.0, float(age[0]))
    return Condition(state, age_s, int(_asked(here, _PATIENTS)), reason)


def _asked(connection: psycopg.Connection[Any], query: str) -> Any:
    row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return row[0]


@contextmanager
def _connected(dsn: str, statement_timeout: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(
        conninfo.make_conninfo(dsn, connect_timeout=_CONNECT_S),
        autocommit=True,
        application_name="medrec-copy",
        options=f"-c statement_timeout={statement_timeout}",
        tcp_user_timeout=10_000,
    ) as connection:
        yield connection
