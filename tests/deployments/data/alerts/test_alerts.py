"""Who may raise, see, acknowledge and resolve an alert, and that every act is on record."""

from __future__ import annotations

import asyncio

import pytest

from configs.args import RecordsArgs
from deployments.data.alerts.alert import To, place_of
from deployments.data.alerts.alerts import Alerts
from deployments.data.audit.chain import Audit
from deployments.data.database import Database
from deployments.data.errors import Conflict, Forbidden, Invalid, NotFound, Unprocessable
from deployments.data.seal.sealer import Sealer
from tests.deployments.data.alerts.conftest import TEXT, Ward, add_account
from tests.deployments.data.records import people
from tests.deployments.data.records.people import again, caller


async def test_an_alert_to_those_in_care_reaches_them_and_who_raised_it_alone(ward: Ward) -> None:
    id = await ward.raised()
    alert = await ward.alerts.read(ward.physician, id)
    assert (alert.state, alert.level, alert.text) == ("raised", 0, TEXT)
    assert await ward.mine(ward.nurse) == [id]
    for stranger in (ward.colleague, caller("nurse", practitioner="other")):
        assert await ward.mine(stranger) == []
        with pytest.raises(NotFound):
            await ward.alerts.read(again(stranger), id)
        with pytest.raises(NotFound):
            await ward.alerts.acknowledge(again(stranger), id)
    elsewhere = caller(practitioner=ward.house.physician_id, organization=people.OTHER)
    assert await ward.mine(elsewhere) == []


async def test_a_role_is_called_in_care_of_the_patient_and_without_one_everywhere(
    ward: Ward,
) -> None:
    about = await ward.raised(to=To("role", role="physician"), by=ward.nurse)
    anywhere = await ward.raised(to=To("role", role="physician"), patient=None)
    assert await ward.mine(ward.physician) == [anywhere, about]
    assert await ward.mine(ward.colleague) == [anywhere]
    assert await ward.mine(caller("nurse", practitioner="other")) == []


async def test_a_named_practitioner_sees_it_without_a_relationship_to_the_patient(
    ward: Ward,
) -> None:
    to = To("practitioner", ward.house.colleague_id)
    with pytest.raises(Unprocessable) as caught:
        await ward.raised(to=to)
    assert caught.value.code == "nobody_to_call"
    add_account(ward.owner, ward.house.colleague_id)
    id = await ward.raised(to=to)
    assert (await ward.alerts.read(ward.colleague, id)).to.role == "physician"
    assert await ward.mine(ward.physician) == []


async def test_whoever_takes_it_on_is_told_to_all_and_nobody_else_is_called(ward: Ward) -> None:
    id = await ward.raised()
    with pytest.raises(Forbidden) as caught:
        await ward.alerts.acknowledge(again(ward.nurse), id)
    assert caught.value.code == "own_alert"
    first = await ward.alerts.acknowledge(ward.physician, id)
    second = await ward.alerts.acknowledge(ward.physician, id)
    assert first == second
    assert (first.state, first.due_at) == ("acknowledged", None)
    assert [each.account for each in first.acknowledgements] == [ward.physician.principal.id]
    assert (await ward.escalation.run(ward.physician.deadline))["escalated"] == 0
    resolved = await ward.alerts.resolve(ward.physician, id)
    assert (await ward.alerts.resolve(again(ward.nurse), id)).state == resolved.state == "resolved"
    assert await ward.mine(ward.physician) == []
    assert await ward.mine(ward.physician, every=True) == [id]


async def test_what_is_resolved_is_not_acknowledged_any_more(ward: Ward) -> None:
    id = await ward.raised()
    await ward.alerts.resolve(again(ward.nurse), id)
    with pytest.raises(Conflict) as caught:
        await ward.alerts.acknowledge(ward.physician, id)
    assert caught.value.code == "resolved_already"


async def test_machines_raise_and_watch_and_take_nothing_on(ward: Ward) -> None:
    grants = frozenset(("system/*.cruds", "alerts", "alerts:raise"))
    machine = caller("service", grants=grants)
    id = await ward.raised(by=machine)
    other = await ward.raised()
    assert await ward.mine(caller("service", grants=grants)) == [other, id]
    for act in (ward.alerts.acknowledge, ward.alerts.resolve):
        with pytest.raises(Forbidden) as caught:
            await act(again(machine), other)
        assert caught.value.code == "not_a_person"
    with pytest.raises(Forbidden):
        await ward.mine(caller("service", grants=frozenset(("alerts",))))


@pytest.mark.parametrize("role", ["analyst", "auditor", "admin"])
async def test_who_treats_nobody_has_no_alerts(ward: Ward, role: str) -> None:
    who = caller(role)  # type: ignore[arg-type]
    with pytest.raises(Forbidden):
        await ward.mine(who)
    with pytest.raises(Forbidden):
        await ward.raised(by=who)


async def test_a_patient_whom_the_caller_may_not_know_is_not_there_and_the_asking_is_on_record(
    ward: Ward,
) -> None:
    with pytest.raises(NotFound):
        await ward.raised(by=ward.colleague)
    await asyncio.sleep(0.2)  # the journal joins the chain in the background
    assert await ward.mine(ward.nurse) == []


async def test_the_same_key_raises_one_alert(ward: Ward) -> None:
    who = again(ward.nurse, key="once")
    made = [
        await ward.alerts.raise_alert(
            again(who, key="once"),
            severity="high",
            code="fall",
            to=To("care"),
            patient=ward.patient,
        )
        for _ in range(2)
    ]
    assert [fresh for _, fresh in made] == [True, False]
    assert made[0][0] == made[1][0]
    with pytest.raises(Unprocessable):
        await ward.alerts.raise_alert(
            again(who, key="once"),
            severity="critical",
            code="fall",
            to=To("care"),
            patient=ward.patient,
        )


async def test_every_act_is_in_the_chain_by_ids_and_the_text_lies_sealed(ward: Ward) -> None:
    id = await ward.raised()
    await ward.alerts.acknowledge(ward.physician, id)
    await ward.mine(ward.physician)
    await ward.alerts.resolve(ward.physician, id)
    acts = [each for each in ward.owner.entries() if each["action"].startswith("alert-")]
    assert [each["action"] for each in acts] == [
        *("alert-raise", "alert-acknowledge", "alert-delivery", "alert-resolve"),
    ]
    assert {each["patient"] for each in acts} == {ward.patient}
    assert {each["resource"] for each in acts} == {f"Alert/{id}"}
    assert acts[2]["details"]["alerts"] == [id]
    for table in ("alerts.alert", "alerts.event", "audit.entry", "records.idempotency"):
        rows = ward.owner.rows(f"SELECT t::text FROM {table} AS t")
        assert rows
        assert people.MARK not in str(rows)


async def test_pages_follow_each_other(ward: Ward) -> None:
    ids = [await ward.raised() for _ in range(5)]
    found: list[str] = []
    cursor = None
    while True:
        page, cursor = await ward.alerts.listed(ward.physician, every=False, count=2, cursor=cursor)
        found += [each.id for each in page]
        if cursor is None:
            break
    assert found == ids[::-1]
    with pytest.raises(Invalid):
        await ward.alerts.listed(ward.physician, every=False, count=2, cursor="x")


async def test_in_emergency_critical_alerts_alone_are_taken(
    ward: Ward, database: Database, sealer: Sealer, audit: Audit
) -> None:
    alerts = Alerts(database, sealer, audit, RecordsArgs(), severities=("critical",))
    asked = {"code": "fall", "to": To("care"), "patient": ward.patient}
    with pytest.raises(Forbidden) as caught:
        await alerts.raise_alert(again(ward.nurse), severity="high", **asked)  # type: ignore[arg-type]
    assert caught.value.code == "severity_not_taken"
    made, _ = await alerts.raise_alert(again(ward.nurse), severity="critical", **asked)  # type: ignore[arg-type]
    assert made.severity == "critical"


async def test_numbers_are_given_in_the_order_in_which_they_can_be_seen(ward: Ward) -> None:
    """Twenty at once: whoever reads up to a number has seen every smaller one."""
    seen: list[list[int]] = []

    async def look() -> None:
        while True:
            rows = ward.owner.rows("SELECT seq FROM alerts.event ORDER BY seq")
            seen.append([seq for (seq,) in rows])
            await asyncio.sleep(0)

    looking = asyncio.create_task(look())
    await asyncio.gather(*(ward.raised() for _ in range(20)))
    looking.cancel()
    rows = ward.owner.rows("SELECT seq FROM alerts.event ORDER BY seq")
    assert [seq for (seq,) in rows] == list(range(1, 21))
    assert all(each == list(range(1, len(each) + 1)) for each in seen)


def test_the_application_cannot_number_change_or_remove_events(ward: Ward) -> None:
    import psycopg

    dsn = psycopg.conninfo.make_conninfo(ward.owner.dsn, user="medrec_app")
    refused = 0
    for statement in (
        "UPDATE alerts.event SET kind = 'resolved'",
        "DELETE FROM alerts.event",
        "DELETE FROM alerts.alert",
        "UPDATE alerts.alert SET patient = 'x'",
        "UPDATE alerts.alert SET severity = 'high'",
        "UPDATE alerts.head SET seq = 0",
        "SELECT * FROM alerts.head",
        "SELECT alerts.number()",
        "INSERT INTO alerts.event (id, alert, organization, seq, kind, at, actor, role, level)"
        " VALUES (gen_random_uuid(), gen_random_uuid(), 'hospital', 1, 'raised', now(), 'a', 'n', 0)",
    ):
        with (
            psycopg.connect(dsn) as connection,
            pytest.raises(psycopg.errors.InsufficientPrivilege),
        ):
            connection.execute(statement.encode())
        refused += 1
    assert refused == 9


def test_a_cursor_is_a_number_and_an_id_and_nothing_else() -> None:
    id = "0193b5f2-0000-7000-8000-000000000000"
    place = place_of(f"12.{id}")
    assert place is not None
    assert (place.seq, place.id) == (12, id)
    for text in ("", "12", f"-1.{id}", f"1.{id.upper()}x", f"١.{id}", "1.x", f"{'9' * 19}.{id}"):
        assert place_of(text) is None


async def test_a_text_that_does_not_open_keeps_nobody_from_their_alerts(ward: Ward) -> None:
    sound, damaged = await ward.raised(), await ward.raised()
    ward.owner.rows("UPDATE alerts.alert SET sealed = sealed || '\\x00' WHERE id = %s", damaged)
    found, _ = await ward.alerts.listed(ward.physician, every=False, count=10, cursor=None)
    assert {alert.id: alert.text for alert in found} == {sound: TEXT, damaged: None}
    assert (await ward.alerts.acknowledge(ward.physician, damaged)).state == "acknowledged"
