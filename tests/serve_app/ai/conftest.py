"""A hospital's data node on a real PostgreSQL, below the surface."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployments.data.audit.chain import Audit
from deployments.data.database import Database
from deployments.data.records.store import Records
from deployments.data.seal.sealer import Sealer
from tests.deployments.data.audit.conftest import mortal
from tests.deployments.data.records.conftest import audit, house, owner, records, sealer
from tests.serve_app.ai.hospital import Hospital

__all__ = ["audit", "house", "mortal", "owner", "records", "sealer"]


@pytest.fixture
def hospital(
    database: Database, sealer: Sealer, audit: Audit, records: Records, tmp_path: Path
) -> Hospital:
    return Hospital(database, sealer, audit, records, tmp_path)
