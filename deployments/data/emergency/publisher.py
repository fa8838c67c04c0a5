"""What a site does for the emergency copy: the settings of its PostgreSQL, and its heartbeat."""

from __future__ import annotations

import time

from deployments.data.database import Database

PUBLICATION = "emergency"
ROLE = "medrec_copy"
SLOT_PREFIX = "medrec_emergency_"
HEARTBEAT_S = 5.0
# WAL that an emergency cell which is away may hold back; beyond it the slot is lost and the copy is
# taken anew. At the 25 MB an hour of a busy hospital's records that is days.
MAX_SLOT_WAL_MB = 2048


def server_settings() -> dict[str, str]:
    """PostgreSQL's parameters of a publisher, every cell of the site alike."""
    return {
        "wal_level": "logical",
        "max_replication_slots": "10",
        "max_wal_senders": "10",
        "max_slot_wal_keep_size": f"{MAX_SLOT_WAL_MB}MB",
        "wal_sender_timeout": "10s",
    }


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
