"""What may be kept: R4's structure and rules, told by place, and never by value."""

from __future__ import annotations

import copy
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.args import RecordsArgs
from deployments.data.errors import DataError, Invalid, Unprocessable, Unsupported
from deployments.data.records.narrative import is_narrative
from deployments.data.records.national_ids import is_cns, is_cpf
from deployments.data.records.shapes import TYPES
from deployments.data.records.validation import validate
from tests.deployments.data.records import people

SYSTEMS = RecordsArgs().identifier_systems
TERMS = "http://terminology.hl7.org/CodeSystem"
XHTML = 'xmlns="http://www.w3.org/1999/xhtml"'
DEEP = f"<div {XHTML}>{'<p>' * 60}a{'</p>' * 60}</div>"


def coded(system: str, code: str) -> dict[str, Any]:
    return {"coding": [{"system": f"{TERMS}/{system}", "code": code}]}


PATIENT = people.patient()
OBSERVATION = people.observation("p")
CONDITION = {
    "resourceType": "Condition",
    "clinicalStatus": coded("condition-clinical", "active"),
    "verificationStatus": coded("condition-ver-status", "confirmed"),
    "code": {"text": "asthma"},
    "subject": {"reference": "Patient/p"},
}
ALLERGY = {
    "resourceType": "AllergyIntolerance",
    "clinicalStatus": coded("allergyintolerance-clinical", "active"),
    "patient": {"reference": "Patient/p"},
}
REQUEST = {
    "resourceType": "MedicationRequest",
    "status": "active",
    "intent": "order",
    "medicationCodeableConcept": {"text": "dipirona"},
    "subject": {"reference": "Patient/p"},
}
KEPT: list[dict[str, Any]] = [
    PATIENT,
    OBSERVATION,
    CONDITION,
    ALLERGY,
    REQUEST,
    people.practitioner(),
    people.encounter("p", ["d"]),
    people.consent("p"),
    people.patient(cpf=people.CPF),
    {**PATIENT, "_birthDate": {"extension": [{"url": "http://a/b", "valueTime": "10:00:00"}]}},
    {**PATIENT, "name": [{"given": ["a", None], "_given": [None, {"id": "b"}]}]},
    {**OBSERVATION, "text": {"status": "generated", "div": f"<div {XHTML}><p>a</p></div>"}},
    {
        **OBSERVATION,
        "contained": [{"resourceType": "Device", "id": "d"}],
        "device": {"reference": "#d"},
    },
    {**OBSERVATION, "performer": [{"reference": "http://elsewhere/fhir/Practitioner/1"}]},
    {**OBSERVATION, "performer": [{"identifier": {"value": "CRM 1"}}]},
    {**OBSERVATION, "effectiveDateTime": "2026-03"},
    {"resourceType": "Binary", "contentType": "application/pdf"},
]


@pytest.mark.parametrize("resource", KEPT, ids=lambda each: each["resourceType"])
def test_what_r4_allows_is_kept_as_it_came(resource: dict[str, Any]) -> None:
    before = copy.deepcopy(resource)
    assert validate(resource["resourceType"], resource, SYSTEMS) == before == resource


def test_what_only_the_server_says_is_left_out() -> None:
    meta = {"versionId": "9", "lastUpdated": "2026-01-01T00:00:00Z"}
    kept = validate("Patient", {**PATIENT, "meta": {**meta, "source": "http://a"}}, SYSTEMS)
    assert kept["meta"] == {"source": "http://a"}
    assert "meta" not in validate("Patient", {**PATIENT, "meta": meta}, SYSTEMS)


def changed(resource: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {name: value for name, value in {**resource, **more}.items() if value != "removed"}


IN_ERROR = coded("condition-ver-status", "entered-in-error")
REFUSED: list[tuple[dict[str, Any], type[DataError], str]] = [
    (changed(OBSERVATION, status="removed"), Invalid, "Observation.status"),
    (changed(OBSERVATION, code="removed"), Invalid, "Observation.code"),
    (changed(OBSERVATION, shoe=44), Invalid, "Observation"),
    (changed(OBSERVATION, status="done"), Unprocessable, "Observation.status"),
    (changed(OBSERVATION, status=1), Invalid, "Observation.status"),
    (changed(OBSERVATION, note=None), Invalid, "Observation.note"),
    (changed(OBSERVATION, note=[]), Invalid, "Observation.note"),
    (changed(OBSERVATION, note=[{}]), Invalid, "Observation.note[0]"),
    (changed(OBSERVATION, note=[None]), Invalid, "Observation.note[0]"),
    (changed(OBSERVATION, note=[{"text": "a", "author": 1}]), Invalid, "Observation.note[0]"),
    (changed(OBSERVATION, code=[{"text": "a"}]), Invalid, "Observation.code"),
    (changed(OBSERVATION, valueString="a"), Invalid, "Observation"),
    (changed(OBSERVATION, valueRatioRange={}), Invalid, "Observation"),
    (changed(OBSERVATION, issued="2026-03-01"), Invalid, "Observation.issued"),
    (
        changed(OBSERVATION, effectiveDateTime="2026-02-30"),
        Invalid,
        "Observation.effectiveDateTime",
    ),
    (
        changed(OBSERVATION, effectiveDateTime="2026-03-01T10:00:00"),
        Invalid,
        "Observation.effectiveDateTime",
    ),
    (
        changed(OBSERVATION, valueQuantity={"value": "1"}),
        Invalid,
        "Observation.valueQuantity.value",
    ),
    (changed(OBSERVATION, valueQuantity={"code": "g"}), Unprocessable, "Observation.valueQuantity"),
    (
        changed(OBSERVATION, valueQuantity={"value": 1, "comparator": "~"}),
        Unprocessable,
        "Observation.valueQuantity.comparator",
    ),
    (
        changed(OBSERVATION, dataAbsentReason={"text": "a"}),
        Unprocessable,
        "Observation.dataAbsentReason",
    ),
    (changed(OBSERVATION, subject="removed"), Unprocessable, "Observation.subject"),
    (changed(OBSERVATION, subject={"display": "a"}), Unprocessable, "Observation.subject"),
    (
        changed(OBSERVATION, subject={"reference": "http://a/Patient/1"}),
        Unprocessable,
        "Observation.subject",
    ),
    (
        changed(OBSERVATION, subject={"reference": "Patient/1/_history/1"}),
        Unprocessable,
        "Observation.subject",
    ),
    (
        changed(OBSERVATION, subject={"reference": "urn:uuid:1"}),
        Unprocessable,
        "Observation.subject.reference",
    ),
    (
        changed(OBSERVATION, encounter={"reference": "Patient/1"}),
        Unprocessable,
        "Observation.encounter.reference",
    ),
    (
        changed(OBSERVATION, encounter={"reference": "Encounter/1", "type": "Patient"}),
        Unprocessable,
        "Observation.encounter.type",
    ),
    (
        changed(OBSERVATION, specimen={"reference": "Specimen/1"}),
        Unprocessable,
        "Observation.specimen.reference",
    ),
    (
        changed(OBSERVATION, device={"reference": "#d"}),
        Unprocessable,
        "Observation.device.reference",
    ),
    (
        changed(OBSERVATION, contained=[{"resourceType": "Device", "id": "d"}]),
        Unprocessable,
        "Observation.contained[0]",
    ),
    (changed(OBSERVATION, contained=[PATIENT]), Unprocessable, "Observation.contained[0]"),
    (
        changed(OBSERVATION, contained=[{"resourceType": "Device", "id": "d", "meta": []}]),
        Invalid,
        "Observation.contained[0].meta",
    ),
    (
        changed(OBSERVATION, contained=[{"resourceType": "Device", "id": "d", "shoe": 1}]),
        Invalid,
        "Observation.contained[0]",
    ),
    (
        changed(OBSERVATION, modifierExtension=[{"url": "http://a", "valueString": "b"}]),
        Unprocessable,
        "Observation.modifierExtension",
    ),
    (changed(OBSERVATION, implicitRules="http://a"), Unprocessable, "Observation.implicitRules"),
    (
        changed(OBSERVATION, extension=[{"url": "http://a"}]),
        Unprocessable,
        "Observation.extension[0]",
    ),
    (changed(OBSERVATION, extension=[{"valueString": "a"}]), Invalid, "Observation.extension[0]"),
    (
        changed(OBSERVATION, text={"status": "generated", "div": "<div>a</div>"}),
        Unprocessable,
        "Observation.text.div",
    ),
    (changed(PATIENT, birthDate="1980-02-29T10:00:00Z"), Invalid, "Patient.birthDate"),
    (changed(PATIENT, active="true"), Invalid, "Patient.active"),
    (changed(PATIENT, multipleBirthInteger=True), Invalid, "Patient.multipleBirthInteger"),
    (changed(PATIENT, name=[{"text": "a\0b"}]), Invalid, "Patient.name[0].text"),
    (changed(PATIENT, name=[{"text": "  "}]), Invalid, "Patient.name[0].text"),
    (changed(PATIENT, telecom=[{"value": "1"}]), Unprocessable, "Patient.telecom[0]"),
    (changed(PATIENT, contact=[{"gender": "male"}]), Unprocessable, "Patient.contact[0]"),
    (changed(PATIENT, photo=[{"data": "YQ=="}]), Unprocessable, "Patient.photo[0]"),
    (
        changed(PATIENT, photo=[{"data": "YQ", "contentType": "a/b"}]),
        Invalid,
        "Patient.photo[0].data",
    ),
    (
        changed(PATIENT, address=[{"period": {"start": "2026", "end": "2025"}}]),
        Unprocessable,
        "Patient.address[0].period",
    ),
    (people.patient(cpf="52998224724"), Unprocessable, "Patient.identifier[0].value"),
    (changed(CONDITION, verificationStatus=IN_ERROR), Unprocessable, "Condition.clinicalStatus"),
    (changed(CONDITION, abatementDateTime="2026"), Unprocessable, "Condition.clinicalStatus"),
    (changed(CONDITION, clinicalStatus={"text": "a"}), Unprocessable, "Condition.clinicalStatus"),
    (
        changed(ALLERGY, clinicalStatus="removed"),
        Unprocessable,
        "AllergyIntolerance.clinicalStatus",
    ),
    (changed(ALLERGY, patient="removed"), Invalid, "AllergyIntolerance.patient"),
    (changed(REQUEST, medicationCodeableConcept="removed"), Invalid, "MedicationRequest"),
    (changed(people.consent("p"), policyRule="removed"), Unprocessable, "Consent"),
    ({"resourceType": "Organization", "active": True}, Unprocessable, "Organization"),
]


@pytest.mark.parametrize(("resource", "kind", "place"), REFUSED)
def test_what_r4_or_this_place_forbids_is_named(
    resource: dict[str, Any], kind: type[DataError], place: str
) -> None:
    with pytest.raises(kind) as refused:
        validate(resource["resourceType"], resource, SYSTEMS)
    assert refused.value.param == place
    assert people.MARK not in refused.value.message


@pytest.mark.parametrize("resource", [None, [], "Patient", {}, {"resourceType": "Observation"}])
def test_only_a_resource_of_the_type_is_one(resource: Any) -> None:
    with pytest.raises(Invalid):
        validate("Patient", resource, SYSTEMS)


def test_types_that_are_not_held_are_refused() -> None:
    for type in ("AuditEvent", "Nothing", "Bundle"):
        with pytest.raises(Unsupported):
            validate(type, {"resourceType": type}, SYSTEMS)


def test_checks_follow_the_configured_systems_alone() -> None:
    resource = people.patient(cpf="1")
    assert validate("Patient", resource, {"cpf": "urn:another"}) == resource


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=5,
)


@st.composite
def broken(draw: st.DrawFn) -> dict[str, Any]:
    """A resource of which one part, at any depth, has become something else."""
    resource: dict[str, Any] = copy.deepcopy(draw(st.sampled_from(KEPT)))
    part: Any = resource
    while True:
        places = list(part) if isinstance(part, dict) else list(range(len(part)))
        place = draw(st.sampled_from(places))
        inner = part[place]
        if not isinstance(inner, dict | list) or not inner or draw(st.booleans()):
            break
        part = inner
    if isinstance(part, dict) and draw(st.booleans()):
        part[draw(st.sampled_from(("text", "reference", "contained", "meta", "coding")))] = draw(
            JSON
        )
    else:
        part[place] = draw(JSON)
    return resource


@settings(max_examples=300)
@given(broken(), st.sampled_from(TYPES))
def test_nothing_breaks_validation(resource: dict[str, Any], type: str) -> None:
    for wanted in (type, resource.get("resourceType")):
        try:
            validate(wanted, resource, SYSTEMS)  # type: ignore[arg-type]
        except DataError as refused:
            error: DataError | None = refused
        else:
            error = None
        assert error is None or people.MARK not in error.message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("52998224725", True),
        ("52998224724", False),
        ("52998224735", False),
        ("11111111111", False),
        ("5299822472", False),
        ("529.982.247-25", False),
        ("٥٢٩٩٨٢٢٤٧٢٥", False),
        ("00000000191", True),
    ],
)
def test_cpf_digits(text: str, expected: bool) -> None:
    assert is_cpf(text) is expected


def _weighted(digits: str) -> int:
    return sum(int(digit) * (15 - at) for at, digit in enumerate(digits))


@given(st.text("0123456789", min_size=10, max_size=10), st.sampled_from("12789"))
def test_of_the_last_digits_of_a_cns_exactly_one_ending_fits(digits: str, first: str) -> None:
    stem = first + digits
    fitting = [stem + f"{ending:04}" for ending in range(20) if is_cns(stem + f"{ending:04}")]
    assert all(_weighted(each) % 11 == 0 for each in fitting)
    if first in "12":
        # A definitive number is made from its first eleven digits, in one way.
        assert len(fitting) == 1
    else:
        assert 1 <= len(fitting) <= 2


@pytest.mark.parametrize("text", ["", "1" * 15, "3" * 15, "70000000000000", "700000000000001"])
def test_what_is_no_cns(text: str) -> None:
    assert not is_cns(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"<div {XHTML}><p>a</p><br/></div>", True),
        (f"<div {XHTML}><a href='https://a.b'>a</a></div>", True),
        (f"<div {XHTML}><img src='#picture' alt='a'/></div>", True),
        (f"<div {XHTML} style='color: red'>a</div>", True),
        (f"<div {XHTML}> </div>", False),
        (f"<div {XHTML}><p>a</div>", False),
        (f"<div {XHTML}><script>a</script></div>", False),
        (f"<div {XHTML}><p onclick='a'>a</p></div>", False),
        (f"<div {XHTML}><a href='javascript:a'>a</a></div>", False),
        (f"<div {XHTML}><img src='https://a.b/c.png'/></div>", False),
        (f"<div {XHTML} style='background: url(https://a)'>a</div>", False),
        (f"<div {XHTML}><iframe>a</iframe></div>", False),
        (f"<!DOCTYPE a [<!ENTITY b 'c'>]><div {XHTML}>&b;</div>", False),
        (f"<div {XHTML}><!-- a -->b</div>", False),
        (f"<p {XHTML}>a</p>", False),
        ("<div>a</div>", False),
        (DEEP, False),
    ],
)
def test_a_narrative_says_something_and_runs_nothing(text: str, expected: bool) -> None:
    assert is_narrative(text) is expected


def test_importing_the_checks_leaves_the_models_of_other_types_alone() -> None:
    program = (
        "import sys, deployments.data.records.validation as v; v.preload();"
        "m = [n for n in sys.modules if n.startswith('fhir.resources.R4B.')];"
        "assert not {'fhir.resources.R4B.medication', 'fhir.resources.R4B.claim'} & set(m), m;"
        "assert not [n for n in sys.modules if n.startswith('fhir.resources.STU3')]"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
