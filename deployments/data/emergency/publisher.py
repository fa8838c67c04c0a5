"""What a site does for the emergency copy: it leaves the copy's slot alone, and says that it lives.

PostgreSQL's settings of a site (`wal_level` and the like) are in deployments/site/patroni.py.
"""

from __future__ import annotations

import time

from deployments.data.database import Database

PUBLICATION = "emergency"
ROLE = "medrec_copy"
SLOT_PREFIX = "medrec_emergency_"
HEARTBEAT_S = 5.0


def ignored_slots(database: str) -> list[dict[str, str]]:
    """Patroni's `ignore_slots`: it drops slots that it does not know, and this one is ours.

    The slot stays with the primary that it was made on: after a failover the copy is taken anew.
    """
    return [{"type": "logical", "database": database, "plugin": "pgoutput"}]


async def beat(database: Database, *, deadline: float) -> dict[str, int]:
    """Say that the site lives, and when; by it the copy knows its age. Not durable by itself."""
    async with database.transaction(deadline=deadline, durable=False) as connection:
        await connection.execute("UPDATE emergency.heartbeat SET at = clock_timestamp()")
    return {"at": int(time.time())}
