"""The other cell, as blobs meet it: sealed files handed over and fetched, every wait bounded.

While it is away nobody waits for it: one question every few seconds finds out when it is back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import suppress

import httpx

from configs.args import OtherHosts
from deployments.data.blobs import files
from deployments.data.blobs.copies import Copies
from deployments.data.blobs.parts import WrongContent
from deployments.data.errors import StoreUnavailable

CONNECT_S = 1.0
ASK_EVERY_S = 2.0
# What the link and the other disk give on any day; a slower peer is not waited for.
LEAST_BYTES_PER_S = 16 * 2**20
CONNECTIONS = 16
_NOBODY = "0" * files.NAME_LENGTH
_AWAY = (502, 503, 504)
_HEADER = "x-medrec-host"

_log = logging.getLogger("medrec.blobs")


class PeerAway(StoreUnavailable):
    """Nobody's fault: the other cell, which may have the content, cannot be reached now."""

    code = "blob_away"


class Peer:
    """The other cell's blobs, for one event loop."""

    def __init__(
        self, url: str, others: OtherHosts, *, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        """`url` is `others.peer`. Connects to nothing."""
        self._wait_s = others.copy_wait_s
        self._client = httpx.AsyncClient(
            base_url=url,
            # The other cell's HAProxy replaces it by the name in our certificate.
            headers={_HEADER: others.host or ""},
            timeout=httpx.Timeout(self._wait_s, connect=CONNECT_S, read=None),
            limits=httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=4),
            transport=transport,
            trust_env=False,
        )
        self._asking: asyncio.Task[None] | None = None

    @property
    def is_away(self) -> bool:
        """Whether it did not answer the last time."""
        return self._asking is not None

    async def close(self) -> None:
        """End the connections."""
        if self._asking is not None:
            self._asking.cancel()
            with suppress(asyncio.CancelledError):
                await self._asking
        await self._client.aclose()

    async def hand(self, name: str, size: int, pieces: AsyncIterator[bytes]) -> bool:
        """Whether the other cell has stored a blob durably; never raises for its failures."""
        if self.is_away:
            return False
        headers = {"content-length": str(size), "content-type": "application/octet-stream"}
        try:
            async with asyncio.timeout(self.patience_s(size)):
                answer = await self._client.put(_path(name), content=pieces, headers=headers)
        except httpx.PoolTimeout:
            return False
        except (httpx.HTTPError, TimeoutError) as error:
            self._lost(type(error).__name__)
            return False
        if answer.status_code in (200, 201):
            return True
        self._refused(answer.status_code, name)
        return False

    async def fetch(self, name: str, size: int, to: Copies, *, set_aside: bool = False) -> None:
        """Store the other cell's file of a blob here, checked by its hash. `Copies.take`.

        Raises `BlobLost` if it has no good one either, `PeerAway` if it cannot be asked, `DiskFull`.
        """
        if self.is_away:
            raise _away()
        try:
            async with (
                asyncio.timeout(self.patience_s(size)),
                self._client.stream("GET", _path(name)) as answer,
            ):
                if answer.status_code != 200:
                    self._refused(answer.status_code, name)
                    raise _away() if answer.status_code in _AWAY else files.lost()
                await to.take(name, answer.aiter_raw(), announced=size, set_aside=set_aside)
        except WrongContent:
            _log.error("blob %s is damaged on the other machine as well", name)
            raise files.lost() from None
        except httpx.PoolTimeout:
            raise _away() from None
        except (httpx.HTTPError, TimeoutError) as error:
            self._lost(type(error).__name__)
            raise _away() from None

    def patience_s(self, size: int) -> float:
        """The longest time that so many bytes may take."""
        return self._wait_s + size / LEAST_BYTES_PER_S

    def _refused(self, status: int, name: str) -> None:
        if status in _AWAY:
            self._lost(f"status {status}")
        elif status != 404:
            _log.warning("the other cell answered %d for blob %s", status, name)

    def _lost(self, reason: str) -> None:
        if self._asking is None:
            _log.warning("the other cell does not take or give blobs: %s", reason)
            self._asking = asyncio.create_task(self._ask())

    async def _ask(self) -> None:
        """End once it answers again."""
        while True:
            await asyncio.sleep(ASK_EVERY_S)
            with suppress(httpx.HTTPError, TimeoutError):
                async with asyncio.timeout(2 * CONNECT_S):
                    answer = await self._client.head(_path(_NOBODY))
                if answer.status_code not in _AWAY:
                    break
        _log.warning("the other cell answers again")
        self._asking = None


def _path(name: str) -> str:
    return f"/internal/blobs/{name}"


def _away() -> PeerAway:
    message = "This content lies on the other machine, which cannot be reached now."
    return PeerAway(message, retry_after_s=ASK_EVERY_S)
