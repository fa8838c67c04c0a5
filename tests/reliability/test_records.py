"""`kill -9` of an API replica or of PostgreSQL during writes: what was acknowledged is there, once,
and the audit chain verifies."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx
import psutil
import pytest

from deployments.cell.state import Home
from deployments.data import postgres
from tests.conftest import RunningCell, medrec
from tests.reliability.drill import Drill

pytestmark = pytest.mark.cluster

CLIENTS = 6
SYSTEM = "urn:test:write"
# Longest that one write may take to be acknowledged: a new PostgreSQL recovers first.
GIVE_UP_S = 120.0
BEFORE, AFTER = 30, 60


@dataclass
class Writers:
    """Clients that write until told to stop, each repeating a write until it is acknowledged."""

    client: httpx.AsyncClient
    patient: str
    acknowledged: dict[str, str] = field(default_factory=dict)
    repeated: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    stopping: bool = False
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(CLIENTS):
                group.create_task(self._write_on())

    async def _write_on(self) -> None:
        while not self.stopping:
            key = uuid.uuid4().hex
            async with asyncio.timeout(GIVE_UP_S):
                self.acknowledged[key] = await self._write(key)
            self._news.set()

    async def _write(self, key: str) -> str:
        """One observation, written until somebody says that it is."""
        headers = {"content-type": "application/fhir+json", "idempotency-key": key}
        attempts = 0
        while True:
            attempts += 1
            try:
                answer = await self.client.post(
                    "/fhir/Observation", json=observation(self.patient, key), headers=headers
                )
            except httpx.TransportError:
                self.statuses[0] += 1
            else:
                self.statuses[answer.status_code] += 1
                if answer.status_code in (200, 201):
                    self.repeated += attempts > 1
                    return answer.headers["location"].split("/Observation/")[1].split("/")[0]
                # Anything else than "again later" would be a refusal of a good write.
                assert answer.status_code in (502, 503, 504), answer.text
            await asyncio.sleep(0.2)

    async def until(self, count: int, timeout_s: float = GIVE_UP_S) -> None:
        """Wait until so many more are acknowledged."""
        wanted = len(self.acknowledged) + count
        async with asyncio.timeout(timeout_s):
            while len(self.acknowledged) < wanted:
                await self._news.wait()
                self._news.clear()


def observation(patient: str, key: str) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "status": "final",
        "identifier": [{"system": SYSTEM, "value": key}],
        "code": {"coding": [{"system": "http://loinc.org", "code": "8867-4"}]},
        "subject": {"reference": f"Patient/{patient}"},
        "effectiveDateTime": "2026-11-22T10:00:00Z",
        "valueQuantity": {"value": 70, "unit": "bpm"},
    }


def client_of(cell: RunningCell) -> httpx.AsyncClient:
    headers = {"authorization": f"Bearer {cell.api_key}"}
    return httpx.AsyncClient(base_url=cell.base_url, headers=headers, timeout=30, trust_env=False)


async def new_patient(client: httpx.AsyncClient) -> str:
    answer = await client.post(
        "/fhir/Patient",
        json={"resourceType": "Patient", "birthDate": "1950-01-01"},
        headers={"content-type": "application/fhir+json"},
    )
    assert answer.status_code == 201, answer.text
    return answer.headers["location"].split("/Patient/")[1].split("/")[0]


async def held(client: httpx.AsyncClient, patient: str) -> dict[str, list[str]]:
    """Ids of the patient's observations by the key that each was written with."""
    found: dict[str, list[str]] = {}
    url: str | None = f"/fhir/Observation?patient={patient}&_count=100"
    while url is not None:
        answer = await client.get(url)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        for entry in page.get("entry", []):
            [identifier] = entry["resource"]["identifier"]
            found.setdefault(identifier["value"], []).append(entry["resource"]["id"])
        url = next((link["url"] for link in page["link"] if link["relation"] == "next"), None)
    return found


async def written_through(cell: RunningCell, kill: Any) -> Writers:
    """Write, kill in the middle, write on; then compare what was said with what is there."""
    async with client_of(cell) as client:
        writers = Writers(client, await new_patient(client))
        running = asyncio.create_task(writers.run())
        await writers.until(BEFORE)
        await asyncio.to_thread(kill)
        await writers.until(AFTER)
        writers.stopping = True
        await running
        there = await held(client, writers.patient)
    twice = {key: ids for key, ids in there.items() if len(ids) > 1}
    assert not twice, "a write happened more than once"
    assert {key: ids[0] for key, ids in there.items()} == writers.acknowledged
    return writers


def assert_chain_verifies(cell: RunningCell) -> None:
    done = medrec("audit", "verify", home=cell.home)
    assert done.returncode == 0, done.stdout + done.stderr


async def test_writes_survive_the_kill_of_an_api_replica(drill: Drill) -> None:
    victim = min(drill.pids("api"))
    await written_through(drill.cell, lambda: drill.kill(victim))
    await drill.eventually(
        lambda: len(drill.pids("api") - {victim}) == 2, 60, "two API replicas run again"
    )
    assert_chain_verifies(drill.cell)


async def test_writes_survive_the_kill_of_every_api_replica_at_once(drill: Drill) -> None:
    victims = drill.pids("api")

    def kill() -> None:
        for pid in victims:
            drill.kill(pid)

    writers = await written_through(drill.cell, kill)
    assert writers.repeated, "no write was on its way when the replicas were killed"
    await drill.eventually(
        lambda: len(drill.pids("api") - victims) == 2, 90, "two API replicas run again"
    )
    assert_chain_verifies(drill.cell)


async def test_writes_survive_the_kill_of_postgresql(drill: Drill) -> None:
    server = postgres.local(Home(drill.cell.home))
    before = server.running()
    assert before is not None

    def kill() -> None:
        psutil.Process(before.pid).kill()

    # Writes that were on their way wait for the new server, or are repeated by their client.
    await written_through(drill.cell, kill)
    after = server.running()
    assert after is not None
    assert after.pid != before.pid
    assert_chain_verifies(drill.cell)
