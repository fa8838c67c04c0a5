"""Transactions against a real server: settings, errors, deadlines, and the fate of commits."""

from __future__ import annotations

import time

from deployments.data.database import Database


def soon(seconds: float = 10.0) -> float:
    return time.monotonic() + seconds


async def test_the_settings_hold_for_the_transaction_alone(database: Database) -> None:
    query = (
        "SELECT current_user, current_setting('medrec.organization', true),"
        " current_setting('medrec.practitioner', true),"
        " current_setting('medrec.compartment', true), current_setting('synchronous_commit')"
    )
    async with database.transaction(
        deadline=soon(), organization="h1", practitioner="p1", compartment="care", durable=False
    ) as connection:
        row = await (await connection.execute(query)).fetchone()
    assert row == ("medrec_app", "h1", "p1", "care", "off")
    async with database.transaction(deadline=soon()) as connection:
        row = await (await connection.execute(query)).fetchone()
    assert row == ("medrec_app", "", "", "none", "on")
