"""Proves by direct SQL, as the application's role, what row-level security lets nobody do."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from deployments.data.errors import NotFound, Unprocessable
from tests.deployments.data.records import people
from tests.deployments.data.records.conftest import House, Owner
from tests.deployments.data.records.people import again

TABLES = ("resource", "history", "care", "idempotency", "break_glass", "break_glass_review")


class App:
    """A connection of `medrec_app` with the settings that a test chooses."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn

    def run(self, statement: str, *values: object, **settings: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self._dsn) as connection:
            for name, value in settings.items():
                connection.execute("SELECT set_config(%s, %s, true)", (f"medrec.{name}", value))
            found = connection.execute(statement.encode(), values)
            return found.fetchall() if found.description else [(found.rowcount,)]


@pytest.fixture
def app(dsns: tuple[str, str]) -> App:
    return App(dsns[0])


async def fill(house: House) -> tuple[str, str]:
    """A patient of the physician with a record in every table, and an observation of it."""
    id = await house.patient()
    made = await house.records.create(
        again(house.physician, key="k"), "Observation", people.observation(id)
    )
    grant, _ = await house.records.break_glass.open(
        again(house.colleague), patient=id, reason="unconscious in the corridor"
    )
    auditor = people.caller("auditor")
    await house.records.break_glass.review(auditor, grant.id, verdict="justified", note=None)
    return id, made.stored.id


async def test_without_settings_nothing_is_seen(house: House, app: App, owner: Owner) -> None:
    await fill(house)
    for table in TABLES:
        assert owner.rows(f"SELECT count(*) > 0 FROM records.{table}") == [(True,)], table
        assert app.run(f"SELECT * FROM records.{table}") == [], table
        assert app.run(f"SELECT * FROM records.{table}", organization="") == [], table


async def test_another_organisation_sees_and_changes_nothing(house: House, app: App) -> None:
    id, _ = await fill(house)
    settings = {"organization": people.OTHER, "compartment": "all"}
    for table in TABLES:
        assert app.run(f"SELECT * FROM records.{table}", **settings) == [], table
    changed = app.run("UPDATE records.resource SET deleted = deleted", **settings)
    assert changed == [(0,)]
    assert app.run("UPDATE records.care SET ends_at = now()", **settings) == [(0,)]
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        app.run(
            "INSERT INTO records.care (organization, practitioner, patient, basis, source)"
            " VALUES ('hospital', 'x', %s, 'encounter', 's')",
            id,
            **settings,
        )
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        app.run(
            "UPDATE records.resource SET organization = 'other-hospital'",
            organization=people.ORGANIZATION,
            compartment="all",
        )


async def test_the_compartment_decides_which_patients_are_seen(house: House, app: App) -> None:
    id, observation = await fill(house)
    foreign = await house.patient(by=house.machine)
    here = {"organization": people.ORGANIZATION}

    def seen(**settings: str) -> set[tuple[str, str]]:
        rows = app.run("SELECT type, id FROM records.resource", **here, **settings)
        history = app.run("SELECT DISTINCT type, id FROM records.history", **here, **settings)
        assert set(rows) == set(history)
        return set(rows)

    staff = {("Practitioner", house.physician_id), ("Practitioner", house.colleague_id)}
    own = {("Patient", id), ("Observation", observation)}
    assert seen() == seen(compartment="none") == seen(compartment="anything") == staff
    assert seen(compartment="all") == staff | own | {("Patient", foreign)}
    assert seen(compartment="care", practitioner=house.physician_id) == staff | own
    assert seen(compartment="care", practitioner="nobody") == staff
    assert seen(compartment="care", practitioner="") == staff


async def test_care_that_ended_or_has_not_begun_opens_nothing(
    house: House, app: App, owner: Owner
) -> None:
    id, _ = await fill(house)
    settings = {
        "organization": people.ORGANIZATION,
        "compartment": "care",
        "practitioner": house.physician_id,
    }
    wanted = "SELECT records.sees(%s), (SELECT count(*) FROM records.resource WHERE patient = %s)"
    assert app.run(wanted, id, id, **settings) == [(True, 2)]
    owner.rows("UPDATE records.care SET ends_at = now() - interval '1 second'")
    assert app.run(wanted, id, id, **settings) == [(False, 0)]
    owner.rows("UPDATE records.care SET ends_at = NULL, starts_at = now() + interval '1 hour'")
    assert app.run(wanted, id, id, **settings) == [(False, 0)]


async def test_a_transaction_that_began_before_sees_what_was_opened_meanwhile(
    house: House, dsns: tuple[str, str]
) -> None:
    """A conditional creation that waited for another's lock must find what that one made."""
    with psycopg.connect(dsns[0]) as connection:
        for name, value in (
            ("organization", people.ORGANIZATION),
            ("compartment", "care"),
            ("practitioner", house.physician_id),
        ):
            connection.execute("SELECT set_config(%s, %s, true)", (f"medrec.{name}", value))
        id = await house.patient()
        row = connection.execute("SELECT records.sees(%s)", (id,)).fetchone()
    assert row == (True,)


async def test_a_row_outside_ones_care_cannot_be_written(house: House, app: App) -> None:
    id = await house.patient()
    insert = (
        "INSERT INTO records.{} (organization, type, id, version, updated_at, method, patient,"
        " content) VALUES ('hospital', 'Observation', 'x', 1, now(), 'POST', %s, '{{}}')"
    )
    settings = {
        "organization": people.ORGANIZATION,
        "compartment": "care",
        "practitioner": house.colleague_id,
    }
    for table in ("resource", "history"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            app.run(insert.format(table), id, **settings)


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM records.resource",
        "DELETE FROM records.history",
        "UPDATE records.history SET version = 9",
        "DELETE FROM records.care",
        "UPDATE records.care SET practitioner = 'x'",
        "DELETE FROM records.break_glass",
        "UPDATE records.break_glass SET expires_at = now()",
        "DELETE FROM records.break_glass_review",
        "UPDATE records.break_glass_review SET verdict = 'justified'",
        "DELETE FROM records.idempotency",
        "UPDATE records.idempotency SET request = ''",
        "TRUNCATE records.resource",
        "SELECT * FROM records.resource_patient",
        "ALTER TABLE records.resource DISABLE ROW LEVEL SECURITY",
        "DROP TABLE records.history",
        "DELETE FROM audit.entry",
        "UPDATE audit.entry SET actor = 'x'",
        "SET ROLE medrec_owner",
    ],
)
async def test_what_the_application_may_never_do(house: House, app: App, statement: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        app.run(statement, organization=people.ORGANIZATION, compartment="all")


async def test_a_patient_of_others_does_not_exist_and_asking_is_on_record(
    house: House, owner: Owner
) -> None:
    id, observation = await fill(house)
    stranger = people.caller(practitioner=house.colleague_id, organization=people.OTHER)
    outsider = people.caller("nurse", practitioner="8d7c1f0a-2f6b-4d38-9a5e-3c1b8f1f2f11")
    unknown = "8d7c1f0a-2f6b-4d38-9a5e-3c1b8f1f2f12"
    messages = set()
    for who in (stranger, outsider):
        for asked in (id, unknown):
            with pytest.raises(NotFound) as refused:
                await house.records.read(again(who), "Patient", asked)
            messages.add(refused.value.message)
    assert len(messages) == 1
    with pytest.raises(NotFound):
        await house.records.vread(again(outsider), "Observation", observation, 1)
    with pytest.raises(NotFound):
        await house.records.history(again(outsider), "Observation", observation, count=5)
    with pytest.raises(NotFound):
        await house.records.delete(again(outsider), "Observation", observation)
    with pytest.raises(NotFound):
        await house.records.everything(again(outsider), id, count=5, cursor=None)
    await house.records._trail._audit.close()  # lets the journal reach the chain
    denied = [e for e in owner.entries() if e["outcome"] == "denied"]
    assert [e["action"] for e in denied] == [
        *("read", "read", "read", "read", "vread", "history", "delete", "everything")
    ]
    assert {e["actor"] for e in denied} == {stranger.principal.id, outsider.principal.id}
    assert denied[0]["patient"] == id


async def test_a_reference_to_a_patient_of_others_is_denied_and_on_record(
    house: House, owner: Owner
) -> None:
    id = await house.patient()
    messages = set()
    for named in (id, "8d7c1f0a-2f6b-4d38-9a5e-3c1b8f1f2f12"):
        with pytest.raises(Unprocessable) as refused:
            await house.records.create(
                again(house.colleague), "Observation", people.observation(named)
            )
        messages.add((refused.value.message, refused.value.param))
        joined = people.encounter(named, [house.colleague_id])
        with pytest.raises(Unprocessable):
            await house.records.create(again(house.colleague), "Encounter", joined)
    assert len(messages) == 1
    await house.records._trail._audit.close()  # lets the journal reach the chain
    denied = [e for e in owner.entries("create") if e["outcome"] == "denied"]
    assert [e["patient"] for e in denied].count(id) == 2
    assert owner.rows("SELECT count(*) FROM records.care WHERE basis = 'encounter'") == [(0,)]
