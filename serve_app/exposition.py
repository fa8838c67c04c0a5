"""`/metrics`: Prometheus text for the whole cell, relayed from the node's Ray metrics agent.

Several API replicas answer behind one address, so a replica's own registry would show a random
part; the agent has the measurements of every process of the node.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

import httpx
import ray

from serve_app.errors import HttpError

TIMEOUT_S = 8.0
MAX_BYTES = 32 * 2**20
FRESH_S = 1.0
# Ray puts its own name before every metric; ours are known by theirs.
RENAMED = (b"ray_medrec_", b"medrec_")


class MetricsUnavailable(HttpError):
    """The operator's concern: the node's metrics agent does not answer."""

    status = 503
    type = "server_error"
    code = "metrics_unavailable"


@dataclass(frozen=True, slots=True)
class Page:
    """One scrape of the agent."""

    body: bytes
    content_type: str
    taken_s: float


def agent_address() -> str:
    """`host:port` of this node's metrics agent, as Ray's control store knows it; blocks."""
    if not ray.is_initialized():
        # Ray's calls would start a cluster of their own.
        raise LookupError("this process has no Ray")
    here = ray.get_runtime_context().get_node_id()
    for node in ray.nodes():
        if node["NodeID"] == here and node["Alive"]:
            return f"{node['NodeManagerAddress']}:{node['MetricsExportPort']}"
    raise LookupError("this node is not in Ray's list")


class Exposition:
    """Scrapes the agent, one scrape at a time, at most once in `FRESH_S` seconds."""

    def __init__(
        self,
        find_agent: Callable[[], str] = agent_address,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._find_agent = find_agent
        self._transport = transport
        self._page: Page | None = None
        self._turn = asyncio.Lock()

    async def page(self) -> Page:
        """The exposition; raises `MetricsUnavailable` within `TIMEOUT_S` seconds."""
        try:
            async with asyncio.timeout(TIMEOUT_S), self._turn:
                if self._page is None or time.monotonic() - self._page.taken_s > FRESH_S:
                    self._page = await self._scrape()
                return self._page
        except (TimeoutError, OSError, LookupError, httpx.HTTPError, ray.exceptions.RayError):
            message = "The metrics agent of this node does not answer."
            raise MetricsUnavailable(message, retry_after_s=5.0) from None

    async def _scrape(self) -> Page:
        address = await asyncio.to_thread(self._find_agent)
        client = httpx.AsyncClient(transport=self._transport, trust_env=False, timeout=TIMEOUT_S)
        async with client, client.stream("GET", f"http://{address}/metrics") as response:
            response.raise_for_status()
            chunks: list[bytes] = []
            size = 0
            async for chunk in response.aiter_bytes():
                size += len(chunk)
                if size > MAX_BYTES:
                    raise LookupError("the exposition is larger than can be relayed")
                chunks.append(chunk)
        body = b"".join(chunks).replace(*RENAMED)
        content_type = response.headers.get("content-type", "text/plain; version=0.0.4")
        return Page(body, content_type, time.monotonic())
