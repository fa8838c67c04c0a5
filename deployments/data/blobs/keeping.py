"""What each cell's custodian does for the blobs of its folder, and where it tells of it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from configs.args import RecordsArgs
from deployments.cell import condition
from deployments.cell.state import Home
from deployments.data.blobs.copies import Copies
from deployments.data.blobs.disk import Disk
from deployments.data.blobs.peer import Peer
from deployments.data.blobs.reconcile import Reconciler
from deployments.data.blobs.threads import DiskThreads
from deployments.data.database import Database


class Keeper:
    """Reconciles one folder, lap by lap. Made in the event loop that it works in."""

    def __init__(self, args: RecordsArgs, database: Database, folder: Path, home: Home) -> None:
        others = args.others
        self._home = home
        self._threads = DiskThreads()
        self._peer = Peer(others.peer, others) if others.peer else None
        copies = Copies(Disk(folder, int(args.disk_reserve_gb * 2**30)), self._threads)
        self._reconciler = Reconciler(database, copies, self._peer, others.host)

    async def lap(self) -> dict[str, int]:
        """Compare and mend once. Raises a `DataError` while the database cannot be asked."""
        await self._reconciler.look()
        # Fetching may take long: what is missing is known before.
        await self._tell()
        await self._reconciler.mend()
        return await self._tell()

    async def close(self) -> None:
        """End connections and threads."""
        if self._peer is not None:
            await self._peer.close()
        self._threads.close()

    async def _tell(self) -> dict[str, int]:
        figures = self._reconciler.figures()
        await asyncio.to_thread(condition.put, self._home, "blobs", figures)
        return figures
