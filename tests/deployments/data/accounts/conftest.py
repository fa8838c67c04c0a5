"""The places of a fresh installation on a migrated database."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployments.data.places import Places


@pytest.fixture
def at(dsns: tuple[str, str], tmp_path: Path) -> Places:
    """The places; nothing lies in them yet."""
    folders = [tmp_path / name for name in ("secrets", "blobs", "journal")]
    for folder in folders:
        folder.mkdir(mode=0o700)
    return Places(dsns[0], dsns[1], *folders)
