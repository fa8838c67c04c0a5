"""Every refusal for want of a right is on record before the caller is told of it.

Nobody knows who asks without credentials, and anybody can do so without end: from one address a
few of these are recorded one by one in a minute, the rest as a count in the next entry.
"""

from __future__ import annotations

import time
from collections import OrderedDict

from starlette.types import Scope

from deployments.data.accounts.origin import Journal
from deployments.data.audit.entry import entry_of
from serve_app.auth.guard import CALLER, origin_of

PERIOD_S = 60.0
ANONYMOUS_PER_PERIOD = 10
MAX_ADDRESSES = 4096


class Denials:
    """Writes the refusals of one replica."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        # Of each address: when its period began, what it recorded since, what it only counted.
        self._periods: OrderedDict[str, tuple[float, int, int]] = OrderedDict()

    async def record(self, scope: Scope, status: int, code: str) -> None:
        """Put a refusal on record; raises `StoreUnavailable` where that is not possible."""
        route = getattr(scope.get("route"), "path", "")
        details = {
            "status": status,
            "code": code,
            "method": scope.get("method", "GET"),
            "route": route,
        }
        caller = scope.get(CALLER)
        if caller is not None:
            await self._journal.journal(entry_of(caller, "access", "denied", **details))
            return
        origin = origin_of(scope)
        unrecorded = self._due(origin.network, time.monotonic())
        if unrecorded is not None:
            entry = origin.entry("access", "denied", None, unrecorded=unrecorded, **details)
            await self._journal.journal(entry)

    def _due(self, address: str, now_s: float) -> int | None:
        """None if this refusal is only counted; otherwise how many were before it."""
        began_s, recorded, counted = self._periods.pop(address, (now_s, 0, 0))
        if now_s - began_s >= PERIOD_S:
            began_s, recorded = now_s, 0
        due = recorded < ANONYMOUS_PER_PERIOD
        kept = (recorded + 1, 0) if due else (recorded, counted + 1)
        self._periods[address] = (began_s, *kept)
        if len(self._periods) > MAX_ADDRESSES:
            self._periods.popitem(last=False)
        return counted if due else None
