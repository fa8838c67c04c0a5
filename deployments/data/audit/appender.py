"""The one connection over which a process appends to the chain.

It is not of the pool: an append must not wait behind reads that wait for it. And it is one statement
in autocommit, so that the chain's lock, which every process waits for, is held inside the server
alone and never while an event loop is busy elsewhere.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any
from uuid import UUID

import psycopg

from deployments.data.cutting import cut_after
from deployments.data.database_errors import lost
from deployments.data.errors import DataError, StoreUnavailable

_APPEND = b"SELECT chained_id, chained_seq FROM audit.append(%s::text[], %s::uuid[])"
# Whatever the role's or the database's defaults are, an append is durable when it returns. What the
# client gave up on, the server gives up on soon after.
_SESSION = b"SET synchronous_commit = on; SET statement_timeout = '10s'; SET lock_timeout = 0"
_CONNECT_TIMEOUT_S = 2
_CLOSE_TIMEOUT_S = 1.0


class Unfit(DataError):
    """Our fault: what was to be chained breaks a rule of the chain; trying again changes nothing."""

    code = "audit_unfit"


class Appender:
    """Appends groups of entries; not for two tasks at a time."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._connection: psycopg.AsyncConnection[tuple[Any, ...]] | None = None
        self._warned = False

    async def append(
        self, bodies: Sequence[str], staged: Sequence[UUID], *, deadline: float
    ) -> dict[UUID, int]:
        """Chain `bodies` and the outbox rows `staged`. Returns each chained id with its sequence.

        An id of `staged` that is missing from the answer is in neither outbox nor chain. Every id
        that is already chained stays as it is, so that any append can be repeated: also after
        `StoreUnavailable`, which does not say whether this one happened. Raises `Unfit` if an
        entry, not the database, is at fault.
        """
        fresh = self._connection is None
        try:
            return await self._append(bodies, staged, deadline)
        except StoreUnavailable:
            # A server that was restarted since leaves a dead connection: that is no outage yet.
            if fresh or self._connection is not None or time.monotonic() >= deadline:
                raise
            return await self._append(bodies, staged, deadline)

    async def close(self) -> None:
        """Close the connection, if there is one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(TimeoutError, psycopg.Error):
                async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                    await connection.close()

    async def _append(
        self, bodies: Sequence[str], staged: Sequence[UUID], deadline: float
    ) -> dict[UUID, int]:
        connection = await self._connected(deadline)
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise StoreUnavailable("the audit chain did not answer in time")
        whole = False
        try:
            with cut_after(connection, left_s):
                cursor = await connection.execute(_APPEND, [list(bodies), list(staged)])
                found = dict(await cursor.fetchall())
            whole = not self._warned
        except psycopg.Error as error:
            whole = not lost(connection, error) and _is_unfit(error)
            if whole:
                code = error.sqlstate or type(error).__name__
                raise Unfit(f"the chain refuses an entry ({code})") from None
            raise StoreUnavailable("the audit chain cannot be reached") from None
        finally:
            if not whole:
                await self._drop(connection)
        if not whole:
            # "canceling wait for synchronous replication": here, and perhaps nowhere else.
            raise StoreUnavailable("the audit chain is not as safe as it should be")
        return found

    async def _connected(self, deadline: float) -> psycopg.AsyncConnection[tuple[Any, ...]]:
        if self._connection is not None and not self._connection.closed:
            return self._connection
        if time.monotonic() >= deadline:
            raise StoreUnavailable("the audit chain did not answer in time")
        try:
            connection = await psycopg.AsyncConnection.connect(
                self._dsn,
                autocommit=True,
                application_name="medrec-audit",
                connect_timeout=_CONNECT_TIMEOUT_S,
                keepalives_idle=10,
                keepalives_interval=2,
                keepalives_count=3,
            )
            with cut_after(connection, _CONNECT_TIMEOUT_S):
                await connection.execute(_SESSION)
        except (psycopg.Error, OSError):
            raise StoreUnavailable("the audit chain cannot be reached") from None
        connection.add_notice_handler(self._notice)
        self._warned = False
        self._connection = connection
        return connection

    async def _drop(self, connection: psycopg.AsyncConnection[tuple[Any, ...]]) -> None:
        if self._connection is connection:
            self._connection = None
        with suppress(psycopg.Error):
            await connection.close()

    def _notice(self, notice: psycopg.errors.Diagnostic) -> None:
        if notice.severity_nonlocalized == "WARNING":
            self._warned = True


def _is_unfit(error: psycopg.Error) -> bool:
    """Whether the data are at fault: class 22 (data), 23 (constraints), 54 (limits)."""
    return (error.sqlstate or "").startswith(("22", "23", "54"))
