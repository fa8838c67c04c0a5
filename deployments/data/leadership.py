"""One custodian at a time: whoever holds an advisory lock in the database works, the other waits.

A rolling update has two for a while. The lock belongs to a connection, so it falls with its holder; and
with a holder of whom nothing is heard, since a proxy between may keep a dead one's connection open.
"""

from __future__ import annotations

import contextlib
from typing import Any

import psycopg

from deployments.data.cutting import cut_after

LOCK = 6_374_120_004
_TIMEOUT_S = 3.0
# A holder asks every second; PostgreSQL ends the session of one that is silent for so long.
SILENT_S = 15


class Leadership:
    """The wish to lead; `held` tells whether it is fulfilled, and keeps trying."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._connection: psycopg.AsyncConnection[tuple[Any, ...]] | None = None
        self.is_held = False

    async def held(self) -> bool:
        """Ask the database, within seconds; a broken connection has lost the lock."""
        try:
            self.is_held = await self._ask()
        except (psycopg.Error, OSError):
            await self.close()
        return self.is_held

    async def close(self) -> None:
        """Give the lock back, if it is held."""
        self.is_held = False
        if self._connection is not None:
            with contextlib.suppress(psycopg.Error):
                await self._connection.close()
            self._connection = None

    async def _ask(self) -> bool:
        if self._connection is None:
            self._connection = await psycopg.AsyncConnection.connect(
                self._dsn,
                autocommit=True,
                connect_timeout=int(_TIMEOUT_S),
                application_name="medrec-custodian-lock",
            )
            with cut_after(self._connection, _TIMEOUT_S):
                await self._connection.execute(f"SET idle_session_timeout = '{SILENT_S}s'".encode())
        # Taken again by its holder it would count twice, and nobody would give it back twice.
        lock = "true" if self.is_held else f"pg_try_advisory_lock({LOCK})"
        query = f"SELECT pg_is_in_recovery(), {lock}".encode()
        with cut_after(self._connection, _TIMEOUT_S):
            row = await (await self._connection.execute(query)).fetchone()
        if row is None or row[0]:
            # The locks of a standby, or of a primary that was demoted, mean nothing.
            await self.close()
            return False
        return bool(row[1])
