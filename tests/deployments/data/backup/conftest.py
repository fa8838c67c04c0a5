"""A site that archives, once for all tests of a module; a bucket service on loopback."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer

from deployments.data.migrate import migrate
from tests.conftest import memory_folder
from tests.deployments.data.backup.world import World, world


@pytest.fixture(scope="module")
def site() -> Iterator[World]:
    """A running PostgreSQL with every migration, archiving to a folder. Backups pile up in it."""
    with tempfile.TemporaryDirectory(prefix="medrec-b-", dir=memory_folder()) as folder:
        made = world(Path(folder).resolve())
        try:
            made.start()
            migrate(made.dsn)
            yield made
        finally:
            made.stop()


@pytest.fixture
def scratch() -> Iterator[Path]:
    """An empty folder in memory."""
    with tempfile.TemporaryDirectory(prefix="medrec-r-", dir=memory_folder()) as folder:
        yield Path(folder).resolve()


@pytest.fixture(scope="session")
def bucket_service() -> Iterator[str]:
    """The address of a bucket service of S3's kind."""
    service = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    service.start()
    host, port = service.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        service.stop()


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a bucket's client finds in its environment."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_REGION", "sa-east-1")
