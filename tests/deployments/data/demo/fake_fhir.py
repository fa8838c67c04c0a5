"""A FHIR server in memory, as far as the loader asks: the protocol boundary of its tests."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs

import httpx


class FakeFhir:
    """Finds by identifier, takes transactions whole, replays idempotency keys.

    `failing` turns the answer of that many coming writes into 503, half of them after the write.
    """

    def __init__(self) -> None:
        self.held: dict[str, dict[str, Any]] = {}
        self.keys: dict[str, Any] = {}
        self.failing = 0
        self.refusing: str | None = None
        self.writes = 0

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.MockTransport(self.answer), base_url="http://cell")

    def of(self, type: str) -> list[dict[str, Any]]:
        return [value for value in self.held.values() if value["resourceType"] == type]

    def answer(self, request: httpx.Request) -> httpx.Response:
        _, _, *rest = request.url.path.split("/")
        if request.method == "GET" and len(rest) == 2:
            found = self.held.get("/".join(rest))
            return httpx.Response(200, json=found) if found else httpx.Response(404)
        if request.method == "GET":
            return self.search(rest[0], request.url.query.decode())
        return self.write(rest, request)

    def search(self, type: str, query: str) -> httpx.Response:
        [wanted] = parse_qs(query)["identifier"]
        found = [value for value in self.of(type) if wanted in _identifiers(value)]
        entries = [{"resource": value, "search": {"mode": "match"}} for value in found]
        return httpx.Response(200, json={"resourceType": "Bundle", "entry": entries})

    def write(self, rest: list[str], request: httpx.Request) -> httpx.Response:
        self.writes += 1
        if self.failing:
            self.failing -= 1
            if self.failing % 2:
                self.perform(rest, request)
            return httpx.Response(503, headers={"retry-after": "0"})
        return self.perform(rest, request)

    def perform(self, rest: list[str], request: httpx.Request) -> httpx.Response:
        key = request.headers["idempotency-key"]
        said = (request.url.path, request.content)
        if key in self.keys:
            before, answer = self.keys[key]
            assert before == said, "a key was used for two contents"
            return httpx.Response(**answer)
        answer = self.bundle(request) if not rest else self.single(rest[0], request)
        self.keys[key] = (said, answer)
        return httpx.Response(**answer)

    def single(self, type: str, request: httpx.Request) -> dict[str, Any]:
        if type == "Binary":
            assert request.headers["x-security-context"] in self.held
            at = self.add({"resourceType": "Binary", "data": request.content.decode()})
            return {
                "status_code": 201,
                "headers": {"location": f"http://cell/fhir/{at}/_history/1"},
            }
        wanted = request.headers["if-none-exist"].removeprefix("identifier=")
        there = [at for at, v in self.held.items()
                 if v["resourceType"] == type and wanted in _identifiers(v)]  # fmt: skip
        at = there[0] if there else self.add(json.loads(request.content))
        return {"status_code": 200 if there else 201, "headers": {"location": f"/fhir/{at}"}}

    def bundle(self, request: httpx.Request) -> dict[str, Any]:
        entries = json.loads(request.content)["entry"]
        kind = self.refusing
        if kind and any(entry["resource"]["resourceType"] == kind for entry in entries):
            issue = {"severity": "error", "code": "invariant", "expression": [f"{kind}.code"]}
            return {"status_code": 422, "json": {"issue": [issue]}}
        ids = [self.add(entry["resource"]) for entry in entries]
        responses = [{"response": {"location": f"{at}/_history/1"}} for at in ids]
        return {"status_code": 200, "json": {"resourceType": "Bundle", "entry": responses}}

    def add(self, resource: dict[str, Any]) -> str:
        at = f"{resource['resourceType']}/{len(self.held) + 1}"
        self.held[at] = {**resource, "id": at.partition("/")[2]}
        return at


def _identifiers(resource: dict[str, Any]) -> list[str]:
    return [f"{i['system']}|{i['value']}" for i in resource.get("identifier", ())]
