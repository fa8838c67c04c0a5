from __future__ import annotations

import time

from deployments.data.audit.chain import Audit
from deployments.data.database import Database
from deployments.data.interactions import retention
from deployments.data.interactions.ledger import Ledger
from tests.deployments.data.interactions.conftest import (
    again,
    answer,
    chained,
    eventually,
    question,
)
from tests.deployments.data.records.conftest import House, Owner

KEPT = "SELECT count(*) FROM interactions.short_lived"


def soon() -> float:
    return time.monotonic() + 20


async def closed(database: Database, audit: Audit, older_than_s: float = 60.0) -> int:
    return await retention.close_abandoned(
        database, audit, older_than_s=older_than_s, known_s=0.0, deadline=soon()
    )


async def test_only_texts_whose_days_are_over_are_deleted_on_record(
    database: Database, audit: Audit, ledger: Ledger, house: House, owner: Owner
) -> None:
    old, new = question(await house.patient()), question(await house.patient())
    for asked in (old, new):
        await ledger.begin(again(house.physician), asked)
        await ledger.end(again(house.physician), asked, answer())
    assert await retention.purge(database, audit, deadline=soon()) == {}
    owner.rows(
        "UPDATE interactions.short_lived SET expires_at = now() WHERE interaction = %s", old.id
    )
    assert await retention.purge(database, audit, deadline=soon()) == {"chat": 2}
    left = owner.rows("SELECT DISTINCT interaction FROM interactions.short_lived")
    assert left == [(new.id,)]
    (entry,) = owner.entries("purge")
    assert entry["details"] == {"kind": "chat", "texts": 2, "reason": "retention"}
    assert entry["organization"] == "hospital"


async def test_more_texts_than_a_batch_are_all_deleted(
    database: Database, audit: Audit, owner: Owner
) -> None:
    owner.rows(
        "INSERT INTO interactions.short_lived (id, kind, organization, owner, created_at, "
        "expires_at, key_id, wrapped_key, data) SELECT gen_random_uuid(), 'audio', 'hospital', "
        "'a', now(), now(), 'k', '', '' FROM generate_series(1, %s)",
        2 * retention.BATCH + 1,
    )
    gone = await retention.purge(database, audit, deadline=soon())
    assert gone == {"audio": 2 * retention.BATCH + 1}
    assert owner.rows(KEPT) == [(0,)]


async def test_questions_of_a_lost_replica_are_closed_as_interrupted(
    database: Database, audit: Audit, ledger: Ledger, house: House, owner: Owner
) -> None:
    long_ago = time.time() - 3600
    lost = question(await house.patient(), at=long_ago)
    lost_too, running = question(at=long_ago), question(await house.patient())
    answered = question(await house.patient(), at=long_ago)
    for asked in (lost, lost_too, running, answered):
        await ledger.begin(again(house.physician), asked)
    await ledger.end(again(house.physician), answered, answer())
    owner_knows = "SELECT count(*) FROM audit.entry WHERE action = 'ai-request'"
    await eventually(lambda: owner.rows(owner_knows) == [(4,)])

    # An entry tells when it was made; these were asked an hour ago.
    assert await closed(database, audit) == 0
    owner.rows(
        "UPDATE interactions.unanswered SET at = at - interval '1 hour' WHERE "
        "interaction IN (%s, %s)",
        lost.id,
        lost_too.id,
    )
    assert await closed(database, audit) == 2
    assert await closed(database, audit) == 0
    for asked in (lost, lost_too):
        assert chained(owner, asked.id)[-1] == ("ai-answer", "interrupted")
    assert chained(owner, running.id) == [("ai-request", "success")]
    assert chained(owner, answered.id)[-1] == ("ai-answer", "success")
    (row,) = owner.rows(
        "SELECT outcome, output_sha256 FROM interactions.interaction WHERE id = %s", lost.id
    )
    assert row == ("interrupted", None)
    entry = owner.entries("ai-answer")[-1]
    assert entry["actor"] == house.physician.principal.id
    assert entry["details"]["code"] == "replica_lost"


async def test_a_question_just_seen_is_given_time_however_old_it_is(
    database: Database, audit: Audit, ledger: Ledger, house: House, owner: Owner
) -> None:
    asked = question(await house.patient())
    await ledger.begin(again(house.physician), asked)
    now = {"older_than_s": 0.0, "deadline": soon()}
    assert await retention.close_abandoned(database, audit, known_s=60.0, **now) == 0
    await ledger.end(again(house.physician), asked, answer())
    assert await retention.close_abandoned(database, audit, known_s=0.0, **now) == 0
