"""A client that other people wrote finds here what it expects of a FHIR server."""

from __future__ import annotations

from typing import Any

import pytest
from fhirpy import AsyncFHIRClient
from fhirpy.base.exceptions import OperationOutcome, ResourceNotFound

from tests.deployments.data.records import people


async def _patient(client: AsyncFHIRClient, **more: Any) -> Any:
    resource = client.resource(
        **{"resource_type": "Patient", **_without_type(people.patient(**more))}
    )
    await resource.save()
    return resource


def _without_type(resource: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in resource.items() if name != "resourceType"}


async def _observations(client: AsyncFHIRClient, patient: Any, count: int) -> None:
    for day in range(1, count + 1):
        values = people.observation(patient.id, effectiveDateTime=f"2026-03-{day:02}")
        await client.resource("Observation", **_without_type(values)).save()


async def test_a_resource_is_created_read_updated_and_deleted(fhirpy: AsyncFHIRClient) -> None:
    patient = await _patient(fhirpy)
    assert patient["meta"]["versionId"] == "1"
    patient["gender"] = "other"
    await patient.save()
    assert patient["meta"]["versionId"] == "2"
    again = await fhirpy.reference("Patient", patient.id).to_resource()
    assert again["gender"] == "other"
    await again.refresh()
    await patient.delete()
    with pytest.raises(ResourceNotFound):
        await fhirpy.get("Patient", patient.id)


async def test_a_search_pages_through_everything_once(fhirpy: AsyncFHIRClient) -> None:
    patient = await _patient(fhirpy)
    await _observations(fhirpy, patient, 7)
    found = await (
        fhirpy.resources("Observation")
        .search(patient=patient.id)
        .sort("-date")
        .limit(3)
        .fetch_all()
    )
    days = [each["effectiveDateTime"] for each in found]
    assert days == [f"2026-03-{day:02}" for day in range(7, 0, -1)]


async def test_dates_includes_and_counts_are_fhirpys_own(fhirpy: AsyncFHIRClient) -> None:
    patient = await _patient(fhirpy)
    await _observations(fhirpy, patient, 4)
    search = fhirpy.resources("Observation").search(patient=patient, date__gt="2026-03-02")
    assert len(await search.fetch()) == 2
    bundle = await search.include("Observation", "subject").fetch_raw()
    kinds = sorted(entry["search"]["mode"] for entry in bundle["entry"])
    assert kinds == ["include", "match", "match"]
    only = await fhirpy.resources("Observation").search(patient=patient, date="2026-03-02").get()
    assert only["effectiveDateTime"] == "2026-03-02"


async def test_a_patient_is_found_by_name_and_identifier(fhirpy: AsyncFHIRClient) -> None:
    patient = await _patient(fhirpy, cpf=people.CPF)
    patients = fhirpy.resources("Patient")
    identifier = f"{people.CPF_SYSTEM}|{people.CPF}"
    assert (await patients.search(identifier=identifier).get())["id"] == patient.id
    assert (await patients.search(name="zul").get())["id"] == patient.id
    assert await patients.search(name="someone").first() is None


async def test_everything_and_metadata_are_there(fhirpy: AsyncFHIRClient) -> None:
    patient = await _patient(fhirpy)
    await _observations(fhirpy, patient, 2)
    bundle = await patient.execute("$everything", method="get")
    types = [entry["resource"]["resourceType"] for entry in bundle["entry"]]
    assert sorted(types) == ["Observation", "Observation", "Patient"]
    statement = await fhirpy.execute("metadata", method="get")
    assert statement["fhirVersion"] == "4.0.1"


async def test_what_is_refused_is_an_operation_outcome(fhirpy: AsyncFHIRClient) -> None:
    with pytest.raises(OperationOutcome) as refused:
        await fhirpy.resources("Patient").search(shoe_size="44").fetch()
    issue = refused.value.resource["issue"][0]
    assert issue["code"] == "not-supported"
