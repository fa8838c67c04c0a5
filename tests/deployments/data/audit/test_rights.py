"""What the database itself refuses: to the application's role, and by accident to the owner."""

from __future__ import annotations

import psycopg
import pytest

from deployments.data.audit.chain import Audit
from deployments.data.audit.entry import AuditEntry
from tests.deployments.data.audit.acts import chain, entry, soon

FORGED = entry(99)
STATEMENTS = (
    "UPDATE audit.entry SET body = body",
    "UPDATE audit.entry SET patient = 'other'",
    "DELETE FROM audit.entry",
    "TRUNCATE audit.entry",
    "INSERT INTO audit.entry SELECT * FROM audit.entry",
    "UPDATE audit.head SET seq = seq + 1",
    "DELETE FROM audit.head",
    "INSERT INTO audit.head (singleton, seq, hash) SELECT false, seq, hash FROM audit.head",
    "TRUNCATE audit.head",
    "SELECT * FROM audit.outbox",
    "DELETE FROM audit.outbox",
    "UPDATE audit.outbox SET body = body",
    "TRUNCATE audit.outbox",
    "INSERT INTO audit.outbox (id, body, created_at) VALUES (gen_random_uuid(), '{}', now())",
    "ALTER TABLE audit.entry DISABLE TRIGGER ALL",
    "ALTER TABLE audit.entry DISABLE ROW LEVEL SECURITY",
    "DROP TABLE audit.entry",
    "DROP FUNCTION audit.append(text[], uuid[])",
    "CREATE TABLE audit.mine ()",
    "CREATE FUNCTION audit.append(text) RETURNS void LANGUAGE sql AS ''",
    "SET session_replication_role = replica",
    "SET ROLE medrec_owner",
)
BY_ACCIDENT = (
    "UPDATE audit.entry SET body = 'x' WHERE seq = 1",
    "DELETE FROM audit.entry WHERE seq = 2",
    "TRUNCATE audit.entry",
    "DELETE FROM audit.head",
    "TRUNCATE audit.head",
    "INSERT INTO audit.head (singleton, seq, hash) SELECT false, seq, hash FROM audit.head",
    "UPDATE audit.head SET seq = 1",
    "SET LOCAL session_replication_role = replica; DELETE FROM audit.entry",
)


@pytest.fixture
async def two_entries(audit: Audit) -> None:
    await audit.record(entry(1), deadline=soon())
    await audit.record(entry(2, organization="other"), deadline=soon())


@pytest.mark.usefixtures("two_entries")
def test_the_application_cannot_touch_the_chain(dsns: tuple[str, str]) -> None:
    before = chain(dsns[1])
    allowed = []
    with psycopg.connect(dsns[0]) as application:
        for statement in STATEMENTS:
            # Even where it would see every row.
            application.execute("SELECT set_config('medrec.chain', 'verify', true)")
            try:
                application.execute(statement)
                allowed.append(statement)
            except psycopg.errors.InsufficientPrivilege:
                pass
            application.rollback()
    assert allowed == []
    assert chain(dsns[1]) == before


@pytest.mark.usefixtures("two_entries")
def test_the_application_cannot_insert_a_forged_row(dsns: tuple[str, str]) -> None:
    columns = "seq, id, at, organization, actor, role, action, outcome, request_id, body"
    with (
        psycopg.connect(dsns[0]) as application,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        application.execute(
            f"INSERT INTO audit.entry ({columns}, previous, hash) VALUES "
            "(3, %s, now(), 'hospital', 'a', 'r', 'read', 'success', 'r', %s, %s, %s)",
            [FORGED.id, FORGED.body().decode(), bytes(32), bytes(32)],
        )


@pytest.mark.usefixtures("two_entries")
def test_the_owner_does_not_change_the_chain_by_accident(dsns: tuple[str, str]) -> None:
    before = chain(dsns[1])
    with psycopg.connect(dsns[1]) as owner:
        for statement in BY_ACCIDENT:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                owner.execute(statement)
            owner.rollback()
    assert chain(dsns[1]) == before


@pytest.mark.usefixtures("two_entries")
def test_a_reader_sees_its_organisation_and_nobody_without_one_sees_anything(
    dsns: tuple[str, str],
) -> None:
    with psycopg.connect(dsns[0]) as application:
        for organization, expected in (("hospital", [1]), ("other", [2]), ("", []), (None, [])):
            if organization is not None:
                application.execute(
                    "SELECT set_config('medrec.organization', %s, true)", [organization]
                )
            rows = application.execute("SELECT seq FROM audit.entry ORDER BY seq").fetchall()
            application.rollback()
            assert [seq for (seq,) in rows] == expected


BODY = entry(7).body().decode()


def test_the_outbox_takes_no_row_that_the_chain_could_not(dsns: tuple[str, str]) -> None:
    for id, body in (
        (str(entry(8).id), BODY),
        (str(FORGED.id), "no json"),
        (str(FORGED.id), "[]"),
        (str(FORGED.id), "{}"),
        (str(FORGED.id), f'{{"id": "{FORGED.id}", "x": "{"y" * 140_000}"}}'),
    ):
        with psycopg.connect(dsns[0]) as application, pytest.raises(psycopg.Error):
            application.execute("INSERT INTO audit.outbox (id, body) VALUES (%s, %s)", [id, body])


NO_ENTRIES = [
    "no json",
    "{}",
    '{"id": "x"}',
    f'{{"id": "{FORGED.id}"}}',
    "\N{GRINNING FACE}",
    '["a"]',
]


def test_a_body_that_is_no_entry_is_refused_and_the_chain_stays_as_it_was(
    dsns: tuple[str, str],
) -> None:
    with psycopg.connect(dsns[0]) as application:
        for body in NO_ENTRIES:
            with pytest.raises(psycopg.Error):
                application.execute("SELECT audit.append(%s::text[], '{}')", [[BODY, body]])
            application.rollback()
            assert application.execute("SELECT seq FROM audit.head").fetchone() == (0,)


def test_names_of_the_caller_do_not_lead_the_append_astray(dsns: tuple[str, str]) -> None:
    one = AuditEntry("read", "success", "a", "account", "nurse", "hospital")
    with psycopg.connect(dsns[0]) as application:
        application.execute("SET search_path = public, audit")
        application.execute("SET TimeZone = 'America/Sao_Paulo'; SET DateStyle = 'German, DMY'")
        application.execute("SELECT audit.append(%s::text[], '{}')", [[one.body().decode()]])
    with psycopg.connect(dsns[1]) as owner:
        row = owner.execute("SELECT extract(epoch FROM at)::float8 FROM audit.entry").fetchone()
    assert row is not None
    assert abs(row[0] - one.at) < 1e-5
