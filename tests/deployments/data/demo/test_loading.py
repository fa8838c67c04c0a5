"""The loader against a FHIR server in memory: whole, once, and again after whatever broke."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest

from deployments.data.demo.loading import Summary, load
from deployments.data.demo.server import LoadFailed, Server
from deployments.data.demo.shapes import Population, Staff
from tests.deployments.data.demo.fake_fhir import FakeFhir

POPULATION = Population(
    seed=3,
    as_of=date(2026, 11, 22),
    organization=None,
    staff=Staff((), "Practitioner/demo-md", "Practitioner/demo-rn"),
    systems={"cpf": "urn:test:cpf", "cns": "urn:test:cns"},
)


async def loaded(fake: FakeFhir, patients: int, population: Population = POPULATION) -> Summary:
    async with fake.client() as client:
        return await load(Server(client), population, patients, concurrency=3, advance=lambda: None)


async def test_every_patient_is_loaded_with_everything() -> None:
    fake = FakeFhir()
    summary = await loaded(fake, 12)
    assert (summary.patients, summary.present) == (12, 0)
    assert len(fake.of("Patient")) == 12
    assert len(fake.of("Practitioner")) == 6
    # Six physicians are staff, not content.
    assert summary.resources == len(fake.held) - 6
    assert len(fake.of("Binary")) == len(fake.of("DocumentReference")) > 0
    for document in fake.of("DocumentReference"):
        assert document["content"][0]["attachment"]["url"] in fake.held
        [encounter] = document["context"]["encounter"]
        assert fake.held[encounter["reference"]]["resourceType"] == "Encounter"


async def test_a_second_run_adds_nothing_even_on_another_day() -> None:
    fake = FakeFhir()
    await loaded(fake, 6)
    before = len(fake.held)
    summary = await loaded(fake, 6, replace(POPULATION, as_of=date(2027, 2, 1)))
    assert len(fake.held) == before
    assert (summary.patients, summary.present, summary.resources) == (0, 6, 0)


async def test_more_patients_are_added_to_those_that_are_there() -> None:
    fake = FakeFhir()
    await loaded(fake, 3)
    summary = await loaded(fake, 5)
    assert (summary.patients, summary.present) == (2, 3)
    assert len(fake.of("Patient")) == 5


async def test_a_run_that_broke_off_is_completed_by_the_next() -> None:
    whole, broken = FakeFhir(), FakeFhir()
    await loaded(whole, 8)
    broken.refusing = "MedicationRequest"
    with pytest.raises(LoadFailed, match="status 422"):
        await loaded(broken, 8)
    broken.refusing = None
    # The refused transactions' keys were answered with the refusal; a real server forgets those.
    broken.keys = {k: v for k, v in broken.keys.items() if v[1]["status_code"] != 422}
    await loaded(broken, 8)
    kinds = {value["resourceType"] for value in whole.held.values()}
    assert {k: len(broken.of(k)) for k in kinds} == {k: len(whole.of(k)) for k in kinds}


async def test_a_write_whose_fate_is_unknown_is_repeated_and_happens_once() -> None:
    fake, calm = FakeFhir(), FakeFhir()
    await loaded(calm, 2)
    fake.failing = 6
    await loaded(fake, 2)
    assert len(fake.held) == len(calm.held)
    assert fake.writes == calm.writes + 6


async def test_a_refusal_is_told_by_code_and_path_without_content() -> None:
    fake = FakeFhir()
    fake.refusing = "Observation"
    with pytest.raises(LoadFailed) as caught:
        await loaded(fake, 1)
    assert str(caught.value) == "POST /fhir failed: status 422 (invariant Observation.code)"
