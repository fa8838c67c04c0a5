"""Plain HTTP exchanges with a FHIR server, over the same cheap connections as the chats."""

from __future__ import annotations

import asyncio

from benchmarks.outcome import OVERLOADED
from benchmarks.targets import Target
from benchmarks.wire import CONNECT_TIMEOUT_S, ChatClient, Connection

# An answer of the store that asks to come back: the chain's or the pool's queue was full.
_BUSY = (429, 503)


class Exchange(Connection):
    """One connection; an answer counts as complete when its status is 2xx and it came whole."""

    def on_body(self, body: bytes) -> None:
        """Answers are counted, not read."""

    def _finish(self) -> None:
        status = self._parser.get_status_code() if self._answered else 0
        if status == 429:
            self._fail(OVERLOADED)
        elif status == 0:
            self._fail("reset")
        elif not 200 <= status < 300:
            self._fail(f"http {status}")
        self._settle()


class RecordsClient(ChatClient):
    """Sends prepared requests to one target; `chat`'s rules for time limits and reconnecting hold.

    A repeated write carries its idempotency key, so that it happens once.
    """

    def __init__(self, target: Target, timeout_s: float) -> None:
        super().__init__(target, "", timeout_s)

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(min(CONNECT_TIMEOUT_S, self.timeout_s)):
            _, connection = await loop.create_connection(
                Exchange, self.target.host, self.target.port
            )
        return connection
