"""The whole surface as clients meet it: the real application on a real PostgreSQL behind uvicorn,
with two organisations, everyone who can sign in, and patients that not everyone may see.

Only the language models are played, by the fake that the chat's own tests use.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from configs.args import ApiArgs, RecordsArgs, SignIn
from deployments.cell.state import Home
from deployments.data.accounts.administration import NewUser, administration
from deployments.data.accounts.demo import ensure_demo
from deployments.data.places import Places, places
from deployments.data.scopes import parse
from serve_app.assembly import assemble
from serve_app.surface import create_app
from tests.conftest import IN_THE_CLEAR
from tests.serve_app.fake_language import FakeLanguage

ISSUER = "http://cell"
ELSEWHERE = "clinica"
FHIR = "application/fhir+json"
START_TIMEOUT_S = 30.0


@dataclass
class Held:
    """A patient and one resource of every type of its compartment, by type."""

    mark: str
    ids: dict[str, str] = field(default_factory=dict)

    @property
    def patient(self) -> str:
        """The bare id."""
        return self.ids["Patient"]


class World:
    """One running surface. Its clients are closed with it."""

    def __init__(self, home: Home, args: RecordsArgs) -> None:
        self.home = home
        self.args = args
        self.places: Places = places(args, home)
        self.language = FakeLanguage()
        self.base_url = ""
        self.marked = ""  # the patient of test_marks.py
        self._clients: list[httpx.Client] = []
        self._tokens: dict[str, dict[str, Any]] = {}

    @contextmanager
    def running(self) -> Iterator[World]:
        """Serve from a thread until the block ends."""
        ensure_demo(self.places, self.args, self.home, ISSUER)
        api = ApiArgs(records=self.args)
        app = create_app(assemble(api, self.home, self.language), api.limits)
        server = uvicorn.Server(
            uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", access_log=False)
        )
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            deadline = time.monotonic() + START_TIMEOUT_S
            while not server.started:
                assert thread.is_alive()
                assert time.monotonic() < deadline, "uvicorn did not start"
                time.sleep(0.02)
            port = server.servers[0].sockets[0].getsockname()[1]
            self.base_url = f"http://127.0.0.1:{port}"
            yield self
        finally:
            for client in self._clients:
                client.close()
            server.should_exit = True
            thread.join(START_TIMEOUT_S)
            assert not thread.is_alive()

    @cached_property
    def credentials(self) -> dict[str, Any]:
        """What the demo's first start wrote."""
        found: dict[str, Any] = json.loads((self.home.path / "credentials.json").read_text())
        return found

    def password(self, role: str) -> str:
        """The demo user's of this role, who is named like it."""
        [user] = [user for user in self.credentials["users"] if user["role"] == role]
        return str(user["password"])

    def sign_in(self, username: str, password: str) -> dict[str, Any]:
        """A fresh grant."""
        form = {"grant_type": "password", "username": username, "password": password}
        answer = self.bare.post("/v1/auth/token", data=form)
        assert answer.status_code == 200, answer.text
        grant: dict[str, Any] = answer.json()
        return grant

    def grant(self, role: str) -> dict[str, Any]:
        """The demo user's grant, the same one each time."""
        if role not in self._tokens:
            self._tokens[role] = self.sign_in(role, self.password(role))
        return self._tokens[role]

    def client(self, token: str | None) -> httpx.Client:
        """A client with these credentials, or with none."""
        headers = {"authorization": f"Bearer {token}"} if token else {}
        client = httpx.Client(
            base_url=self.base_url,
            headers=headers,
            timeout=30,
            verify=IN_THE_CLEAR,
            trust_env=False,
        )
        self._clients.append(client)
        return client

    def user(self, role: str) -> httpx.Client:
        """The demo user of this role, signed in."""
        return self.client(self.grant(role)["access_token"])

    @cached_property
    def bare(self) -> httpx.Client:
        """A client without credentials."""
        return self.client(None)

    @cached_property
    def demo(self) -> httpx.Client:
        """The demo's machine key: every type of the own organisation."""
        return self.client(self.credentials["api_key"])

    def key(self, scopes: str, organization: str | None = None) -> str:
        """A new API key."""

        async def made() -> str:
            where = organization or self.args.organization
            async with administration(self.places, where) as desk:
                return await desk.create_key("test", parse(scopes), where)

        return asyncio.run(made())

    def revoke(self, key: str) -> None:
        """Revoke an API key, as the operator does."""

        async def revoked() -> None:
            async with administration(self.places, self.args.organization) as desk:
                await desk.revoke_key(key.split("_")[1])

        asyncio.run(revoked())

    def add_user(self, user: NewUser) -> None:
        """Another account, as the operator makes it."""

        async def added() -> None:
            async with administration(self.places, user.organization) as desk:
                await desk.add_user(user)

        asyncio.run(added())

    @cached_property
    def elsewhere(self) -> httpx.Client:
        """A machine key of another organisation."""
        return self.client(self.key("system/*.cruds", ELSEWHERE))

    @cached_property
    def practitioner(self) -> str:
        """The demo physician's Practitioner."""
        me = self.user("physician").get("/v1/auth/me").json()
        return str(me["practitioner"])


@contextmanager
def world_on(dsn: str, owner_dsn: str, folder: Path) -> Iterator[World]:
    """A world on a fresh database, in a fresh home."""
    home = Home(folder)
    home.prepare()
    args = RecordsArgs(
        dsn=dsn,
        owner_dsn=owner_dsn,
        demo=True,
        pool_connections=6,
        sign_in=SignIn(issuer=ISSUER, address_attempts_per_minute=1000),
    )
    with World(home, args).running() as world:
        yield world


def created(answer: httpx.Response) -> str:
    """The id that a creation was given."""
    assert answer.status_code == 201, answer.text
    return answer.headers["location"].split("/fhir/")[1].split("/")[1]


def hold(client: httpx.Client, mark: str, general_practitioner: str | None = None) -> Held:
    """Create a patient whose every text holds `mark`, with one resource of every type."""
    held = Held(mark)
    patient: dict[str, Any] = {
        "resourceType": "Patient",
        "name": [{"family": mark, "given": ["Paciente"]}],
        "identifier": [{"system": "urn:test:mrn", "value": f"{mark}-{uuid.uuid4()}"}],
        "telecom": [{"system": "phone", "value": f"+55 11 {mark}"}],
        "birthDate": "1970-01-02",
    }
    if general_practitioner:
        patient["generalPractitioner"] = [{"reference": f"Practitioner/{general_practitioner}"}]
    held.ids["Patient"] = created(post(client, patient))
    subject = {"reference": f"Patient/{held.patient}"}
    for resource in belongings(subject, mark):
        held.ids[resource["resourceType"]] = created(post(client, resource))
    upload = client.post(
        "/fhir/Binary",
        content=f"documento {mark}".encode(),
        headers={"content-type": "text/plain", "x-security-context": subject["reference"]},
    )
    held.ids["Binary"] = created(upload)
    return held


def post(client: httpx.Client, resource: dict[str, Any]) -> httpx.Response:
    """Create one resource."""
    headers = {"content-type": FHIR, "idempotency-key": uuid.uuid4().hex}
    return client.post(f"/fhir/{resource['resourceType']}", json=resource, headers=headers)


def observation(subject: dict[str, str], value: float = 72, note: str = "") -> dict[str, Any]:
    """A heart rate."""
    found: dict[str, Any] = {
        "resourceType": "Observation",
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "8867-4"}]},
        "subject": subject,
        "effectiveDateTime": "2026-11-01T10:00:00Z",
        "valueQuantity": {"value": value, "unit": "bpm"},
    }
    return {**found, "note": [{"text": note}]} if note else found


def belongings(subject: dict[str, str], mark: str) -> Iterator[dict[str, Any]]:
    """One resource of every type of the compartment but Patient and Binary."""
    terms = "http://terminology.hl7.org/CodeSystem"
    code = {"coding": [{"system": "urn:test", "code": "x"}], "text": mark}
    active = {"coding": [{"system": f"{terms}/condition-clinical", "code": "active"}]}
    yield observation(subject, note=mark)
    yield {
        "resourceType": "Encounter",
        "status": "finished",
        "class": {"system": f"{terms}/v3-ActCode", "code": "AMB"},
        "subject": subject,
        "period": {"start": "2026-10-01T10:00:00Z", "end": "2026-10-01T11:00:00Z"},
        "reasonCode": [{"text": mark}],
    }
    yield {
        "resourceType": "Condition",
        "clinicalStatus": active,
        "code": code,
        "subject": subject,
        "note": [{"text": mark}],
    }
    yield {
        "resourceType": "AllergyIntolerance",
        "clinicalStatus": {
            "coding": [{"system": f"{terms}/allergyintolerance-clinical", "code": "active"}]
        },
        "code": code,
        "patient": subject,
        "note": [{"text": mark}],
    }
    yield {
        "resourceType": "MedicationRequest",
        "status": "active",
        "intent": "order",
        "medicationCodeableConcept": code,
        "subject": subject,
        "note": [{"text": mark}],
    }
    yield {
        "resourceType": "MedicationStatement",
        "status": "active",
        "medicationCodeableConcept": code,
        "subject": subject,
        "note": [{"text": mark}],
    }
    yield {
        "resourceType": "DiagnosticReport",
        "status": "final",
        "code": code,
        "subject": subject,
        "conclusion": f"conclusão {mark}",
    }
    yield {
        "resourceType": "DocumentReference",
        "status": "current",
        "subject": subject,
        "description": mark,
        "content": [{"attachment": {"contentType": "text/plain", "title": mark}}],
    }
    yield {
        "resourceType": "Consent",
        "status": "active",
        "scope": {"coding": [{"system": f"{terms}/consentscope", "code": "patient-privacy"}]},
        "category": [{"coding": [{"system": "http://loinc.org", "code": "59284-0"}]}],
        "patient": subject,
        "policyRule": {"text": mark},
    }
    yield {
        "resourceType": "Provenance",
        "target": [subject],
        "recorded": "2026-11-01T10:00:00Z",
        "agent": [{"who": {"display": mark}}],
    }
