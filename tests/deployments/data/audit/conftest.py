"""An open audit on a fresh database, and a PostgreSQL of a test's own that it may kill."""

from __future__ import annotations

import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from deployments.cell import state
from deployments.data import postgres
from deployments.data.audit.chain import Audit
from deployments.data.database import Database
from deployments.data.migrate import migrate
from deployments.data.postgres import APPLICATION, OWNER, LocalServer


@pytest.fixture
async def audit(database: Database, tmp_path: Path) -> AsyncIterator[Audit]:
    """An open audit with a journal of its own."""
    opened = Audit(database, tmp_path / "journal")
    await opened.start()
    try:
        yield opened
    finally:
        await opened.close()


class MortalServer:
    """A PostgreSQL that is killed, stopped, frozen and started again."""

    def __init__(self, server: LocalServer) -> None:
        self._server = server
        self._process: subprocess.Popen[bytes] | None = None
        self.dsn, self.owner_dsn = server.dsn(APPLICATION), server.dsn(OWNER)

    def start(self) -> None:
        """Start it and wait until it takes connections; after a kill it recovers first."""
        self._process = self._server.start()
        self._server.wait_ready(self._process)

    def kill(self) -> None:
        """SIGKILL for every process of it at once: what no disk has yet is gone."""
        assert self._process is not None
        self._send(signal.SIGKILL)
        self._process.wait(10)

    def freeze(self) -> None:
        """Nothing answers any more, and no connection breaks."""
        self._send(signal.SIGSTOP)

    def thaw(self) -> None:
        """The end of `freeze`."""
        self._send(signal.SIGCONT)

    def stop(self) -> None:
        """The end, whatever state it is in."""
        if self._process is not None and self._process.poll() is None:
            self.thaw()
        left = self._server.stop()
        if self._process is not None:
            self._process.wait(10)
        self._server.discard()
        assert not left

    def _send(self, number: signal.Signals) -> None:
        for process in self._tree():
            # A backend may end between being listed and being signalled.
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def _tree(self) -> list[psutil.Process]:
        assert self._process is not None
        postmaster = psutil.Process(self._process.pid)
        return [postmaster, *postmaster.children()]


@pytest.fixture
def mortal() -> Iterator[MortalServer]:
    """A server of this test's own, migrated and running."""
    # Not below pytest's own folder: PostgreSQL's user could not reach its data there.
    with tempfile.TemporaryDirectory(prefix="medrec-") as folder:
        home = state.Home(Path(folder).resolve())
        home.prepare()
        server = postgres.local(home)
        server.initialise()
        mortal = MortalServer(server)
        mortal.start()
        try:
            migrate(mortal.owner_dsn)
            yield mortal
        finally:
            mortal.stop()
