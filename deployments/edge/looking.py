"""Fills a steward's sight: one task for each thing to ask, each with its own deadline."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

import psutil

from deployments.edge import runtime
from deployments.edge.sight import Sight
from deployments.site.calling import Caller, CallFailed
from deployments.site.plan import HostPlan, Plan

_log = logging.getLogger("medrec.steward")

LAP_S = 0.5
ASK_EVERY_S = 2.0
_TIMEOUT_S = 1.5
_SLOW_S = 4.0


class Looker:
    """The tasks that look, for one steward. `start` begins, `close` ends."""

    def __init__(self, plan: Plan, own: HostPlan, sight: Sight, caller: Caller) -> None:
        self._plan, self._own, self._sight, self._caller = plan, own, sight, caller
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to look."""
        hosts = [*self._plan.cells, *([self._plan.cloud] if self._plan.cloud else [])]
        asked: list[tuple[float, Callable[[], Awaitable[None]]]] = [(LAP_S, self._haproxy)]
        asked += [(ASK_EVERY_S, self._condition_of(host)) for host in hosts]
        asked += [(ASK_EVERY_S, self._patroni), (ASK_EVERY_S, self._etcd)]
        asked += [(LAP_S * 2, self._database_of(host)) for host in self._plan.cells]
        asked += [(LAP_S * 2, self._other_of(e)) for e in self._plan.edges if e != self._own]
        self._tasks = [asyncio.create_task(self._keep(every_s, look)) for every_s, look in asked]

    async def close(self) -> None:
        """End every task."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _keep(self, every_s: float, look: Callable[[], Awaitable[None]]) -> None:
        while True:
            with suppress(CallFailed, runtime.RuntimeUnavailable):
                try:
                    await look()
                except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                    # What a host says may be damaged; its age then tells.
                    _log.warning("steward: a look failed: %s", type(error).__name__)
            await asyncio.sleep(every_s)

    async def _haproxy(self) -> None:
        try:
            found = await asyncio.to_thread(runtime.servers, self._own.haproxy_socket)
        except runtime.RuntimeUnavailable:
            self._sight.servers = []
            raise
        self._sight.servers = found
        self._sight.is_active = self._has_address()
        self._sight.has_reached |= any(self._sight.is_up(name) for name in self._plan.site.cells)

    def _has_address(self) -> bool:
        """Whether this edge has the clients' address now; where none is shared, every edge has."""
        shared = self._plan.site.edge.address
        if shared is None or self._plan.ground == "loopback":
            return True
        wanted = shared.partition("/")[0]
        found = psutil.net_if_addrs().values()
        return any(entry.address == wanted for entries in found for entry in entries)

    def _condition_of(self, host: HostPlan) -> Callable[[], Awaitable[None]]:
        async def look() -> None:
            path = "/internal/condition"
            found = await self._caller.ask(host, host.ports.api_tls, path, timeout_s=_SLOW_S)
            self._sight.conditions[host.name].tell(found)

        return look

    def _other_of(self, edge: HostPlan) -> Callable[[], Awaitable[None]]:
        async def look() -> None:
            found = await self._caller.ask(
                edge, edge.ports.steward, "/status", timeout_s=_TIMEOUT_S
            )
            self._sight.other.tell(found)

        return look

    def _database_of(self, host: HostPlan) -> Callable[[], Awaitable[None]]:
        async def look() -> None:
            # It asks its PostgreSQL for this, and says nothing while that one hangs.
            found = await self._caller.ask(
                host, host.ports.patroni, "/patroni", timeout_s=_TIMEOUT_S
            )
            self._sight.databases[host.name].tell(dict(found))

        return look

    async def _patroni(self) -> None:
        for cell in self._plan.cells:
            with suppress(CallFailed):
                found = await self._caller.ask(
                    cell, cell.ports.patroni, "/cluster", timeout_s=_TIMEOUT_S
                )
                self._sight.patroni.tell(found)
                return

    async def _etcd(self) -> None:
        for host in self._plan.etcd:
            try:
                found = await self._caller.ask(
                    host, host.ports.etcd_client, "/health", timeout_s=_TIMEOUT_S
                )
                self._sight.etcd[host.name] = str(found.get("health")).lower() == "true"
            except CallFailed:
                self._sight.etcd[host.name] = False
