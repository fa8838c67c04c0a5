"""Proves the split of resources: it loses nothing, and free text never stays open."""

from __future__ import annotations

import copy
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.data.records.sealed_paths import OPEN, join, split
from deployments.data.records.shapes import TYPES
from tests.deployments.data.records import people

KEYS = ["name", "text", "note", "value", "valueString", "code", "status", "component", "url"]
KEYS += ["extension", "contained", "identifier", "display", "reference", "resourceType", "id"]
leaves = st.one_of(st.booleans(), st.integers(-9, 9), st.sampled_from(["Patient", "a", "b c"]))
elements: st.SearchStrategy[Any] = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.dictionaries(st.sampled_from(KEYS), inner, max_size=5), st.lists(inner, max_size=3)
    ),
    max_leaves=25,
)
resources = st.builds(
    lambda kind, rest: {**rest, "resourceType": kind},
    st.sampled_from(TYPES),
    st.dictionaries(st.sampled_from(KEYS), elements, max_size=6),
)


@given(resource=resources)
def test_both_parts_join_to_what_was_split(resource: dict[str, Any]) -> None:
    before = copy.deepcopy(resource)
    content, sealed = split(resource)
    assert resource == before
    # As they come back from the database: each through JSON.
    joined = join(orjson.loads(orjson.dumps(content)), orjson.loads(orjson.dumps(sealed)))
    assert joined == before


def strings(element: Any, key: str = "") -> list[tuple[str, str]]:
    """(key, text) of every string."""
    if isinstance(element, dict):
        return [found for name, value in element.items() for found in strings(value, name)]
    if isinstance(element, list):
        return [found for value in element for found in strings(value, key)]
    return [(key, element)] if isinstance(element, str) else []


@given(resource=resources)
def test_no_string_stays_open_but_by_name(resource: dict[str, Any]) -> None:
    content, _ = split(resource)
    staff = ("family", "given", "prefix", "suffix", "name", "alias", "url")
    assert all(key in OPEN or key in staff for key, _ in strings(content))


MARK = people.MARK


@pytest.mark.parametrize(
    "resource",
    [
        {**people.patient(cpf=people.CPF), "contact": [{"name": {"family": MARK}}]},
        {**people.patient(), "photo": [{"data": "AAAA", "title": MARK}]},
        {**people.patient(), "extension": [{"url": "u", "valueHumanName": {"family": MARK}}]},
        {**people.patient(), "extension": [{"url": "u", "valueAddress": {"line": [MARK]}}]},
        {**people.patient(), "_birthDate": {"extension": [{"url": "u", "valueString": MARK}]}},
        {"resourceType": "DiagnosticReport", "conclusion": MARK},
        {"resourceType": "DocumentReference", "content": [{"attachment": {"title": MARK}}]},
        {"resourceType": "DocumentReference", "content": [{"attachment": {"url": MARK}}]},
        {"resourceType": "MedicationRequest", "dosageInstruction": [{"patientInstruction": MARK}]},
        {"resourceType": "Encounter", "hospitalization": {"origin": {"display": MARK}}},
        {"resourceType": "Condition", "stage": [{"summary": {"text": MARK}}]},
        {"resourceType": "Organization", "contact": [{"name": {"text": MARK}}]},
        {"resourceType": "Practitioner", "name": [{"text": MARK}], "address": [{"city": MARK}]},
        {"resourceType": "Consent", "sourceAttachment": {"title": MARK}},
        {"resourceType": "Provenance", "signature": [{"data": MARK}]},
        {"resourceType": "Observation", "component": [{"valueString": MARK}, {"valueString": "x"}]},
        {"resourceType": "Observation", "subject": {"identifier": {"value": MARK}}},
        {"resourceType": "Observation", "contained": [people.patient()]},
        {"resourceType": "Observation", "somethingNew": MARK},
        {"resourceType": "Observation", "meta": {"tag": [{"code": "c", "display": MARK}]}},
    ],
)
def test_names_and_free_text_are_sealed_wherever_they_stand(resource: dict[str, Any]) -> None:
    content, sealed = split(resource)
    assert MARK not in orjson.dumps(content).decode()
    assert people.CPF not in orjson.dumps(content).decode()
    assert join(content, [(list(place), value) for place, value in sealed]) == resource


def test_what_search_and_analytics_need_stays_open() -> None:
    content, _ = split(people.observation("p"))
    assert content["code"] == people.observation("p")["code"]
    assert content["subject"] == {"reference": "Patient/p"}
    assert content["effectiveDateTime"] == "2026-03-01T10:00:00Z"
    assert content["valueQuantity"] == {"value": 72, "unit": "beats/minute"}
    staff, _ = split(people.practitioner("Andrade"))
    assert staff["name"] == [{"family": "Andrade"}]
