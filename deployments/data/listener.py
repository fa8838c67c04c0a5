"""One connection that listens to a channel of the database, for as long as its owner wants.

A notice only wakes: while the connection is down none arrives, so whoever relies on them looks for
itself as well, and once more whenever the connection is back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

import psycopg

from deployments.data.cutting import cut_after

# A server that died without a word is noticed by asking it something now and then.
_ASK_EVERY_S = 15.0
_ANSWER_WITHIN_S = 5.0
_PAUSES_S = (0.5, 1.0, 2.0, 5.0)
_log = logging.getLogger("medrec.listener")


class Listener:
    """Listens to `channel`; `heard` is given each payload, `back` is called after each connection."""

    def __init__(
        self, dsn: str, channel: str, *, heard: Callable[[str], None], back: Callable[[], None]
    ) -> None:
        self._dsn, self._channel = dsn, channel
        self._heard, self._back = heard, back
        self._task: asyncio.Task[None] | None = None
        self.is_listening = False

    def begin(self) -> None:
        """Start to listen, in the background."""
        if self._task is None:
            self._task = asyncio.ensure_future(self._keep_on())

    async def end(self) -> None:
        """Stop listening."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _keep_on(self) -> None:
        failures = 0
        while True:
            try:
                await self._listen()
            except Exception as error:  # whatever it is, the next attempt may do
                if self.is_listening:
                    failures = 0
                    _log.warning("%s is not heard: %s", self._channel, type(error).__name__)
                self.is_listening = False
            await asyncio.sleep(_PAUSES_S[min(failures, len(_PAUSES_S) - 1)])
            failures += 1

    async def _listen(self) -> None:
        connection = await psycopg.AsyncConnection.connect(
            self._dsn, autocommit=True, connect_timeout=3, application_name="medrec-notices"
        )
        try:
            with cut_after(connection, _ANSWER_WITHIN_S):
                await connection.execute(f"LISTEN {self._channel}".encode())
            self.is_listening = True
            self._back()
            while True:
                async for notice in connection.notifies(timeout=_ASK_EVERY_S):
                    self._heard(notice.payload)
                with cut_after(connection, _ANSWER_WITHIN_S):
                    await connection.execute("SELECT 1")
        finally:
            # Without waiting for a server that may not be there.
            connection.pgconn.finish()
