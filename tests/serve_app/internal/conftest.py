"""Two cells over one real database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deployments.data.audit.chain import Audit
from deployments.data.database import Database
from deployments.data.records.store import Records
from deployments.data.seal.sealer import Sealer
from tests.deployments.data.records.conftest import Owner, audit, owner, records, sealer
from tests.serve_app.internal.cells import Pair, two_cells

__all__ = ("audit", "owner", "records", "sealer")


@pytest.fixture
async def pair(
    database: Database,
    records: Records,
    audit: Audit,
    sealer: Sealer,
    owner: Owner,
    tmp_path: Path,
) -> AsyncIterator[Pair]:
    async with two_cells(database, records, audit, sealer, tmp_path, owner.rows) as made:
        yield made
