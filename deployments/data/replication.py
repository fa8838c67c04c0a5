"""Measures how far the standbys are behind, and tells it to the cell's condition."""

from __future__ import annotations

from deployments.cell import condition
from deployments.cell.state import Home
from deployments.data.database import Database

_QUERY = b"SELECT standby, synchronous, lag_ms, lag_bytes FROM public.medrec_replication()"


async def watch(database: Database, home: Home, *, deadline: float) -> dict[str, int]:
    """One look; the figures of the custodian's job: standbys, the synchronous, the longest lag.

    Raises `DataError` while the database is away: then the condition grows old, and that tells.
    """
    async with database.transaction(deadline=deadline, read_only=True) as connection:
        rows = await (await connection.execute(_QUERY)).fetchall()
    found = {
        "lag_ms": {row[0]: round(float(row[2]), 1) for row in rows},
        "lag_bytes": {row[0]: int(row[3]) for row in rows},
        "synchronous": [row[0] for row in rows if row[1]],
    }
    condition.put(home, "database", found)
    return {
        "standbys": len(rows),
        "synchronous": sum(bool(row[1]) for row in rows),
        "lag_ms": int(max((row[2] for row in rows), default=0)),
    }
