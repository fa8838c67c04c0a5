from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from configs.args import Retention
from deployments.data.audit.chain import Audit
from deployments.data.database import Database
from deployments.data.errors import Forbidden, StoreUnavailable
from deployments.data.interactions.ledger import Ledger
from deployments.data.seal.sealer import Sealer
from tests.deployments.data.interactions.conftest import (
    again,
    answer,
    chained,
    eventually,
    question,
)
from tests.deployments.data.records.conftest import House, Owner
from tests.deployments.data.records.people import MARK

ROW = "SELECT patient, account, outcome, output_sha256 FROM interactions.interaction WHERE id = %s"


async def test_about_a_patient_question_and_outcome_are_chained_when_their_calls_return(
    ledger: Ledger, house: House, owner: Owner
) -> None:
    patient = await house.patient()
    asked, answered = question(patient), answer()
    await ledger.begin(again(house.physician), asked)
    assert chained(owner, asked.id) == [("ai-request", "success")]
    assert owner.rows(ROW, asked.id) == [(patient, house.physician.principal.id, None, None)]
    await ledger.end(again(house.physician), asked, answered)
    assert chained(owner, asked.id) == [("ai-request", "success"), ("ai-answer", "success")]
    assert owner.rows(ROW, asked.id)[0][2:] == ("success", answered.output_sha256)


async def test_the_chain_holds_who_asked_what_of_which_model_by_ids_and_hashes(
    ledger: Ledger, house: House, owner: Owner
) -> None:
    patient = await house.patient()
    asked = question(patient)
    await ledger.begin(again(house.physician), asked)
    (entry,) = owner.entries("ai-request")
    assert entry["actor"] == house.physician.principal.id
    assert entry["patient"] == patient
    assert entry["details"] == asked.details()
    assert set(asked.details()) >= {"model", "weights_sha256", "prompt_version", "input_sha256"}


async def test_texts_about_a_patient_are_kept_sealed_and_nowhere_in_the_open(
    ledger: Ledger, house: House, owner: Owner
) -> None:
    asked = question(await house.patient())
    await ledger.begin(again(house.physician), asked)
    await ledger.end(again(house.physician), asked, answer())
    kept = owner.rows(
        "SELECT part, kind, expires_at - created_at, data FROM interactions.short_lived "
        "WHERE interaction = %s ORDER BY part",
        asked.id,
    )
    assert [(part, kind, lasts.days) for part, kind, lasts, _ in kept] == [
        ("input", "chat", 90),
        ("output", "chat", 90),
    ]
    every = owner.rows(
        "SELECT i::text FROM interactions.interaction i UNION ALL "
        "SELECT s::text || encode(s.data, 'escape') FROM interactions.short_lived s UNION ALL "
        "SELECT e.body FROM audit.entry e"
    )
    assert len(every) > 4
    assert not [row for (row,) in every if MARK in row or "troubles" in row]


async def test_nothing_is_kept_where_the_retention_is_of_no_days(
    database: Database, sealer: Sealer, audit: Audit, house: House, owner: Owner
) -> None:
    ledger = Ledger(database, sealer, audit, Retention(chats_days=0))
    asked = question(await house.patient())
    await ledger.begin(again(house.physician), asked)
    await ledger.end(again(house.physician), asked, answer())
    assert owner.rows("SELECT count(*) FROM interactions.short_lived") == [(0,)]
    assert len(chained(owner, asked.id)) == 2


async def test_without_a_patient_the_row_follows_and_no_text_is_kept(
    ledger: Ledger, house: House, owner: Owner
) -> None:
    asked = question()
    await ledger.begin(again(house.physician), asked)
    await ledger.end(again(house.physician), asked, answer())
    await eventually(lambda: [row[2] for row in owner.rows(ROW, asked.id)] == ["success"])
    await eventually(lambda: len(chained(owner, asked.id)) == 2)
    assert chained(owner, asked.id) == [("ai-request", "success"), ("ai-answer", "success")]
    assert owner.rows("SELECT count(*) FROM interactions.short_lived") == [(0,)]


async def test_the_database_itself_refuses_a_question_about_somebody_elses_patient(
    ledger: Ledger, house: House, owner: Owner
) -> None:
    asked = question(await house.patient())
    with pytest.raises(Forbidden):
        await ledger.begin(again(house.colleague), asked)
    assert owner.rows(ROW, asked.id) == []
    assert chained(owner, asked.id) == []


async def test_an_outcome_is_told_once(ledger: Ledger, house: House, owner: Owner) -> None:
    asked = question(await house.patient())
    await ledger.begin(again(house.physician), asked)
    await ledger.end(again(house.physician), asked, answer("interrupted"))
    await ledger.end(again(house.physician), asked, answer("success"))
    assert owner.rows(ROW, asked.id)[0][2] == "interrupted"


async def test_the_application_can_change_no_question_and_delete_nothing(
    database: Database, ledger: Ledger, house: House
) -> None:
    asked = question(await house.patient())
    await ledger.begin(again(house.physician), asked)
    for statement in (
        "UPDATE interactions.interaction SET input_sha256 = 'x'",
        "DELETE FROM interactions.interaction",
        "DELETE FROM interactions.short_lived",
        "UPDATE interactions.decision SET decision = 'accepted'",
        "DELETE FROM interactions.decision",
        "DELETE FROM interactions.switch",
        "SELECT * FROM interactions.unanswered",
    ):
        caller = again(house.machine)
        with pytest.raises(Forbidden):
            async with database.transaction(
                deadline=caller.deadline, organization="hospital", compartment="all"
            ) as connection:
                await connection.execute(statement.encode())


async def test_rows_wait_for_the_database_and_a_spoilt_batch_holds_up_none_after_it(
    sealer: Sealer, audit: Audit, database: Database, house: House, owner: Owner, tmp_path: Path
) -> None:
    nowhere = Database(f"host={tmp_path} dbname=none", connections=2)
    await nowhere.open()
    ledger = Ledger(nowhere, sealer, audit, Retention())
    spoilt, good = replace(question(), id="no id!"), question()
    for asked in (good, spoilt):
        await ledger.begin(again(house.physician), asked)
    with pytest.raises(StoreUnavailable):
        await ledger._flush()
    ledger._database = database
    await ledger._flush()
    assert owner.rows("SELECT count(*) FROM interactions.interaction") == [(0,)]
    await ledger.begin(again(house.physician), asked := question())
    await ledger._flush()
    assert [row[2] for row in owner.rows(ROW, asked.id)] == [None]
    await nowhere.close()
