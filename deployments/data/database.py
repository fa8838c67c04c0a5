"""The database as the API and the custodian use it: bounded connections, one kind of transaction.

Every transaction has a deadline that holds even against a server that has stopped answering: what
a cancel cannot end, the end of the socket does. One that cannot begin waits for the server, for
`failover_wait_s` at most. A transaction fails in one of three ways, and the error says which:
nothing was written (`StoreUnavailable`, `DeadlineExceeded`, `Conflict`), nothing was written and it
may simply be done again (`Interrupted`), or nobody knows (`CommitUnknown`).
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Literal

import psycopg
from psycopg.pq import TransactionStatus

from configs.args import RecordsArgs
from deployments.data.connections import Connection, Connections
from deployments.data.cutting import cut_off
from deployments.data.database_errors import lost, moved, refusal
from deployments.data.errors import (
    CommitUnknown,
    DataError,
    DeadlineExceeded,
    Interrupted,
    StoreUnavailable,
)

Compartment = Literal["care", "all", "none"]

FAILOVER_WAIT_S = RecordsArgs().failover_wait_s
# Without an answer for this long to somebody who waits for one, the server is taken to be away.
SILENT_S = 0.5
# The server's own timeout comes first; the socket is cut when even that does not arrive.
_CUT_AFTER_S = 0.25
_RETRY_AFTER_S = 1.0
# What row-level security compares with is an id; anything else never reaches a statement.
_ID = re.compile(r"[A-Za-z0-9.:/_-]{0,128}")


class Database:
    """One database, for one event loop."""

    def __init__(
        self,
        dsn: str,
        *,
        connections: int,
        name: str = "medrec",
        failover_wait_s: float = FAILOVER_WAIT_S,
    ) -> None:
        """`connections` is the most there are at a time, `name` what the server calls them.

        `failover_wait_s`: for how long a request waits for a server that is away.
        """
        self.dsn = dsn
        self.failover_wait_s = failover_wait_s
        self._most, self._name = connections, name
        self._connections: Connections | None = None
        self._asking: dict[object, float] = {}

    async def open(self) -> None:
        """Begin to connect, in the background: an absent server delays nobody here."""
        if self._connections is None:
            self._connections = Connections(
                self.dsn, most=self._most, name=self._name, away_wait_s=self.failover_wait_s
            )
            self._connections.open()

    async def close(self) -> None:
        """Give the connections back; whoever waits for one is refused."""
        if self._connections is not None:
            closing, self._connections = self._connections, None
            await closing.close()

    @property
    def is_away(self) -> bool:
        """Whether the server refuses connections, or has been silent while somebody asks."""
        if self._connections is None or self._connections.is_away:
            return True
        first = next(iter(self._asking.values()), None)
        if first is None:
            return False
        return time.monotonic() - max(first, self._connections.answered_at) > SILENT_S

    def figures(self) -> dict[str, int]:
        """Connections there are, those at rest and the requests that wait for one."""
        if self._connections is None:
            return {"connections": 0, "idle": 0, "waiting": 0}
        return self._connections.figures()

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
        After `Interrupted` the block may run again (deployments/data/repeating.py).
        """
        words = _beginning(organization, practitioner, compartment, durable, read_only)
        connection, cut = await self._begun(words, deadline)
        try:
            try:
                yield connection
            except psycopg.Error as error:
                if moved(error, read_only=read_only):
                    connection.pgconn.finish()
                raise refusal(error, expired=_expired(deadline), read_only=read_only) from None
            await self._commit(connection, deadline, read_only)
        finally:
            await self._give_back(connection, cut)

    async def _begun(self, words: str, deadline: float) -> tuple[Connection, asyncio.TimerHandle]:
        """A connection with the transaction begun, and the timer that cuts it off.

        A server that was restarted leaves dead connections behind; they are passed over.
        """
        connections = self._connections
        if connections is None:
            raise StoreUnavailable("the database is not open", retry_after_s=_RETRY_AFTER_S)
        asking = object()
        self._asking[asking] = time.monotonic()
        try:
            while True:
                if _expired(deadline):
                    raise DeadlineExceeded("the time limit passed before the database was asked")
                connection = await connections.get(deadline)
                cut = await self._asked(connection, words, deadline)
                if cut is not None:
                    connections.answered()
                    return connection, cut
        finally:
            self._asking.pop(asking)

    async def _asked(
        self, connection: Connection, words: str, deadline: float
    ) -> asyncio.TimerHandle | None:
        """Begin the transaction; None where the connection was dead already."""
        cut = _cut_at(connection, deadline + _CUT_AFTER_S)
        begun = False
        try:
            left_ms = max(1, int((deadline - time.monotonic()) * 1000))
            await connection.execute(words.replace("$left", str(left_ms)).encode())
            begun = True
        except psycopg.Error as error:
            if not lost(connection, error):
                raise refusal(error, expired=_expired(deadline)) from None
            if _expired(deadline):
                raise DeadlineExceeded("the database did not answer in time") from None
        finally:
            if not begun:
                await self._give_back(connection, cut)
        return cut if begun else None

    async def _commit(self, connection: Connection, deadline: float, read_only: bool) -> None:
        """Commit, or say exactly what has become of it."""
        status = connection.pgconn.transaction_status
        if status == TransactionStatus.INERROR:
            raise DataError("a statement failed, and the transaction was to be committed")
        if _expired(deadline):
            raise DeadlineExceeded("the time limit passed before the commit")
        if status != TransactionStatus.INTRANS:
            raise Interrupted("the connection was lost before the commit")
        before = connection.warnings
        try:
            done = await connection.execute(b"COMMIT")
        except psycopg.Error as error:
            if lost(connection, error) and not read_only:
                raise CommitUnknown("the connection broke during the commit") from None
            raise refusal(error, expired=_expired(deadline)) from None
        if connection.warnings != before:
            # "canceling wait for synchronous replication": committed here, perhaps nowhere else.
            raise CommitUnknown("the server could not make the commit as safe as it should")
        if done.statusmessage != "COMMIT":
            raise DataError("the transaction was rolled back instead of committed")

    async def _give_back(self, connection: Connection, cut: asyncio.TimerHandle) -> None:
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
            if self._connections is not None:
                self._connections.put(connection)
            else:
                connection.pgconn.finish()


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


def _cut_at(connection: Connection, moment: float) -> asyncio.TimerHandle:
    """End the connection's socket at `moment`: whoever waits on it is woken by its end."""
    loop = asyncio.get_running_loop()
    return loop.call_later(max(0.0, moment - time.monotonic()), cut_off, connection)
