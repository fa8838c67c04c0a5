"""What is asked of the records: reads by id, two kinds of searches, and new observations."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal, get_args
from urllib.parse import quote

import httpx
import orjson

from benchmarks.targets import Target

Operation = Literal["read", "search", "write"]
OPERATIONS: tuple[Operation, ...] = get_args(Operation)

LOINC = "http://loinc.org"
HEART_RATE = "8867-4"
PAGE = 20
_PATIENTS = 100
_OBSERVATIONS_OF = 30
_TIMEOUT_S = 30.0


class NothingToAsk(RuntimeError):
    """The operator can act on it: the target holds no patients that this key may see."""


@dataclass(frozen=True, slots=True)
class Subjects:
    """Ids and names that the requests are made of, taken from the target before the first run."""

    patients: tuple[str, ...]
    families: tuple[str, ...]
    observations: tuple[str, ...]


def subjects(target: Target, api_key: str) -> Subjects:
    """Asks the target what it holds. Raises `NothingToAsk`."""
    headers = {"authorization": f"Bearer {api_key}"}
    with httpx.Client(
        base_url=target.url, headers=headers, timeout=_TIMEOUT_S, trust_env=False
    ) as client:
        patients = _resources(client, "Patient", {"_count": str(_PATIENTS)})
        if not patients:
            raise NothingToAsk("the target holds no patients: medrec demo load first")
        ids = [str(entry["id"]) for entry in patients]
        families = {str(entry["name"][0]["family"]) for entry in patients if entry.get("name")}
        observations: list[str] = []
        for id in ids[:_OBSERVATIONS_OF]:
            found = _resources(client, "Observation", {"patient": id, "_count": str(PAGE)})
            observations += [str(entry["id"]) for entry in found]
    if not observations or not families:
        raise NothingToAsk("the target's patients have no observations: medrec demo load first")
    return Subjects(tuple(ids), tuple(sorted(families)), tuple(observations))


def _resources(client: httpx.Client, type: str, query: Mapping[str, str]) -> list[dict[str, list]]:  # type: ignore[type-arg]
    answer = client.get(f"/fhir/{type}", params=dict(query))
    answer.raise_for_status()
    return [entry["resource"] for entry in answer.json().get("entry") or []]


class Requests:
    """Endless supplies of requests, as the bytes that go out; the same for the same seed."""

    def __init__(self, target: Target, api_key: str, found: Subjects) -> None:
        self._found = found
        self._head = (
            f" HTTP/1.1\r\nhost: {target.authority}\r\nauthorization: Bearer {api_key}\r\n"
            "accept: application/fhir+json\r\n"
        )
        self._path = target.path

    def of(self, operation: Operation, seed: str) -> Iterator[bytes]:
        """Requests of one operation; writes carry idempotency keys that nobody else uses."""
        makers: dict[Operation, Callable[[random.Random], bytes]] = {
            "read": self._read,
            "search": self._search,
            "write": self._write,
        }
        chance, make = random.Random(seed), makers[operation]
        while True:
            yield make(chance)

    def _read(self, chance: random.Random) -> bytes:
        """A patient or an observation, as often the one as the other."""
        found = self._found
        kind, ids = chance.choice(
            (("Patient", found.patients), ("Observation", found.observations))
        )
        return self._get(f"/fhir/{kind}/{chance.choice(ids)}")

    def _search(self, chance: random.Random) -> bytes:
        """A patient's heart rates, latest first, or the patients of a family name."""
        if chance.random() < 0.5:
            since = 2021 + chance.randrange(4)
            query = (
                f"patient={chance.choice(self._found.patients)}&code={quote(LOINC)}%7C{HEART_RATE}"
                f"&date=ge{since}&_sort=-date&_count={PAGE}"
            )
            return self._get(f"/fhir/Observation?{query}")
        family = quote(chance.choice(self._found.families))
        return self._get(f"/fhir/Patient?name={family}&_count={PAGE}")

    def _get(self, path: str) -> bytes:
        return f"GET {self._path}{path}{self._head}\r\n".encode()

    def _write(self, chance: random.Random) -> bytes:
        """A heart rate of one of the patients."""
        at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=chance.randrange(400_000))
        body = orjson.dumps(
            {
                "resourceType": "Observation",
                "status": "final",
                "category": [
                    {
                        "coding": [
                            {
                                "system": "http://terminology.hl7.org/CodeSystem/observation-category",
                                "code": "vital-signs",
                            }
                        ]
                    }
                ],
                "code": {"coding": [{"system": LOINC, "code": HEART_RATE}]},
                "subject": {"reference": f"Patient/{chance.choice(self._found.patients)}"},
                "effectiveDateTime": at.isoformat(),
                "valueQuantity": {
                    "value": chance.randrange(50, 120),
                    "unit": "bpm",
                    "system": "http://unitsofmeasure.org",
                    "code": "/min",
                },
            }
        )
        head = (
            f"POST {self._path}/fhir/Observation{self._head}"
            "content-type: application/fhir+json\r\n"
            f"idempotency-key: {uuid.uuid4()}\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body
