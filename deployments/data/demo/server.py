"""A FHIR server as the loader speaks to it: finds by demo identifier, writes, and repeats safely."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Any

import httpx

from deployments.data.demo.codings import DEMO, Resource
from deployments.data.demo.shapes import Part

FHIR_JSON = "application/fhir+json"
ATTEMPTS = 8
MAX_PAUSE_S = 5.0
# An answer that says "again later", or nothing: a write has its idempotency key, a read is safe.
_AGAIN = frozenset((429, 502, 503, 504))
_LOCATION = re.compile(r"([A-Za-z]+/[A-Za-z0-9.-]{1,64})(?:/_history/[0-9]+)?$")


class LoadFailed(Exception):
    """The operator can act on it: the cell refused something, or was away for too long."""


class Server:
    """One FHIR server. Messages name requests by type and status, never by content."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        """`client` knows the server's base address and carries the credentials."""
        self._client = client

    async def find(self, type: str, mark: str) -> str | None:
        """`Type/id` of what has this demo identifier."""
        parameters = {"identifier": f"{DEMO}|{mark}", "_count": "1"}
        answer = await self._ask("GET", f"/fhir/{type}", params=parameters)
        entries = answer.json().get("entry") or []
        matches = [e for e in entries if e.get("search", {}).get("mode", "match") == "match"]
        return f"{type}/{matches[0]['resource']['id']}" if matches else None

    async def holds(self, reference: str) -> bool:
        """Whether there is such a resource."""
        answer = await self._ask("GET", f"/fhir/{reference}", also=frozenset((404, 410)))
        return answer.status_code == 200

    async def create(self, resource: Resource, mark: str, key: str) -> str:
        """Create unless the demo identifier is there already; `Type/id` of the one or the other."""
        answer = await self._ask(
            "POST",
            f"/fhir/{resource['resourceType']}",
            json=resource,
            headers={
                "content-type": FHIR_JSON,
                "idempotency-key": key,
                "if-none-exist": f"identifier={DEMO}|{mark}",
            },
        )
        return _created(answer.headers.get("location"))

    async def transact(self, part: Part, key: str, known: Mapping[str, str]) -> dict[str, str]:
        """Write a part; the `Type/id` that each of its urns has become."""
        bundle = resolved(part.bundle(), known)
        headers = {"content-type": FHIR_JSON, "idempotency-key": key}
        answer = await self._ask("POST", "/fhir", json=bundle, headers=headers)
        entries = answer.json().get("entry") or []
        if len(entries) != len(part.entries):
            raise LoadFailed("a transaction was answered with another number of entries")
        locations = [_created(entry["response"].get("location")) for entry in entries]
        return {e["fullUrl"]: at for e, at in zip(part.entries, locations, strict=True)}

    async def upload(self, text: bytes, patient: str, key: str) -> str:
        """Store a text of this patient; `Binary/id`."""
        headers = {
            "content-type": "text/plain",
            "x-security-context": patient,
            "idempotency-key": key,
        }
        answer = await self._ask("POST", "/fhir/Binary", content=text, headers=headers)
        return _created(answer.headers.get("location"))

    async def _ask(
        self, method: str, path: str, *, also: frozenset[int] = frozenset(), **more: Any
    ) -> httpx.Response:
        what = f"{method} {'/'.join(path.split('/')[:3])}"
        reason = ""
        for attempt in range(ATTEMPTS):
            pause_s = min(0.2 * 2**attempt, MAX_PAUSE_S)
            try:
                answer = await self._client.request(method, path, **more)
            except httpx.TransportError as error:
                reason = type(error).__name__
            else:
                if answer.is_success or answer.status_code in also:
                    return answer
                reason = f"status {answer.status_code}{_issues(answer)}"
                if answer.status_code not in _AGAIN:
                    break
                told = answer.headers.get("retry-after", "")
                pause_s = min(float(told), MAX_PAUSE_S) if told.isdigit() else pause_s
            await asyncio.sleep(pause_s)
        raise LoadFailed(f"{what} failed: {reason}")


def resolved(value: Any, known: Mapping[str, str]) -> Any:
    """A copy in which every `reference` to a known urn says what that has become."""
    if isinstance(value, dict):
        return {
            key: known.get(inner, inner)
            if key == "reference" and isinstance(inner, str)
            else resolved(inner, known)
            for key, inner in value.items()
        }
    return [resolved(inner, known) for inner in value] if isinstance(value, list) else value


def _created(location: str | None) -> str:
    found = _LOCATION.search(location or "")
    if found is None:
        raise LoadFailed("the cell told no location of what it had created")
    return found[1]


def _issues(answer: httpx.Response) -> str:
    """Codes and paths of an OperationOutcome; no text, which is not needed to find the fault."""
    try:
        issues = answer.json()["issue"]
        told = [f"{issue['code']} {' '.join(issue.get('expression', []))}" for issue in issues]
    except (ValueError, KeyError, TypeError):
        return ""
    return f" ({'; '.join(each.strip() for each in told[:3])})"
