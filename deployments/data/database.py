"""The database as the API and the custodian use it: a bounded pool, one kind of transaction.

Every transaction has a deadline that holds even against a server that has stopped answering: what
a cancel cannot end, the end of the socket does. A transaction fails in one of three ways, and the
error says which: nothing was written (`StoreUnavailable`, `DeadlineExceeded`, `Conflict`), or
nobody knows (`CommitUnknown`).
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Literal

import psycopg
from psycopg.pq import TransactionStatus
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout, TooManyRequests

from deployments.data.database_errors import lost, refusal
from deployments.data.errors import CommitUnknown, DataError, DeadlineExceeded, StoreUnavailable

Compartment = Literal["care", "all", "none"]

_WAITING_PER_CONNECTION = 32
_CONNECT_TIMEOUT_S = 3
_RECONNECT_TIMEOUT_S = 4.0
# While the server is known to be away nobody waits longer than this for a connection.
_AWAY_WAIT_S = 0.5
# The server's own timeout comes first; the socket is cut when even that does not arrive.
_CUT_AFTER_S = 0.25
_CLOSE_TIMEOUT_S = 5.0
_RETRY_AFTER_S = 1.0
# What row-level security compares with is an id; anything else never reaches a statement.
_ID = re.compile(r"[A-Za-z0-9.:/_-]{0,128}")


class _Connection(psycopg.AsyncConnection[tuple[Any, ...]]):
    """A connection that counts the server's warnings: one during COMMIT is not a success."""

    warnings = 0

    def watch_warnings(self) -> None:
        self.add_notice_handler(self._count)

    def _count(self, notice: psycopg.errors.Diagnostic) -> None:
        if notice.severity_nonlocalized == "WARNING":
            self.warnings += 1


class Database:
    """One database, for one event loop."""

    def __init__(self, dsn: str, *, connections: int, name: str = "medrec") -> None:
        """`connections` is the most there are at a time, `name` what the server calls them."""
        self.dsn = dsn
        self._connections = connections
        self._name = name
        self._pool: AsyncConnectionPool[_Connection] | None = None
        self._away = False

    async def open(self) -> None:
        """Begin to connect, in the background: an absent server delays nobody here."""
        if self._pool is not None:
            return
        self._pool = AsyncConnectionPool(
            self.dsn,
            connection_class=_Connection,
            kwargs={
                "autocommit": True,
                "application_name": self._name,
                "connect_timeout": _CONNECT_TIMEOUT_S,
                "keepalives_idle": 10,
                "keepalives_interval": 2,
                "keepalives_count": 3,
            },
            min_size=min(2, self._connections),
            max_size=self._connections,
            max_waiting=_WAITING_PER_CONNECTION * self._connections,
            reconnect_timeout=_RECONNECT_TIMEOUT_S,
            configure=self._connected,
            reconnect_failed=self._not_connected,
            name=self._name,
            open=False,
        )
        await self._pool.open(wait=False)

    async def close(self) -> None:
        """Give the connections back; whoever waits for one is refused."""
        if self._pool is not None:
            await self._pool.close(timeout=_CLOSE_TIMEOUT_S)
            self._pool = None

    def figures(self) -> dict[str, int]:
        """Connections there are, those at rest and the requests that wait for one."""
        found = self._pool.get_stats() if self._pool is not None else {}
        return {
            "connections": found.get("pool_size", 0),
            "idle": found.get("pool_available", 0),
            "waiting": found.get("requests_waiting", 0),
        }

    @asynccontextmanager
    async def transaction(
        self,
        *,
        deadline: float,
        organization: str = "",
        practitioner: str = "",
        compartment: Compartment = "none",
        durable: bool = True,
        read_only: bool = False,
    ) -> AsyncIterator[psycopg.AsyncConnection[tuple[Any, ...]]]:
        """A transaction that commits when its block ends well, before `deadline` (`time.monotonic()`).

        Row-level security sees `organization`, `practitioner` and `compartment`. Not `durable`:
        the commit is seen by others at once and survives the server from the next durable one on.
        Inside the block psycopg's errors are its own; what leaves the block is a `DataError`.
        """
        words = _beginning(organization, practitioner, compartment, durable, read_only)
        connection, cut = await self._begun(words, deadline)
        try:
            try:
                yield connection
            except psycopg.Error as error:
                raise refusal(error, expired=_expired(deadline), read_only=read_only) from None
            await self._commit(connection, deadline)
        finally:
            await self._give_back(connection, cut)

    async def _begun(self, words: str, deadline: float) -> tuple[_Connection, asyncio.TimerHandle]:
        """A connection with the transaction begun, and the timer that cuts it off.

        A server that was restarted leaves dead connections in the pool; they are passed over.
        """
        while True:
            connection = await self._connection(deadline)
            cut = _cut_at(connection, deadline + _CUT_AFTER_S)
            begun = False
            try:
                left_ms = max(1, int((deadline - time.monotonic()) * 1000))
                await connection.execute(words.replace("$left", str(left_ms)).encode())
                begun = True
                return connection, cut
            except psycopg.Error as error:
                if not lost(connection, error):
                    raise refusal(error, expired=_expired(deadline)) from None
                if _expired(deadline):
                    raise DeadlineExceeded("the database did not answer in time") from None
            finally:
                if not begun:
                    await self._give_back(connection, cut)

    async def _connection(self, deadline: float) -> _Connection:
        if self._pool is None:
            raise StoreUnavailable("the database is not open", retry_after_s=_RETRY_AFTER_S)
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise DeadlineExceeded("the time limit passed before the database was asked")
        try:
            return await self._pool.getconn(min(left_s, _AWAY_WAIT_S) if self._away else left_s)
        except (PoolTimeout, TooManyRequests):
            reason = "the database cannot be reached" if self._away else "the database is busy"
        except PoolClosed:
            reason = "the database is closed"
        raise StoreUnavailable(reason, retry_after_s=_RETRY_AFTER_S)

    async def _commit(self, connection: _Connection, deadline: float) -> None:
        """Commit, or say exactly what has become of it."""
        status = connection.pgconn.transaction_status
        if status == TransactionStatus.INERROR:
            raise DataError("a statement failed, and the transaction was to be committed")
        if _expired(deadline):
            raise DeadlineExceeded("the time limit passed before the commit")
        if status != TransactionStatus.INTRANS:
            raise StoreUnavailable("the connection was lost before the commit")
        before = connection.warnings
        try:
            done = await connection.execute(b"COMMIT")
        except psycopg.Error as error:
            if lost(connection, error):
                raise CommitUnknown("the connection broke during the commit") from None
            raise refusal(error, expired=_expired(deadline)) from None
        if connection.warnings != before:
            # "canceling wait for synchronous replication": committed here, perhaps nowhere else.
            raise CommitUnknown("the server could not make the commit as safe as it should")
        if done.statusmessage != "COMMIT":
            raise DataError("the transaction was rolled back instead of committed")

    async def _give_back(self, connection: _Connection, cut: asyncio.TimerHandle) -> None:
        """Return the connection at rest, or broken: never one that the pool would have to wait for."""
        try:
            if connection.pgconn.transaction_status in (
                TransactionStatus.INTRANS,
                TransactionStatus.INERROR,
            ):
                with suppress(psycopg.Error):
                    await connection.execute(b"ROLLBACK")
        finally:
            cut.cancel()
            if connection.pgconn.transaction_status != TransactionStatus.IDLE:
                connection.pgconn.finish()
            if self._pool is not None:
                await asyncio.shield(self._pool.putconn(connection))

    async def _connected(self, connection: _Connection) -> None:
        connection.watch_warnings()
        self._away = False

    async def _not_connected(self, pool: object) -> None:
        self._away = True


def _beginning(
    organization: str, practitioner: str, compartment: str, durable: bool, read_only: bool
) -> str:
    """BEGIN and its settings as one message, so that they cost one round trip."""
    for value in (organization, practitioner, compartment):
        if not _ID.fullmatch(value):
            raise ValueError("what row-level security compares with is no id")
    settings = {
        "statement_timeout": "$left",
        "medrec.organization": organization,
        "medrec.practitioner": practitioner,
        "medrec.compartment": compartment,
        **({} if durable else {"synchronous_commit": "off"}),
    }
    calls = ", ".join(f"set_config('{name}', '{value}', true)" for name, value in settings.items())
    return f"BEGIN{' READ ONLY' if read_only else ''}; SELECT {calls}"


def _expired(deadline: float) -> bool:
    return time.monotonic() >= deadline


def cut_off(connection: psycopg.AsyncConnection[Any]) -> None:
    """End the connection's socket: whoever waits on it is woken, also if the server is frozen."""
    with (
        suppress(OSError, psycopg.Error),
        socket.socket(fileno=os.dup(connection.pgconn.socket)) as twin,
    ):
        twin.shutdown(socket.SHUT_RDWR)


def _cut_at(connection: _Connection, moment: float) -> asyncio.TimerHandle:
    """End the connection's socket at `moment`: whoever waits on it is woken by its end."""
    loop = asyncio.get_running_loop()
    return loop.call_later(max(0.0, moment - time.monotonic()), cut_off, connection)
