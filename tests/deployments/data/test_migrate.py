"""A database comes to the code's revision once, whoever starts; a newer one is refused."""

from __future__ import annotations

import re
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from deployments.data import migrate as module
from deployments.data.migrate import LOCK, MigrationError, current, head, migrate
from deployments.data.postgres import APPLICATION, OWNER, LocalServer

SCHEMAS = ("records", "audit", "accounts", "interactions", "alerts")


@pytest.fixture
def empty(postgres: LocalServer) -> Iterator[str]:
    """The owner's DSN of a database in which nothing was ever migrated."""
    name = f"e_{uuid.uuid4().hex}"
    with psycopg.connect(postgres.dsn(OWNER, "postgres"), autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
        yield postgres.dsn(OWNER, name)
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def test_an_empty_database_comes_to_the_head_and_stays_there(empty: str) -> None:
    assert migrate(empty) == head() == "0011"
    assert migrate(empty) == head()
    with psycopg.connect(empty) as connection:
        assert current(connection) == head()
        rows = connection.execute(
            "SELECT nspname FROM pg_namespace WHERE nspname = ANY(%s)", [list(SCHEMAS)]
        ).fetchall()
        assert {row[0] for row in rows} == set(SCHEMAS)
        found = connection.execute("SELECT '[1,2]'::public.vector").fetchone()
        assert found == ("[1,2]",)


def test_of_two_starters_one_migrates_and_the_other_waits(empty: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        assert [*pool.map(migrate, [empty] * 4)] == [head()] * 4


def test_the_wait_for_another_starter_is_bounded(empty: str) -> None:
    with psycopg.connect(empty, autocommit=True) as other:
        other.execute("SELECT pg_advisory_lock(%s)", [LOCK])
        began = time.monotonic()
        with pytest.raises(MigrationError, match=r"has been migrating for 0\.5 s"):
            migrate(empty, wait_s=0.5)
        assert time.monotonic() - began < 5
        threading.Timer(0.5, other.execute, ["SELECT pg_advisory_unlock(%s)", [LOCK]]).start()
        assert migrate(empty, wait_s=30) == head()


def test_a_database_newer_than_the_code_is_refused_and_left_alone(dsns: tuple[str, str]) -> None:
    with psycopg.connect(dsns[1], autocommit=True) as connection:
        connection.execute("UPDATE public.alembic_version SET version_num = '9999'")
        connection.execute("UPDATE public.medrec_least_code SET revision = '9998'")
        with pytest.raises(MigrationError, match=r"at revision 9999, newer than this code"):
            migrate(dsns[1])
        connection.execute("DROP TABLE public.medrec_least_code")
        with pytest.raises(MigrationError, match=r"at revision 9999, newer than this code"):
            migrate(dsns[1])
        assert current(connection) == "9999"


def test_a_cell_that_is_upgraded_later_can_still_be_started_on_the_newer_database(
    dsns: tuple[str, str],
) -> None:
    with psycopg.connect(dsns[1], autocommit=True) as connection:
        connection.execute("UPDATE public.alembic_version SET version_num = '9999'")
        assert migrate(dsns[1]) == "9999"
        assert current(connection) == "9999"


BREAKS = re.compile(
    r"DROP\s+(TABLE|COLUMN|FUNCTION|VIEW|SCHEMA)|\bRENAME\b|ALTER\s+COLUMN\s+\w+\s+(SET\s+NOT\s+NULL|TYPE)"
    r"|ADD\s+COLUMN\s+\w+(?:(?!DEFAULT)[^,;])*NOT\s+NULL(?:(?!DEFAULT)[^,;])*[,;]",
    re.IGNORECASE,
)


@pytest.mark.parametrize(
    ("sql", "breaks"),
    [
        ("ALTER TABLE a ADD COLUMN b text;", False),
        ("ALTER TABLE a ADD COLUMN b text NOT NULL DEFAULT '';", False),
        ("ALTER TABLE a ADD COLUMN b text NOT NULL;", True),
        ("ALTER TABLE a DROP COLUMN b;", True),
        ("ALTER TABLE a RENAME TO c;", True),
        ("ALTER TABLE a ALTER COLUMN b TYPE bigint;", True),
    ],
)
def test_what_older_code_cannot_live_with_is_recognised(sql: str, breaks: bool) -> None:
    assert bool(BREAKS.search(sql)) == breaks


def test_a_migration_that_older_code_cannot_live_with_says_so() -> None:
    folder = Path(module.__file__).parent / "migrations" / "versions"
    silent = [
        path.name
        for path in folder.glob("0*.py")
        if path.name > "0011"
        and BREAKS.search(path.read_text())
        and "medrec_least_code" not in path.read_text()
    ]
    assert silent == []


def test_a_server_that_is_too_old_is_refused(
    dsns: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LEAST_SERVER", 999_999)
    with pytest.raises(MigrationError, match="is too old"):
        migrate(dsns[1])


def test_an_absent_server_is_told_and_not_waited_for() -> None:
    began = time.monotonic()
    with pytest.raises(MigrationError, match="cannot be reached"):
        migrate("host=/nonexistent user=medrec_owner dbname=medrec")
    assert time.monotonic() - began < 5


def test_a_run_that_fails_leaves_nothing_behind(
    empty: str, postgres: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All revisions of one run are one transaction: here a later one finds its table taken."""
    with psycopg.connect(empty, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA interactions")
        with pytest.raises(MigrationError, match="a migration failed"):
            migrate(empty)
        assert current(connection) is None
        rows = connection.execute("SELECT nspname FROM pg_namespace WHERE nspname = 'records'")
        assert rows.fetchall() == []
        connection.execute("DROP SCHEMA interactions")
    assert migrate(empty) == head()


def test_a_role_that_could_bypass_row_security_is_refused(empty: str) -> None:
    with psycopg.connect(empty, autocommit=True) as connection:
        connection.execute(f"ALTER ROLE {APPLICATION} BYPASSRLS")
        try:
            with pytest.raises(MigrationError, match="may not be superuser nor bypass"):
                migrate(empty)
        finally:
            connection.execute(f"ALTER ROLE {APPLICATION} NOBYPASSRLS")


def test_the_applications_role_cannot_migrate(dsns: tuple[str, str]) -> None:
    with psycopg.connect(dsns[0]) as connection:
        assert current(connection) == head()
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("UPDATE public.alembic_version SET version_num = '0001'")


def test_an_owner_who_is_no_superuser_can_migrate_what_an_administrator_prepared(
    empty: str,
) -> None:
    """As on a server that is not ours: role, extension and database made beforehand."""
    role = f"owner_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(empty, autocommit=True) as administrator:
        name = administrator.info.dbname
        administrator.execute(f"CREATE ROLE {role} LOGIN NOSUPERUSER")
        administrator.execute(f'ALTER DATABASE "{name}" OWNER TO {role}')
        administrator.execute("CREATE EXTENSION vector WITH SCHEMA public")
        administrator.execute(f"ALTER SCHEMA public OWNER TO {role}")
        try:
            dsn = psycopg.conninfo.make_conninfo(empty, user=role)
            assert migrate(dsn) == head()
        finally:
            administrator.execute(f'ALTER DATABASE "{name}" OWNER TO {OWNER}')
            administrator.execute(f"ALTER SCHEMA public OWNER TO {OWNER}")
            administrator.execute(f"DROP OWNED BY {role} CASCADE")
            administrator.execute(f"DROP ROLE {role}")
