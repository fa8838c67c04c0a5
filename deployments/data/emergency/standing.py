"""How things stand here, as every request asks: remembered for a second, asked again before a no.

While the database is away the last answer holds; an activation that was known goes on to its expiry.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

from deployments.data.emergency.activation import Activation, Activations
from deployments.data.errors import DataError
from deployments.edge.modes import Mode, State

FRESH_S = 1.0
# Who is refused asks again at once: an activation must be seen by every replica as it happens.
REFUSED_FRESH_S = 0.2
_LOOKUP_S = 2.0


class Standing:
    """The mode and state of this cell; `activations` None on a cell that is no emergency cell."""

    def __init__(
        self, activations: Activations | None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._activations, self._clock = activations, clock
        self._last: Activation | None = None
        self._looked_s = float("-inf")
        self._turn = asyncio.Lock()

    @property
    def mode(self) -> Mode:
        """What this cell is for."""
        return "normal" if self._activations is None else "emergency"

    def forget(self) -> None:
        """Look again at the next question: something was changed here."""
        self._looked_s = float("-inf")

    async def last(self) -> Activation | None:
        """The newest activation, as it is known."""
        if self._activations is not None and self._clock() - self._looked_s >= self._fresh_s:
            async with self._turn:
                if self._clock() - self._looked_s >= self._fresh_s:
                    await self._look(self._activations)
        return self._last

    async def state(self) -> State:
        """What this cell does now."""
        if self._activations is None:
            return "normal"
        found = await self.last()
        return "standby" if found is None else found.state(datetime.now(UTC))

    @property
    def _fresh_s(self) -> float:
        open_now = self._last is not None and self._last.ended_at is None
        return FRESH_S if open_now else REFUSED_FRESH_S

    async def _look(self, activations: Activations) -> None:
        # While the database is away what was known holds, and the request itself will meet it.
        with suppress(DataError):
            self._last = await activations.last(deadline=time.monotonic() + _LOOKUP_S)
        self._looked_s = self._clock()
