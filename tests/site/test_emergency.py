"""Both machines lost as a physician lives it: her device, her patient, her note, and the way home."""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.failover_site import SiteProcess
from configs.reader import PROJECT_ROOT
from deployments.cell.state import HOME_VARIABLE
from deployments.data.accounts.demo import FILE as CREDENTIALS
from deployments.edge.drills.load import client_of
from deployments.site.trust.files import HostFiles

pytestmark = [pytest.mark.cluster, pytest.mark.site, pytest.mark.slow]

USER = "physician"
CLINICAL = "http://terminology.hl7.org/CodeSystem/allergyintolerance-clinical"
NOTE = "Given during the emergency: paracetamol 1 g."
_STEP_S = 60.0
_BOOT_S = 420.0


def medrec(site: SiteProcess, host: str | None, *words: str) -> str:
    """What a `medrec` command says, run on a host or by the operator of the whole site."""
    place = site.scene.place
    home = site.home.path if host is None else place.plan.hosts[host].home.path
    line = [
        "/usr/bin/env",
        f"{HOME_VARIABLE}={home}",
        sys.executable,
        "-m",
        "serve_app.cli",
        *words,
    ]
    if host is not None:
        assert place.namespaces is not None
        line = place.namespaces.command(host, line, "root")
    done = subprocess.run(
        line, cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=2 * _STEP_S, check=False
    )
    assert done.returncode == 0, (words, done.stdout, done.stderr)
    return done.stdout


def her_password(site: SiteProcess) -> str:
    file = site.scene.plan.cells[0].home.path / CREDENTIALS
    users = json.loads(file.read_text(encoding="utf-8"))["users"]
    found: str = next(user["password"] for user in users if user["username"] == USER)
    return found


def her_device(site: SiteProcess, folder: Path) -> ssl.SSLContext:
    """TLS with the certificate that `medrec ca device` made, as her phone would use it."""
    medrec(site, None, "ca", "device", "--user", USER, "--folder", str(folder))
    files = HostFiles.in_folder(folder / "devices" / "users" / USER, "device")
    tls = ssl.create_default_context(cafile=str(site.scene.place.host.tls / "ca.crt"))
    tls.load_cert_chain(files.certificate, files.key)
    return tls


async def signed_in(client: httpx.AsyncClient, password: str) -> httpx.Response:
    form = {"grant_type": "password", "username": USER, "password": password}
    answer = await client.post("/v1/auth/token", data=form)
    if answer.status_code == 200:
        client.headers["authorization"] = f"Bearer {answer.json()['access_token']}"
    return answer


async def written(client: httpx.AsyncClient, kind: str, **values: Any) -> str:
    """The id of a new resource."""
    answer = await client.post(
        f"/fhir/{kind}",
        json={"resourceType": kind, **values},
        headers={"content-type": "application/fhir+json"},
    )
    assert answer.status_code == 201, answer.text
    return str(answer.headers["location"].split(f"/{kind}/")[1].split("/")[0])


def test_an_enrolled_user_works_through_an_emergency_and_her_note_comes_home(
    site: SiteProcess,
) -> None:
    asyncio.run(_works_through_an_emergency(site))


async def _works_through_an_emergency(site: SiteProcess) -> None:
    scene, password = site.scene, her_password(site)
    mac_a, mac_b = (cell.name for cell in scene.plan.cells)
    assert "is enrolled" in await asyncio.to_thread(medrec, site, mac_a, "emergency", "enrol", USER)
    device = her_device(site, scene.place.folder / "ca")

    async with client_of(site.target) as desk:
        assert (await signed_in(desk, password)).status_code == 200
        patient = await written(desk, "Patient", name=[{"family": "Souza", "given": ["Ana"]}])
        about = {"reference": f"Patient/{patient}"}
        allergy = await written(
            desk,
            "AllergyIntolerance",
            patient=about,
            code={"text": "Penicillin"},
            clinicalStatus={"coding": [{"system": CLINICAL, "code": "active"}]},
        )
    at = time.time()

    def is_copied() -> bool:
        age_s = scene.told()["cloud"]["copy_age_s"]
        return age_s is not None and time.time() - age_s > at + 1

    assert scene.wait(is_copied, _STEP_S) is not None
    await asyncio.to_thread(scene.ask, "lose", [mac_a, mac_b])
    try:
        async with client_of(site.target) as stranger:
            await _wait_for_emergency(stranger)
            refused = await signed_in(stranger, password)
            assert refused.status_code == 403
            assert "device_required" in refused.text
        async with client_of(site.target, device) as phone:
            assert (await signed_in(phone, password)).status_code == 200
            note = await _at_work(phone, patient, allergy)
    finally:
        for cell in (mac_a, mac_b):
            await asyncio.to_thread(scene.ask, "restore", cell)

    def are_fit() -> bool:
        return all(cell["is_up"] and not cell["faults"] for cell in scene.told()["cells"])

    assert await asyncio.to_thread(scene.wait, are_fit, _BOOT_S) is not None
    said = await asyncio.to_thread(medrec, site, None, "site", "return", mac_a)
    print(said)

    assert await asyncio.to_thread(scene.wait_whole, _BOOT_S) is not None
    async with client_of(site.target) as desk:
        assert (await signed_in(desk, password)).status_code == 200
        answer = await desk.get(f"/fhir/DocumentReference/{note}")
        assert answer.status_code == 200, answer.text
        assert answer.json()["subject"]["reference"] == f"Patient/{patient}"


async def _wait_for_emergency(client: httpx.AsyncClient) -> None:
    async with asyncio.timeout(_STEP_S):
        while True:
            try:
                answer = await client.get("/v1/mode")
                if answer.status_code == 200 and answer.json()["state"] == "active":
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.25)


async def _at_work(phone: httpx.AsyncClient, patient: str, allergy: str) -> str:
    """What the table permits works, what it does not is refused by name; the id of her note."""
    read = await phone.get(f"/fhir/Patient/{patient}")
    assert read.status_code == 200, read.text
    assert read.headers["x-medrec-mode"] == "emergency"
    assert read.json()["name"][0]["family"] == "Souza"
    found = await phone.get(f"/fhir/AllergyIntolerance?patient={patient}")
    assert [entry["resource"]["id"] for entry in found.json()["entry"]] == [allergy]
    note = await phone.post(
        "/v1/emergency/notes",
        json={"patient": f"Patient/{patient}", "text": NOTE, "kind": "medication"},
        headers={"idempotency-key": f"note-{patient}"},
    )
    assert note.status_code == 201, note.text
    refused = await phone.post(
        "/fhir/Observation",
        json={"resourceType": "Observation"},
        headers={"content-type": "application/fhir+json"},
    )
    assert refused.status_code == 403
    assert "not_in_emergency" in refused.text
    return str(note.json()["id"])
