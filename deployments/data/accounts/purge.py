"""What sign-in has no more use for is deleted, a bounded number of rows at a time."""

from __future__ import annotations

from deployments.data.database import Database

AT_MOST = 5000


async def purge(database: Database, *, deadline: float) -> dict[str, int]:
    """Delete spent attempts, challenges, refresh tokens and sessions. Rows by kind."""
    async with database.transaction(deadline=deadline, durable=False) as connection:
        cursor = await connection.execute("SELECT what, rows FROM accounts.purge(%s)", [AT_MOST])
        return {str(what): int(rows) for what, rows in await cursor.fetchall()}
