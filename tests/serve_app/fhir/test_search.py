"""Searches over HTTP against a real PostgreSQL: what is found, in which order, page by page."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest
from fhir.resources.R4B.bundle import Bundle

from deployments.data.errors import Invalid
from deployments.data.records.parameters import FHIR_TYPES, PARAMETERS
from deployments.data.records.search import parse
from tests.deployments.data.records import people
from tests.serve_app.fhir.conftest import Site

VITAL = "http://terminology.hl7.org/CodeSystem/observation-category"


async def create(client: httpx.AsyncClient, resource: dict[str, Any]) -> dict[str, Any]:
    answer = await client.post(f"/{resource['resourceType']}", json=resource)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def find(client: httpx.AsyncClient, path: str, **parameters: Any) -> list[str]:
    """The ids of every match, through every page."""
    url: str | None = str(httpx.URL(path).copy_merge_params(parameters))
    found = []
    while url is not None:
        answer = await client.get(url)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        Bundle.model_validate(page)
        found += [
            entry["resource"]["id"]
            for entry in page.get("entry", ())
            if entry["search"]["mode"] == "match"
        ]
        url = next((each["url"] for each in page["link"] if each["relation"] == "next"), None)
    return found


@pytest.fixture
async def patient(physician: httpx.AsyncClient) -> str:
    named = [{"use": "official", "family": "D'Ávila Conceição", "given": ["João", "Zé"]}]
    made = await create(physician, people.patient(name=named, cpf=people.CPF))
    return str(made["id"])


@pytest.mark.parametrize(
    ("parameters", "found"),
    [
        ({"name": "joao"}, True),
        ({"name": "JOÃO"}, True),
        ({"name": "jo conc"}, True),
        ({"name": "jo silva"}, False),
        ({"name": "silva,avil"}, True),
        ({"name": "oao"}, False),
        ({"family": "conceicao"}, True),
        ({"family": "joao"}, False),
        ({"given": "ze"}, True),
        ({"name:exact": "João"}, True),
        ({"name:exact": "joão"}, False),
        ({"family:exact": "D'Ávila Conceição"}, True),
        ({"family": "d'ávila"}, True),
        ({"identifier": people.CPF}, True),
        ({"identifier": f"{people.CPF_SYSTEM}|{people.CPF}"}, True),
        ({"identifier": f"{people.CPF_SYSTEM}|"}, True),
        ({"identifier": f"|{people.CPF}"}, False),
        ({"identifier": f"http://other|{people.CPF}"}, False),
        ({"birthdate": "1980"}, True),
        ({"birthdate": "1980-02-29"}, True),
        ({"birthdate": "1980-03"}, False),
        ({"birthdate": "lt1980-02-29"}, False),
        ({"birthdate": "le1980-02"}, True),
        ({"birthdate": "ne1980"}, False),
        ({"birthdate": "ge1980-01-01", "name": "jo"}, True),
        ({"birthdate": "gt1980"}, False),
        ({"_lastUpdated": "gt2026-01-01"}, True),
        ({"_lastUpdated": "lt2026-01-01"}, False),
    ],
)
async def test_a_patient_is_found(
    physician: httpx.AsyncClient, patient: str, parameters: dict[str, str], found: bool
) -> None:
    assert await find(physician, "/Patient", **parameters) == [patient] * found


async def test_repeated_parameters_all_hold(physician: httpx.AsyncClient, patient: str) -> None:
    assert await find(physician, "/Patient?name=jo&name=ze") == [patient]
    assert await find(physician, "/Patient?name=jo&name=ana") == []


@pytest.fixture
async def pulses(physician: httpx.AsyncClient, patient: str) -> list[str]:
    """Pulses of four days, and one that nobody knows the day of."""
    made = []
    for day in ("2026-03-01", "2026-03-02T10:00:00-03:00", "2026-03", "2025-12-31", None):
        more: dict[str, Any] = {
            "category": [{"coding": [{"system": VITAL, "code": "vital-signs"}]}],
            "effectiveDateTime": day,
        }
        resource = people.observation(patient, **more)
        if day is None:
            del resource["effectiveDateTime"]
        made.append((await create(physician, resource))["id"])
    return made


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"date": "2026-03-01"}, [0]),
        ({"date": "2026-03"}, [0, 1, 2]),
        ({"date": "ge2026"}, [0, 1, 2]),
        ({"date": "lt2026"}, [3]),
        ({"date": "gt2026-03-02"}, [2]),
        ({"date": "sa2026-03-01"}, [1]),
        ({"date": "eb2026-03-02"}, [0, 3]),
        ({"date": "ne2026-03"}, [3]),
        ({"date": "2026-03-02T13:00:00Z"}, [1]),
        ({"date": "2026-03-01,2025"}, [0, 3]),
        ({"code": "8867-4"}, [0, 1, 2, 3, 4]),
        ({"code": "http://loinc.org|8867-4"}, [0, 1, 2, 3, 4]),
        ({"code": "http://loinc.org|"}, [0, 1, 2, 3, 4]),
        ({"code": "|8867-4"}, []),
        ({"code": "8480-6,8867-4"}, [0, 1, 2, 3, 4]),
        ({"category": "vital-signs"}, [0, 1, 2, 3, 4]),
        ({"category": f"{VITAL}|laboratory"}, []),
        ({"status": "final"}, [0, 1, 2, 3, 4]),
        ({"status": "http://hl7.org/fhir/observation-status|final"}, [0, 1, 2, 3, 4]),
        ({"status": "http://other|final"}, []),
        ({"status": "preliminary"}, []),
        ({"subject": "Patient/unknown"}, []),
    ],
)
async def test_observations_are_found(
    physician: httpx.AsyncClient,
    patient: str,
    pulses: list[str],
    parameters: dict[str, str],
    expected: list[int],
) -> None:
    found = await find(physician, "/Observation", **{"patient": patient, **parameters})
    assert sorted(found) == sorted(pulses[at] for at in expected)


@pytest.mark.parametrize("count", [1, 2, 100])
async def test_pages_hold_the_order_with_the_undated_as_earliest(
    physician: httpx.AsyncClient, patient: str, pulses: list[str], count: int
) -> None:
    first_four = [4, 3]  # undated, then 2025
    found = await find(physician, "/Observation", patient=patient, _sort="date", _count=count)
    assert [pulses.index(id) for id in found[:2]] == first_four
    latest = await find(physician, "/Observation", patient=patient, _sort="-date", _count=count)
    assert latest == found[::-1]
    by_id = await find(physician, "/Observation", patient=patient, _count=count)
    assert by_id == sorted(pulses)
    changed = await find(physician, "/Observation", _sort="_lastUpdated", _count=count)
    assert changed == pulses
    several = await find(physician, "/Observation", _sort="-date,_lastUpdated", _count=count)
    assert sorted(several) == sorted(pulses)
    assert several[-1] == pulses[4]


async def test_totals_are_counted_when_asked_for(
    physician: httpx.AsyncClient, patient: str, pulses: list[str]
) -> None:
    page = (await physician.get("/Observation?_total=accurate&_count=2")).json()
    assert (page["total"], len(page["entry"])) == (5, 2)
    assert "total" not in (await physician.get("/Observation")).json()
    only = (await physician.get("/Observation?_count=0")).json()
    assert only["total"] == 5
    assert "entry" not in only


async def test_the_self_link_shows_what_was_honoured(
    physician: httpx.AsyncClient, patient: str
) -> None:
    page = (await physician.get(f"/Patient?name=jo&_count=9999&_id={patient}")).json()
    link = page["link"][0]
    assert link["relation"] == "self"
    asked = parse_qsl(urlsplit(link["url"]).query)
    assert asked == [("name", "jo"), ("_id", patient), ("_count", "200")]


async def test_included_resources_obey_rights(site: Site, physician: httpx.AsyncClient) -> None:
    patient = (await create(physician, people.patient()))["id"]
    await create(physician, people.encounter(patient, [site.physician_id]))
    query = (
        f"/Encounter?patient={patient}&_include=Encounter:subject&_include=Encounter:participant"
    )
    page = (await physician.get(query)).json()
    kinds = {(each["resource"]["resourceType"], each["search"]["mode"]) for each in page["entry"]}
    assert kinds == {("Encounter", "match"), ("Patient", "include"), ("Practitioner", "include")}
    limited = people.caller("service", grants=frozenset(("system/Encounter.rs",)))
    site.tokens.principals["limited"] = limited.principal
    async with site.client("limited") as client:
        page = (await client.get(query)).json()
    assert [each["resource"]["resourceType"] for each in page["entry"]] == ["Encounter"]


async def test_a_search_can_be_posted(physician: httpx.AsyncClient, patient: str) -> None:
    answer = await physician.post("/Patient/_search?_count=1", data={"name": "joão"})
    assert answer.status_code == 200
    assert answer.json()["entry"][0]["resource"]["id"] == patient


async def test_a_cursor_belongs_to_its_search(
    physician: httpx.AsyncClient, patient: str, pulses: list[str]
) -> None:
    page = (await physician.get("/Observation?_count=1")).json()
    following = dict(parse_qsl(urlsplit(page["link"][1]["url"]).query))["_cursor"]
    for query in (
        f"_cursor={following}&code=1",
        f"_cursor={following}&_sort=date",
        f"_cursor={following}x",
        "_cursor=",
        "_cursor=WzFd",
        "_cursor=é",
        f"_cursor={'W1tb' * 400}",
    ):
        answer = await physician.get(f"/Observation?{query}")
        assert answer.status_code == 400, query
        assert answer.json()["issue"][0]["expression"] == ["_cursor"]


INJECTIONS = (
    "'", "''", "' OR 1=1 --", '"', "%", "%s", "%(name)s", "%%", "\\", "\\\\", ";DROP TABLE x", "{}",
    "$1", "$ne", '{"$gt":""}', "*", "(", "[", "|", "||", "a|b|c", ",", ",,", "\t", "\n", "\x00", "é",
    "\ud7ff", "\uffff", "𝒳" * 300, "9" * 400, "-1", "1e309", "2026-02-30", "ge", "ap2026",
    "2026-01-01T25:00:00Z", "0000", "9999-12-31T23:59:59-14:00", "Patient/../Observation/1",
    "Patient/1/_history/1", "http://evil/Patient/1", "urn:uuid:1", "a" * 2000, ",".join("ab" * 150),
)  # fmt: skip


# These two have parameters of every kind; the others are parsed by the same table.
EVERY_KIND = ("Encounter", "Patient")


def test_two_types_have_parameters_of_every_kind() -> None:
    kinds = {parameter.kind for type in EVERY_KIND for parameter in PARAMETERS[type].values()}
    assert kinds == set(FHIR_TYPES)


@pytest.mark.parametrize(
    "type",
    [
        pytest.param(type, marks=() if type in EVERY_KIND else pytest.mark.slow)
        for type in sorted(PARAMETERS)
    ],
)
async def test_no_value_of_any_parameter_breaks_a_search(
    physician: httpx.AsyncClient, patient: str, type: str
) -> None:
    controls = ("_sort", "_count", "_include", "_total", "_cursor")
    for name in (*PARAMETERS[type], *controls, "name:exact", "_id:not", "patient.name", "'"):
        for value in INJECTIONS:
            if type != "Patient" and _refused(type, name, value):
                continue
            answer = await physician.get(f"/{type}", params={name: value})
            assert answer.status_code in (200, 400), (name, value, answer.text)
            if answer.status_code == 200 and name not in ("_count", "_sort"):
                harmless = {"0000", "9999-12-31T23:59:59-14:00"}
                found = "entry" in answer.json()
                assert not found or value in harmless or type == "Practitioner", (name, value)
            if answer.status_code == 400 and len(value) > 3:
                assert value not in answer.json()["issue"][0]["diagnostics"]


def _refused(type: str, name: str, value: str) -> bool:
    """Whether it is refused before HTTP and database matter, as one type shows with both."""
    try:
        parse(type, [(name, value)])
    except Invalid:
        return True
    return False
