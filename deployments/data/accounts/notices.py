"""Revocations as they happen: the database tells every replica what not to remember any longer.

One connection of its own that listens. While it is down, what is remembered ages within seconds
as it would without it; when it is back, everything is looked up again, for a notice may be missed.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Protocol

import psycopg

CHANNEL = "medrec_accounts"
_SESSION = "session "
# A server that died without a word is noticed by asking it something now and then.
_ASK_EVERY_S = 15.0
_ANSWER_WITHIN_S = 5.0
_PAUSES_S = (0.5, 1.0, 2.0, 5.0)
_log = logging.getLogger("medrec.accounts")


class Rememberer(Protocol):
    """Who remembers whom it knows: the authority."""

    def session_ended(self, session: str) -> None:
        """One session is over."""

    def changed(self) -> None:
        """Anything may have changed."""


class Notices:
    """Listens for as long as the replica runs."""

    def __init__(self, dsn: str, authority: Rememberer) -> None:
        self._dsn, self._authority = dsn, authority
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
                    _log.warning("accounts' notices are lost: %s", type(error).__name__)
                self.is_listening = False
            await asyncio.sleep(_PAUSES_S[min(failures, len(_PAUSES_S) - 1)])
            failures += 1

    async def _listen(self) -> None:
        connection = await psycopg.AsyncConnection.connect(
            self._dsn, autocommit=True, connect_timeout=3, application_name="medrec-notices"
        )
        try:
            await connection.execute(f"LISTEN {CHANNEL}")
            self.is_listening = True
            self._authority.changed()
            while True:
                async for notice in connection.notifies(timeout=_ASK_EVERY_S):
                    self._heard(notice.payload)
                async with asyncio.timeout(_ANSWER_WITHIN_S):
                    await connection.execute("SELECT 1")
        finally:
            # Without waiting for a server that may not be there.
            connection.pgconn.finish()

    def _heard(self, payload: str) -> None:
        if payload.startswith(_SESSION):
            self._authority.session_ended(payload.removeprefix(_SESSION))
        else:
            self._authority.changed()
