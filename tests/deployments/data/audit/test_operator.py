"""An operator's act is in the chain before the command reports success."""

from __future__ import annotations

from pathlib import Path

import orjson
import psycopg
import pytest

from deployments.data.audit.operator import operator_audit, record, user
from deployments.data.errors import DataError
from deployments.data.places import Places
from tests.deployments.data.audit.acts import chain


def places(dsns: tuple[str, str], folder: Path) -> Places:
    return Places(dsns[0], dsns[1], folder / "secrets", folder / "blobs", folder / "journal")


def test_an_act_is_on_record_when_record_returns(dsns: tuple[str, str], tmp_path: Path) -> None:
    record(places(dsns, tmp_path), "seal", organization="hospital", act="rotate", rows=12)
    with psycopg.connect(dsns[1]) as owner:
        row = owner.execute(
            "SELECT action, actor, role, organization, body FROM audit.entry"
        ).fetchone()
    assert row is not None
    assert row[:4] == ("seal", f"operator:{user()}", "admin", "hospital")
    told = orjson.loads(row[4])
    assert (told["actor_kind"], told["details"]) == ("operator", {"act": "rotate", "rows": 12})


async def test_an_act_within_a_transaction_is_on_record_with_it(
    dsns: tuple[str, str], tmp_path: Path
) -> None:
    async with operator_audit(places(dsns, tmp_path), "hospital") as operator:
        deadline = operator.caller.deadline
        async with operator.database.transaction(deadline=deadline) as connection:
            staged = await operator.stage(connection, "erase", patient="p1")
        await operator.settle([staged])
        await operator.record("export", patient="p1")
    assert len(chain(dsns[1])) == 2


def test_without_the_database_the_act_is_not_reported_as_done(tmp_path: Path) -> None:
    nowhere = f"host={tmp_path} dbname=medrec user=medrec_app"
    with pytest.raises(DataError):
        record(places((nowhere, nowhere), tmp_path), "seal", organization="hospital")
