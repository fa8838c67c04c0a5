"""Watches for two writable primaries: asks both PostgreSQL servers at once, again and again.

A server counts as writable if it says that it is no standby and acknowledges a commit. A frozen
one that wakes up still takes itself for the primary, and acknowledges nothing without its standby.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import psycopg

from deployments.data.cutting import cut_off
from deployments.site.ground import Namespaces, enter
from deployments.site.here import Place
from deployments.site.passwords import FILE, SUPERUSER, read

PERIOD_S = 0.25
_COMMIT_TIMEOUT_S = 1.0
# One round trip says what it is; the second commits something that is worth a record of the log.
_IS_STANDBY = "SELECT pg_is_in_recovery()"
_COMMIT = "SELECT pg_logical_emit_message(true, 'medrec-drill', 'probe')"


class Primaries:
    """The watch, in threads of its own. `both_s` are the seconds with two writable primaries."""

    def __init__(self, place: Place) -> None:
        password = read(place.folder / FILE).of(SUPERUSER)
        self._cells = place.plan.cells
        self._namespaces: Namespaces | None = place.namespaces
        self._password = password
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True)]
        self.both_s = 0.0
        self.samples = 0

    def start(self) -> None:
        """Begin to ask."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End the watch."""
        self._ending.set()
        for thread in self._threads:
            thread.join(10)

    def _run(self) -> None:
        pools = [ThreadPoolExecutor(1) for _ in self._cells]
        if self._namespaces is not None:
            for pool, cell in zip(pools, self._cells, strict=True):
                pool.submit(enter, self._namespaces.name(cell.name)).result()
        last = time.monotonic()
        while not self._ending.wait(PERIOD_S):
            asked = [
                pool.submit(self._is_writable, cell.ports.postgres)
                for pool, cell in zip(pools, self._cells, strict=True)
            ]
            writable = [answer.result() for answer in asked]
            now = time.monotonic()
            if sum(writable) > 1:
                self.both_s += now - last
            last = now
            self.samples += 1
        for pool in pools:
            pool.shutdown(wait=False)

    def _is_writable(self, port: int) -> bool:
        """Whether the server acknowledges a commit within a second."""
        connection = None
        try:
            connection = psycopg.connect(
                host="127.0.0.1",
                port=port,
                user=SUPERUSER,
                password=self._password,
                dbname="postgres",
                connect_timeout=2,
                autocommit=True,
                tcp_user_timeout=1500,
            )
            row = connection.execute(_IS_STANDBY).fetchone()
            if row is None or row[0]:
                return False
            cut = threading.Timer(_COMMIT_TIMEOUT_S, cut_off, [connection])
            cut.start()
            try:
                connection.execute(_COMMIT)
            finally:
                cut.cancel()
        except psycopg.Error:
            return False
        finally:
            if connection is not None:
                with suppress(psycopg.Error):
                    connection.close()
        return True
