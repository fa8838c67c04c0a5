"""Two cells as blobs see them: two folders, two servers on loopback, one real database."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from fastapi import APIRouter, FastAPI

from benchmarks.servers import free_port
from configs.args import Limits, OtherHosts, RecordsArgs
from deployments.cell.state import Home
from deployments.data.audit.chain import Audit
from deployments.data.blobs import Blobs, files
from deployments.data.blobs.keeping import Keeper
from deployments.data.database import Database
from deployments.data.records.store import Records
from deployments.data.seal.sealer import Sealer
from serve_app.fhir.binary import binary_routes
from serve_app.internal.blobs import blob_routes
from serve_app.services import Services
from serve_app.surface import create_app
from tests.conftest import IN_THE_CLEAR
from tests.deployments.data.records import people
from tests.serve_app.fake_language import FakeLanguage
from tests.serve_app.fhir.conftest import NoChats, Tokens

NAMES = ("mac-a", "mac-b")
MAX_JSON = 200_000
# Long, for a machine that is busy with other tests.
WAIT_S = 10.0


@dataclass
class Cell:
    """One of the two: its folder, its API, and its custodian's part in blobs."""

    name: str
    port: int
    home: Home
    app: FastAPI
    blobs: Blobs
    keeper: Keeper
    patient: str
    _server: uvicorn.Server | None = None
    _serving: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def folder(self) -> Path:
        return self.home.path / "blobs"

    async def begin(self) -> None:
        """Listen on the cell's port."""
        config = uvicorn.Config(
            self.app, host="127.0.0.1", port=self.port, lifespan="off", log_config=None
        )
        self._server = uvicorn.Server(config)
        self._serving = asyncio.create_task(self._server.serve())
        while not self._server.started:
            assert not self._serving.done()
            await asyncio.sleep(0.005)

    async def end(self) -> None:
        """Be gone, connections and all."""
        if self._server is not None and self._serving is not None:
            self._server.force_exit = self._server.should_exit = True
            await self._serving
            self._server = self._serving = None

    def client(self, name: str = "physician") -> httpx.AsyncClient:
        headers = {"authorization": f"Bearer {name}"}
        return httpx.AsyncClient(
            base_url=f"{self.url}/fhir", headers=headers, verify=IN_THE_CLEAR, trust_env=False
        )

    def host(self, name: str) -> httpx.AsyncClient:
        """A host of the site as the cell's HAProxy presents it."""
        headers = {"x-medrec-host": name}
        return httpx.AsyncClient(
            base_url=self.url, headers=headers, verify=IN_THE_CLEAR, trust_env=False
        )

    async def upload(self, data: bytes) -> str:
        """The id of a Binary that was acknowledged."""
        sent = {"content-type": "text/plain", "x-security-context": f"Patient/{self.patient}"}
        async with self.client() as client:
            answer = await client.post("/Binary", content=data, headers=sent, timeout=30)
        assert answer.status_code == 201, answer.text
        id: str = answer.json()["id"]
        return id

    async def download(self, id: str) -> httpx.Response:
        async with self.client() as client:
            return await client.get(f"/Binary/{id}", timeout=30)

    def names(self) -> set[str]:
        """Names of the published files, and of nothing else that lies there."""
        found = {path.name for path in self.folder.rglob("*") if path.is_file()}
        return {name for name in found if files.path_of(self.folder, name).exists()}

    def others(self) -> list[str]:
        """Files that are no published ones: parts, damaged ones set aside."""
        return [
            str(path.relative_to(self.folder))
            for path in self.folder.rglob("*")
            if path.is_file() and path != files.path_of(self.folder, path.name)
        ]


@dataclass
class Pair:
    """Both cells, and what the rows say."""

    a: Cell
    b: Cell
    database: Database
    rows: Callable[[str], list[Any]]

    def single_on(self) -> list[str | None]:
        return [
            row[0] for row in self.rows("SELECT single_on FROM records.blob ORDER BY created_at")
        ]

    def blob(self) -> str:
        """The name of the only blob there is."""
        ((name,),) = self.rows("SELECT name FROM records.blob")
        found: str = name
        return found


def _include(routers: Sequence[APIRouter], app: FastAPI) -> None:
    for router in routers:
        app.include_router(router)


@asynccontextmanager
async def two_cells(
    database: Database,
    records: Records,
    audit: Audit,
    sealer: Sealer,
    folder: Path,
    rows: Callable[[str], list[Any]],
) -> AsyncIterator[Pair]:
    """Both are up and know each other."""
    machine = people.caller("service")
    made = await records.create(machine, "Practitioner", people.practitioner())
    physician = people.caller(practitioner=made.stored.id)
    patient = (await records.create(physician, "Patient", people.patient())).stored.id
    tokens = Tokens()
    tokens.principals = {"physician": physician.principal}
    ports = [free_port(), free_port()]
    cells: list[Cell] = []
    for index, name in enumerate(NAMES):
        home = Home(folder / name)
        home.prepare()
        (home.path / "blobs").mkdir(mode=0o700)
        others = OtherHosts(
            host=name,
            peer=f"http://127.0.0.1:{ports[1 - index]}",
            callers=[NAMES[1 - index]],
            copy_wait_s=WAIT_S,
        )
        args = RecordsArgs(max_upload_mb=256, disk_reserve_gb=0.0, others=others)
        blobs = Blobs(sealer, home.path / "blobs", args)
        binaries = binary_routes(records, blobs, database, args, max_json_bytes=MAX_JSON)
        copies = blob_routes(blobs)
        services = Services(
            language=FakeLanguage(),
            authority=tokens,
            audit=audit,
            duties=NoChats(),
            routes=(partial(_include, (binaries, copies)),),
            callers=frozenset(others.callers),
        )
        keeper = Keeper(args, database, home.path / "blobs", home)
        app = create_app(services, Limits())
        cells.append(Cell(name, ports[index], home, app, blobs, keeper, patient))
    async with contextlib.AsyncExitStack() as stack:
        for cell in cells:
            stack.push_async_callback(cell.keeper.close)
            stack.push_async_callback(cell.blobs.close)
            stack.push_async_callback(cell.end)
            await cell.begin()
        yield Pair(cells[0], cells[1], database, rows)


async def until(what: str, condition: Callable[[], object], timeout_s: float = 10) -> None:
    """Wait for something to become true."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"never came true: {what}"
        await asyncio.sleep(0.02)
