"""Keeps every API key in mind, so that machine clients are known on a cell that they never came to.

Without it a failover of a cell and of the database at once would keep them waiting for what needs
neither: a key is known by its hash alone, and only the database has that.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from deployments.data.accounts.authority import Authority
from deployments.data.errors import DataError

# Well within the time that what is known serves (`remembered.STALE_S`).
EVERY_S = 60.0
TIMEOUT_S = 2.0


class Learning:
    """A part of an API replica; see serve_app/services.py."""

    def __init__(self, authority: Authority) -> None:
        self._authority = authority
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin; waits for no database."""
        self._task = asyncio.create_task(self._run(), name="api-keys")

    async def close(self) -> None:
        """Stop."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _run(self) -> None:
        while True:
            pause_s = EVERY_S
            try:
                await self._authority.learn_keys(deadline=time.monotonic() + TIMEOUT_S)
            except DataError:
                pause_s = TIMEOUT_S
            await asyncio.sleep(pause_s)
