"""Questions to a site's hosts from one of its edges, wherever the asking process stands."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from deployments.cell.state import CellError
from deployments.edge.decision import Order
from deployments.site.calling import Caller, CallFailed
from deployments.site.ground import Namespaces, enter
from deployments.site.plan import HostPlan, Plan

T = TypeVar("T")

_TIMEOUT_S = 3.0


class Inside:
    """One host's place in the network: what is run here is run as if on that host."""

    def __init__(self, plan: Plan, host: HostPlan, namespaces: Namespaces | None) -> None:
        self._plan, self._host = plan, host
        # One thread: a namespace belongs to a thread, and this one never leaves it.
        self._thread = ThreadPoolExecutor(1)
        if namespaces is not None:
            self._thread.submit(enter, namespaces.name(host.name)).result()

    def close(self) -> None:
        """Give up the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def run(self, work: Callable[[Caller], Awaitable[T]]) -> T:
        """Run a coroutine with the host's caller. Raises what it raises."""

        async def whole() -> T:
            caller = Caller(self._host.tls)
            try:
                return await work(caller)
            finally:
                await caller.close()

        return self._thread.submit(lambda: asyncio.run(whole())).result()

    def statuses(self) -> dict[str, Any]:
        """What each edge's steward tells; None of one that does not answer."""

        async def one(caller: Caller, edge: HostPlan) -> Any:
            try:
                return await caller.ask(edge, edge.ports.steward, "/status", timeout_s=_TIMEOUT_S)
            except CallFailed:
                return None

        async def all_of_them(caller: Caller) -> dict[str, Any]:
            edges = self._plan.edges
            found = await asyncio.gather(*(one(caller, edge) for edge in edges))
            return {edge.name: told for edge, told in zip(edges, found, strict=True)}

        return self.run(all_of_them)

    def order(self, order: Order) -> str:
        """Give an order to the active edge; the other follows it. The reason that is told.

        Raises `CellError` if no edge answers, or with the reason of a refusal.
        """
        statuses = self.statuses()
        active = [name for name, told in statuses.items() if told is not None and told["active"]]
        if not active:
            raise CellError("no edge that has the clients' address answers")
        edge = self._plan.hosts[active[0]]
        body = {"kind": order.kind, "cell": order.cell, "is_forced": order.is_forced}

        async def send(caller: Caller) -> Any:
            port = edge.ports.steward
            return await caller.ask(edge, port, "/orders", timeout_s=10.0, body=body)

        try:
            return str(self.run(send)["reason"])
        except CallFailed as error:
            raise CellError(str(error)) from error

    def cluster(self) -> dict[str, Any]:
        """Patroni's members by name, as any of them tells. Raises `CellError`."""

        async def look(caller: Caller) -> Any:
            for cell in self._plan.cells:
                try:
                    return await caller.ask(
                        cell, cell.ports.patroni, "/cluster", timeout_s=_TIMEOUT_S
                    )
                except CallFailed:
                    continue
            raise CellError("Patroni answers on no cell")

        return {member["name"]: member for member in self.run(look).get("members", ())}

    def switch_over(self, leader: str, candidate: str) -> str:
        """Have Patroni move the primary. Its words. Raises `CellError`."""
        body = {"leader": leader, "candidate": candidate}
        host = self._plan.hosts[leader]

        async def send(caller: Caller) -> Any:
            return await caller.post_text(
                host, host.ports.patroni, "/switchover", body, timeout_s=60.0
            )

        try:
            return str(self.run(send))
        except CallFailed as error:
            raise CellError(str(error)) from error
