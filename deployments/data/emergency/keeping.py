"""The custodian's side of the copy: every few seconds in a thread, told in the cell's condition."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from typing import Any

from deployments.cell import condition
from deployments.cell.state import Home
from deployments.data.emergency.copy import Condition, Copy

SECTION = "copy"
EVERY_S = 5.0
# A first snapshot of a large site takes minutes; a look takes a moment.
DEADLINE_S = 600.0


class CopyKeeper:
    """Keeps one copy; `run` is a custodian's job."""

    def __init__(self, copy: Copy, home: Home) -> None:
        self._copy, self._home = copy, home
        # A thread outlives a job that was broken off; the next one must not come on top of it.
        self._turn = threading.Lock()

    async def run(self, deadline: float) -> dict[str, int]:
        """See to the copy and write down how it is."""
        found = await asyncio.to_thread(self._keep)
        if found is None:
            return {"busy": 1}
        age_s = -1 if found.age_s is None else int(found.age_s)
        return {"age_s": age_s, "patients": found.patients}

    def _keep(self) -> Condition | None:
        if not self._turn.acquire(blocking=False):
            return None
        try:
            found = self._copy.keep()
            condition.put(self._home, SECTION, as_told(found))
        finally:
            self._turn.release()
        return found


def as_told(found: Condition) -> Mapping[str, Any]:
    """The section `copy` of a cell's condition."""
    return {
        "age_s": found.age_s,
        "state": found.state,
        "patients": found.patients,
        "reason": found.reason,
    }
