"""The chain on a real PostgreSQL: groups, several processes' worth of writers, what it refuses."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import psycopg
import pytest

from deployments.data.audit.chain import Audit
from deployments.data.database import Database
from tests.deployments.data.audit.acts import chain, entry, soon


@pytest.fixture
async def audit(database: Database, tmp_path: Path):
    opened = Audit(database, tmp_path / "journal")
    await opened.start()
    yield opened
    await opened.close()


async def test_records_by_several_writers_make_one_gapless_chain(
    database: Database, dsns: tuple[str, str], tmp_path: Path
) -> None:
    audits = [Audit(database, tmp_path / str(number)) for number in range(4)]
    for audit in audits:
        await audit.start()
    entries = [entry(number) for number in range(800)]
    await asyncio.gather(
        *(audits[i % 4].record(one, deadline=soon(30)) for i, one in enumerate(entries))
    )
    assert sum(audit.groups for audit in audits) < 100, "no groups formed"
    for audit in audits:
        await audit.close()
    found = chain(dsns[1])
    assert [seq for seq, _ in found] == list(range(1, 801))
    assert {id for _, id in found} == {str(one.id) for one in entries}
    previous = bytes(32)
    with psycopg.connect(dsns[1]) as connection:
        rows = connection.execute(
            "SELECT seq, body, previous, hash FROM audit.entry ORDER BY seq"
        ).fetchall()
        head = connection.execute("SELECT seq, hash FROM audit.head").fetchone()
    for seq, body, before, hashed in rows:
        assert before == previous
        previous = hashlib.sha256(previous + seq.to_bytes(8, "big") + body.encode()).digest()
        assert hashed == previous
    assert head == (800, previous)
