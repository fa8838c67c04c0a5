"""What the custodian forgets of the records: old idempotency keys and long ended relationships."""

from __future__ import annotations

from dataclasses import dataclass

from deployments.data.database import Database
from deployments.data.records.idempotency import KEPT_S

# The audit tells for ever who saw what; of the relationships themselves only the recent matter.
CARE_KEPT_S = 90 * 86400.0


@dataclass(frozen=True, slots=True)
class Purged:
    """How many rows are gone."""

    keys: int
    relationships: int


async def purge(
    database: Database,
    *,
    deadline: float,
    keys_s: float = KEPT_S,
    care_s: float = CARE_KEPT_S,
) -> Purged:
    """Forget what is older, of every organisation; never a key younger than an hour."""
    async with database.transaction(deadline=deadline) as connection:
        found = await connection.execute("SELECT * FROM records.purge(%s, %s)", (keys_s, care_s))
        row = await found.fetchone()
    return Purged(int(row[0]), int(row[1])) if row else Purged(0, 0)
