"""The watch at work, in one process of each cell: what it finds is logged, measured and told."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from configs.args import OtherHosts
from deployments.cell import condition
from deployments.cell.state import Home
from deployments.site.models.peer import Peer
from deployments.site.models.store import Store
from deployments.site.models.verification import Pace
from deployments.site.models.watch import READ_BYTES_PER_S, Watch

logger = logging.getLogger("ray.serve")

LOOK_EVERY_S = 5.0
READ_LAP_S = 5.0
SECTION = "models"

Show = Callable[[Mapping[str, float]], None]


class Rounds:
    """Runs a `Watch` until `end`. `show` is given 1 or 0 for each model: faulty or not."""

    def __init__(self, store: Store, home: Home, others: OtherHosts, show: Show) -> None:
        self._stop = threading.Event()
        self.watch = Watch(
            store,
            None if others.peer is None else partial(Peer, others.peer, others.host),
            Pace(READ_BYTES_PER_S, self._stop),
        )
        self._home, self._show = home, show
        self._told: dict[str, str] = {}
        self._shown: set[str] = set()
        self._tasks: list[asyncio.Task[None]] = []

    def begin(self) -> None:
        """Start looking and reading, in threads of the running loop."""
        self._tasks = [asyncio.create_task(self._look()), asyncio.create_task(self._read())]

    async def end(self) -> None:
        """Stop; what is being read is left off within a block."""
        self._stop.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def ailment(self) -> str | None:
        """What is wrong with the rounds themselves, in a sentence; None if nothing is."""
        return "the models' watch has ended" if any(t.done() for t in self._tasks) else None

    def report(self) -> dict[str, Any]:
        """What is watched and what was found, as JSON values."""
        return {
            "models": self.watch.models,
            "faulty": dict(self.watch.faulty),
            "mended": self.watch.mended,
        }

    async def _look(self) -> None:
        while True:
            try:
                await asyncio.to_thread(self.watch.look)
                await asyncio.to_thread(self._publish)
            except Exception as error:
                # Its last word ages, and whoever reads it goes by the age.
                logger.warning("models: a look failed: %s", type(error).__name__)
            await asyncio.sleep(LOOK_EVERY_S)

    async def _read(self) -> None:
        while True:
            try:
                more = await asyncio.to_thread(self.watch.read_next)
            except Exception as error:
                logger.warning("models: a file could not be judged: %s", type(error).__name__)
                more = False
            if not more:
                await asyncio.sleep(READ_LAP_S)

    def _publish(self) -> None:
        faulty = dict(self.watch.faulty)
        for name, reason in faulty.items():
            if self._told.get(name) != reason:
                logger.error("models: %s: %s", name, reason)
        for name in self._told.keys() - faulty.keys():
            logger.warning("models: %s is whole again", name)
        self._told = faulty
        self._shown |= {*self.watch.models, *faulty}
        self._show({name: float(name in faulty) for name in self._shown})
        condition.put(self._home, SECTION, {"faulty": faulty})
