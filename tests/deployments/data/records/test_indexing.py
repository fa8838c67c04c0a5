"""What search knows of a resource: the columns that are taken out of it."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.data.records.indexing import Index, index
from deployments.data.records.parameters import PARAMETERS
from deployments.data.records.search import parse
from deployments.data.records.words import prefixes_of, words_of
from deployments.data.seal import keys
from deployments.data.seal.sealer import Sealer
from tests.deployments.data.records import people
from tests.deployments.data.records.blinds import Readable


def columns(resource: dict[str, Any]) -> Index:
    return index({"id": "x", **resource}, Readable())


def test_a_patient_is_found_by_beginnings_of_names_and_by_identifiers() -> None:
    found = columns(
        people.patient(
            cpf=people.CPF,
            name=[{"family": "D'Ávila", "given": ["Bartholomeuzinho"]}, {"text": "Zé"}],
            generalPractitioner=[{"reference": "Practitioner/7/_history/2"}],
        )
    )
    assert found.patient == "x"
    assert {"name~av", "name~avila", "family~avi", "given~ba", "name~ze"} <= set(found.names)
    assert {"name:exact~D'Ávila", "given:exact~Bartholomeuzinho"} <= set(found.names)
    assert "given~bartholomeuz" in found.names
    assert not any("bartholomeuzi" in token for token in found.names)
    assert "family~ba" not in found.names
    assert found.identifiers == [
        f"identifier~{people.CPF_SYSTEM}|{people.CPF}",
        f"identifier~{people.CPF}",
        f"identifier~{people.CPF_SYSTEM}|",
    ]
    assert found.birth_date == date(1980, 2, 29)
    assert found.date_from == datetime(1980, 2, 29, tzinfo=UTC)
    assert found.refs == ["Practitioner/7", "general-practitioner:Practitioner/7"]


def test_an_observation_is_found_by_patient_code_category_status_and_date() -> None:
    found = columns(
        people.observation("p", category=[{"coding": [{"system": "s", "code": "vital-signs"}]}])
    )
    assert found.patient == "p"
    assert found.codes == ["http://loinc.org|8867-4", "8867-4", "http://loinc.org|"]
    assert found.categories == ["s|vital-signs", "vital-signs", "s|"]
    assert found.status == "final"
    assert found.date_from == datetime(2026, 3, 1, 10, tzinfo=UTC)
    assert found.date_to == datetime(2026, 3, 1, 10, 0, 1, tzinfo=UTC)
    assert set(found.refs) == {"Patient/p", "patient:Patient/p", "subject:Patient/p"}


def test_an_allergy_is_found_by_the_substances_of_its_reactions_too() -> None:
    system = "http://terminology.hl7.org/CodeSystem/allergyintolerance-clinical"
    found = columns(
        {
            "resourceType": "AllergyIntolerance",
            "patient": {"reference": "Patient/p"},
            "clinicalStatus": {"coding": [{"system": system, "code": "active"}]},
            "category": ["medication"],
            "code": {"text": "penicillin"},
            "reaction": [{"substance": {"coding": [{"code": "7980"}]}, "manifestation": []}],
        }
    )
    assert found.status == "active"
    assert found.codes == ["|7980", "7980"]
    assert "http://hl7.org/fhir/allergy-intolerance-category|medication" in found.categories


@pytest.mark.parametrize(
    ("resource", "patient"),
    [
        ({"resourceType": "Provenance", "target": [{"reference": "Patient/p"}]}, "p"),
        ({"resourceType": "Provenance", "target": [{"reference": "Observation/o"}]}, None),
        ({"resourceType": "Binary", "securityContext": {"reference": "Patient/p"}}, "p"),
        ({"resourceType": "Binary", "contentType": "text/plain"}, None),
        ({"resourceType": "Organization", "name": "Hospital"}, None),
        ({"resourceType": "Consent", "patient": {"reference": "Patient/p"}}, "p"),
    ],
)
def test_the_compartment_is_what_the_resource_itself_tells(
    resource: dict[str, Any], patient: str | None
) -> None:
    assert columns(resource).patient == patient


def test_what_search_stores_holds_no_name_and_no_number(tmp_path: Any) -> None:
    keys.create(tmp_path / "secrets")
    resource = {"id": "x", **people.patient(cpf=people.CPF)}
    found = index(resource, Sealer.load(tmp_path / "secrets"))
    written = repr(found)
    for secret in (people.MARK, people.MARK.lower(), people.MARK[:4].lower(), people.CPF):
        assert secret not in written


@given(st.text(max_size=40))
def test_every_beginning_of_every_word_of_a_name_finds_it(name: str) -> None:
    if not name.strip():
        return
    stored = set(columns({"resourceType": "Patient", "name": [{"family": name}]}).names)
    for word in words_of(name):
        for beginning in prefixes_of(word):
            if words_of(beginning) != [beginning]:
                continue
            _, values = parse("Patient", [("family", beginning)]).where(Readable())
            assert set(values[1]) <= stored


def test_the_table_leads_to_elements_that_the_types_have() -> None:
    from deployments.data.records.elements import elements_of, model_of

    for type, parameters in PARAMETERS.items():
        for parameter in parameters.values():
            for path in parameter.paths:
                model = model_of(type)
                for step in path.split("."):
                    element = elements_of(model)[step]
                    model = element.model
                if parameter.kind == "ref":
                    allowed = element.targets or set(parameter.targets)
                    assert set(parameter.targets) <= allowed, (type, parameter.name)
