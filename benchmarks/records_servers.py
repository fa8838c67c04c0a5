"""A PostgreSQL with invented patients, and two API processes on it: with the audit and without."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from benchmarks.machine import PROJECT_ROOT
from benchmarks.servers import ServerFailed, free_port
from benchmarks.targets import Target
from configs.args import ApiArgs, RecordsArgs, SignIn
from deployments.cell.state import Home
from deployments.data import postgres
from deployments.data.migrate import migrate
from deployments.data.places import places
from serve_app.cli.demo_load import demo_credentials, load_into

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0
_LOADERS = 4


class Store:
    """What both sides share. Everything is made in a folder of its own and gone afterwards."""

    def __init__(self, args: RecordsArgs | None = None) -> None:
        issuer = "http://127.0.0.1"
        self._args = args or RecordsArgs(demo=True, sign_in=SignIn(issuer=issuer))

    @contextmanager
    def serving(self, patients: int, seed: int) -> Iterator[tuple[Target, Target, str]]:
        """The audited side, the plain one, and a key for both, once the patients are loaded."""
        with tempfile.TemporaryDirectory(prefix="medrec-records-") as folder:
            home = Home(Path(folder).resolve())
            home.prepare()
            with self._postgres(home):
                credentials = self._prepare(home)
                with self._api(home, audit=True) as audited, self._api(home, audit=False) as plain:
                    systems = {str(k): v for k, v in self._args.identifier_systems.items()}
                    asyncio.run(
                        load_into(
                            *(audited.url, credentials, systems, patients, seed, _LOADERS),
                            advance=lambda: None,
                        )
                    )
                    yield audited, plain, str(credentials["api_key"])

    @contextmanager
    def _postgres(self, home: Home) -> Iterator[None]:
        server = postgres.local(home)
        server.initialise()
        process = server.start()
        try:
            server.wait_ready(process)
            yield
        finally:
            server.stop()
            process.wait(STOP_TIMEOUT_S)
            server.discard()

    def _prepare(self, home: Home) -> dict[str, Any]:
        from deployments.data.accounts.demo import ensure_demo

        found = places(self._args, home)
        migrate(found.owner_dsn)
        ensure_demo(found, self._args, home, "http://127.0.0.1")
        return demo_credentials(home.path / "credentials.json")

    @contextmanager
    def _api(self, home: Home, *, audit: bool) -> Iterator[Target]:
        port = free_port()
        records = self._args.model_copy(update={"audit": audit})
        args = ApiArgs(records=records).model_dump_json()
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.records_api", str(home.path), str(port), args],
            cwd=PROJECT_ROOT,
            env=os.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # what goes wrong is on standard error, by ids alone
        )
        target = Target("127.0.0.1", port)
        try:
            _wait(process, target)
            yield target
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_TIMEOUT_S)
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], target: Target) -> None:
    """Until the process answers for itself. Raises `ServerFailed`."""
    give_up_at = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < give_up_at:
        if (code := process.poll()) is not None:
            raise ServerFailed(f"an API process ended with exit code {code} while starting")
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{target.url}/health/live", timeout=2, trust_env=False).is_success:
                return
        time.sleep(0.2)
    raise ServerFailed(f"an API process gave no answer within {START_TIMEOUT_S:.0f} s")
