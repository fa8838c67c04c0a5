"""Charts as FHIR: valid by fhir.resources, whole, referring to what is there, and always the same."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from datetime import date, datetime
from typing import Any

import pytest
from fhir.resources.R4B import get_fhir_model_class

from configs.args import RecordsArgs
from deployments.data.demo.charts import MAX_ENTRIES, chart
from deployments.data.demo.server import resolved
from deployments.data.demo.shapes import Chart, Population, Staff
from deployments.data.records.validation import validate

STAFF = Staff(
    ("Practitioner/a", "Practitioner/b"), "Practitioner/medica", "Practitioner/enfermeiro"
)
SYSTEMS = {"cpf": "urn:test:cpf", "cns": "urn:test:cns"}
POPULATION = Population(7, date(2026, 11, 22), "hospital", STAFF, SYSTEMS)


@pytest.fixture(scope="module")
def charts() -> list[Chart]:
    return [chart(POPULATION, number) for number in range(60)]


def entries(one: Chart) -> list[dict[str, Any]]:
    return [entry for part in one.parts for entry in part.entries]


def references(value: Any) -> list[str]:
    if isinstance(value, dict):
        found = [value["reference"]] if isinstance(value.get("reference"), str) else []
        return found + [ref for inner in value.values() for ref in references(inner)]
    return [ref for inner in value for ref in references(inner)] if isinstance(value, list) else []


def test_the_same_seed_and_day_give_the_same_charts(charts: list[Chart]) -> None:
    again = [chart(POPULATION, number) for number in (3, 1)]
    assert again == [charts[3], charts[1]]
    assert chart(replace(POPULATION, seed=8), 1) != charts[1]


def test_every_resource_is_valid_r4(charts: list[Chart]) -> None:
    kinds: Counter[str] = Counter()
    for one in charts:
        found = [entry["resource"] for entry in entries(one)]
        if one.note:
            document = json.loads(json.dumps(one.note.document))
            document["content"][0]["attachment"]["url"] = "Binary/1"
            found.append(document)
        for resource in found:
            kinds[resource["resourceType"]] += 1
            get_fhir_model_class(resource["resourceType"]).model_validate(resource)
    assert set(kinds) == {
        *("Patient", "Encounter", "Observation", "Condition", "AllergyIntolerance", "Consent"),
        *("MedicationRequest", "MedicationStatement", "DiagnosticReport", "DocumentReference"),
    }


def test_the_records_own_validation_takes_every_resource(charts: list[Chart]) -> None:
    checked = SYSTEMS | RecordsArgs().identifier_systems
    with_real_systems = replace(POPULATION, systems={str(k): v for k, v in checked.items()})
    for number in range(12):
        one = chart(with_real_systems, number)
        known = {
            entry["fullUrl"]: f"{entry['resource']['resourceType']}/1" for entry in entries(one)
        }
        for entry in entries(one):
            resource = resolved(entry["resource"], known)
            validate(resource["resourceType"], resource, with_real_systems.systems)


def test_every_reference_leads_to_something_earlier_or_in_the_same_part(
    charts: list[Chart],
) -> None:
    for one in charts:
        known = {"Organization/hospital", *STAFF.physicians}
        known |= {str(STAFF.demo_physician), str(STAFF.demo_nurse)}
        for part in one.parts:
            known |= {entry["fullUrl"] for entry in part.entries}
            assert set(references(list(part.entries))) <= known
        assert one.note is None or set(references(one.note.document)) <= known


def test_no_two_entries_share_a_name_and_no_part_is_too_long(charts: list[Chart]) -> None:
    names = [entry["fullUrl"] for one in charts for entry in entries(one)]
    assert len(names) == len(set(names))
    marks = [part.mark for one in charts for part in one.parts]
    assert len(marks) == len(set(marks))
    assert all(len(part.entries) <= MAX_ENTRIES for one in charts for part in one.parts)


def test_a_parts_mark_is_the_identifier_of_its_first_entry(charts: list[Chart]) -> None:
    for one in charts:
        for number, part in enumerate(one.parts):
            resource = part.entries[0]["resource"]
            assert resource["resourceType"] == ("Encounter" if number else "Patient")
            assert resource["identifier"][0]["value"] == part.mark


def test_a_visit_ends_after_it_began_and_holds_its_observations(charts: list[Chart]) -> None:
    for one in charts:
        periods: dict[str, dict[str, str]] = {}
        for entry in entries(one):
            resource = entry["resource"]
            if resource["resourceType"] == "Encounter":
                period = periods[entry["fullUrl"]] = resource["period"]
                assert (resource["status"] == "finished") == ("end" in period)
                if "end" in period:
                    assert datetime.fromisoformat(period["start"]) < datetime.fromisoformat(
                        period["end"]
                    )
            elif resource["resourceType"] == "Observation":
                at = datetime.fromisoformat(resource["effectiveDateTime"])
                assert (
                    datetime.fromisoformat(periods[resource["encounter"]["reference"]]["start"])
                    <= at
                )


def test_some_are_in_the_demo_staffs_care_and_some_are_not(charts: list[Chart]) -> None:
    cared = [one for one in charts if "Practitioner/medica" in references(entries(one))]
    assert 10 < len(cared) < 50
    nursed = [one for one in charts if "Practitioner/enfermeiro" in references(entries(one))]
    assert 0 < len(nursed) < len(cared)


def test_without_demo_users_nobody_is_in_their_care() -> None:
    lone = replace(POPULATION, staff=Staff(("Practitioner/a",)))
    found = {ref for number in range(20) for ref in references(entries(chart(lone, number)))}
    assert {ref for ref in found if ref.startswith("Practitioner")} == {"Practitioner/a"}


def test_the_words_are_portuguese_and_the_texts_hold_no_name(charts: list[Chart]) -> None:
    notes = [one.note for one in charts if one.note]
    assert len(notes) > 10
    for one in charts:
        if one.note is None:
            continue
        text = one.note.text.decode()
        assert text.startswith(("EVOLUÇÃO CLÍNICA", "SUMÁRIO DE ALTA"))
        [name] = one.parts[0].entries[0]["resource"]["name"]
        assert name["family"] not in text
        assert one.note.document["content"][0]["attachment"]["size"] == len(one.note.text)
