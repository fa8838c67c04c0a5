"""Tells whoever is connected when the emergency cell begins to serve or ends: every replica its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from deployments.data.emergency.standing import FRESH_S, Standing

Tell = Callable[[Mapping[str, Any]], object]


class ModeWatch:
    """A part of an emergency cell's replica; on a cell of the site there is nothing to watch."""

    def __init__(self, standing: Standing, tell: Tell) -> None:
        self._standing, self._tell = standing, tell
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to look, in the background."""
        if self._standing.mode == "emergency":
            self._task = asyncio.create_task(self._watch(), name="mode-watch")

    async def close(self) -> None:
        """Stop looking."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _watch(self) -> None:
        before = await self._standing.state()
        while True:
            await asyncio.sleep(FRESH_S)
            state = await self._standing.state()
            if state != before:
                self._tell({"type": "mode.changed", "mode": self._standing.mode, "state": state})
            before = state
