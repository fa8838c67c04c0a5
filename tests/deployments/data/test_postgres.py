"""The cell's own PostgreSQL: made whole, private, silent, ended without a trace, back after a crash."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import psycopg
import pytest

from deployments.cell.state import CellError, Home
from deployments.data import postgres as local_postgres
from deployments.data.database import Database
from deployments.data.errors import CommitUnknown, DataError, StoreUnavailable
from deployments.data.postgres import APPLICATION, OWNER, LocalServer
from deployments.data.postgres_settings import settings


@pytest.fixture
def server() -> Iterator[LocalServer]:
    """A server of this test's own, made and not started."""
    with tempfile.TemporaryDirectory(prefix="medrec-") as folder:
        home = Home(Path(folder).resolve())
        home.prepare()
        made = local_postgres.local(home)
        made.initialise()
        yield made
        assert made.stop() == []
        made.discard()


@contextmanager
def started(server: LocalServer) -> Iterator[subprocess.Popen[bytes]]:
    process = server.start({"fsync": "off"})
    try:
        server.wait_ready(process)
        yield process
    finally:
        server.stop()
        process.wait(10)


def asked(postgres: LocalServer, query: str, role: str = OWNER) -> tuple[object, ...]:
    with psycopg.connect(postgres.dsn(role), autocommit=True) as connection:
        row = connection.execute(query.encode()).fetchone()
        assert row is not None
        return row


def postmaster(postgres: LocalServer) -> psutil.Process:
    found = postgres.running()
    assert found is not None
    return psutil.Process(found.pid)


def test_it_has_checksums_its_own_collation_and_no_tcp(postgres: LocalServer) -> None:
    query = (
        "SELECT current_setting('data_checksums'), current_setting('listen_addresses'),"
        " current_setting('server_encoding'), datlocprovider, datlocale"
        " FROM pg_database WHERE datname = current_database()"
    )
    assert asked(postgres, query) == ("on", "", "UTF8", "b", "C.UTF-8")
    assert postmaster(postgres).net_connections("tcp") == []


def test_the_applications_role_is_no_superuser_and_owns_nothing(postgres: LocalServer) -> None:
    query = (
        "SELECT rolsuper, rolcreatedb, rolcreaterole, rolbypassrls, rolreplication,"
        " (SELECT count(*) FROM pg_class WHERE relowner = r.oid),"
        " (SELECT count(*) FROM pg_proc WHERE proowner = r.oid),"
        " (SELECT count(*) FROM pg_namespace WHERE nspowner = r.oid)"
        " FROM pg_roles AS r WHERE rolname = current_user"
    )
    assert asked(postgres, query, APPLICATION) == (*[False] * 5, 0, 0, 0)


@pytest.mark.parametrize(
    "statement",
    ["CREATE TABLE public.x ()", "CREATE TABLE records.x ()", "CREATE SCHEMA x", "CREATE ROLE x"],
)
def test_the_applications_role_can_make_nothing(postgres: LocalServer, statement: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        asked(postgres, statement, APPLICATION)


def test_folders_and_socket_are_their_owners_alone(postgres: LocalServer) -> None:
    for path in (postgres.data, postgres.sockets, postgres.sockets / ".s.PGSQL.5432"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert len(str(postgres.sockets / ".s.PGSQL.5432")) < 104


def test_its_processes_do_not_run_as_root(postgres: LocalServer) -> None:
    process = postmaster(postgres)
    assert 0 not in process.uids()
    environment = process.environ()
    assert not [name for name in environment if "TOKEN" in name or "MEDREC" in name]


def test_no_value_of_a_failed_statement_reaches_the_log(postgres: LocalServer) -> None:
    word = "marked-7c1f"
    with psycopg.connect(postgres.dsn(OWNER, "postgres"), autocommit=True) as connection:
        connection.execute("CREATE TEMP TABLE probe (name text PRIMARY KEY, n integer)")
        connection.execute("INSERT INTO probe VALUES (%s)", [word])
        for statement, value in (
            ("INSERT INTO probe VALUES (%s)", word),
            ("SELECT %s::integer", word),
            (f"SELECT '{word}'::uuid", None),
            (f"SELECT no_such_column -- {word}", None),
        ):
            with pytest.raises(psycopg.Error):
                connection.execute(statement, None if value is None else [value])
        with pytest.raises(psycopg.errors.QueryCanceled):
            connection.execute(f"SET statement_timeout = 50; SELECT pg_sleep(5), '{word}'")
    assert word not in postgres.log.read_text()


def test_settings_scale_with_the_node_and_stay_within_it() -> None:
    small, large = settings(3.0, 0.5), settings(100.0, 8.0)
    assert (small["shared_buffers"], large["shared_buffers"]) == ("384MB", "12800MB")
    assert (small["work_mem"], large["work_mem"]) == ("4MB", "64MB")
    assert small["max_parallel_workers_per_gather"] == "0"


def test_another_version_s_data_are_refused(server: LocalServer) -> None:
    (server.data / "PG_VERSION").write_text("17\n")
    with pytest.raises(CellError, match="is of PostgreSQL 17, this is 18"):
        server.initialise()


def test_what_broke_off_while_being_made_is_made_again(tmp_path: Path) -> None:
    home = Home(tmp_path.resolve() / "home")
    home.prepare()
    server = local_postgres.local(home)
    half = server.data.with_name("postgres.new")
    half.mkdir()
    (half / "PG_VERSION").write_text("18\n")
    server.initialise()
    assert server.exists
    assert not half.exists()
    assert (server.data / "global" / "pg_control").exists()


def test_stopping_ends_every_process_and_cuts_its_clients(server: LocalServer) -> None:
    with started(server) as process:
        client = psycopg.connect(server.dsn(OWNER))
        assert len(server.pids()) > 3
        began = time.monotonic()
        assert server.stop() == []
        assert time.monotonic() - began < 15
        assert process.wait(5) == 0
        assert server.pids() == set()
        with pytest.raises(psycopg.OperationalError):
            client.execute("SELECT 1")
        client.close()
    assert "database system is shut down" in server.log.read_text()


def test_a_frozen_server_is_ended_too(server: LocalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_postgres, "_FAST_S", 0.5)
    monkeypatch.setattr(local_postgres, "_IMMEDIATE_S", 0.5)
    with started(server) as process:
        os.kill(process.pid, signal.SIGSTOP)
        assert server.stop() == []
        assert server.pids() == set()


def test_a_second_server_on_the_same_folder_is_refused(
    server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with started(server) as process:
        with pytest.raises(CellError, match="already runs"):
            server.start()
        found = server.running()
        assert found is not None
        assert found.pid == process.pid


def test_a_pid_file_that_names_another_program_is_no_obstacle(server: LocalServer) -> None:
    with started(server):
        pass
    lines = [
        str(os.getpid()),
        str(server.data),
        "1",
        "5432",
        str(server.sockets),
        "",
        "1 1",
        "ready",
    ]
    (server.data / "postmaster.pid").write_text("\n".join(lines))
    assert server.running() is None
    with started(server):
        assert server.running() is not None


async def test_a_kill_during_writes_loses_nothing_that_was_acknowledged(
    server: LocalServer,
) -> None:
    process = server.start()
    server.wait_ready(process)
    with psycopg.connect(server.dsn(OWNER), autocommit=True) as owner:
        owner.execute("CREATE SCHEMA s; CREATE TABLE s.t (id integer PRIMARY KEY)")
        owner.execute("GRANT USAGE ON SCHEMA s TO medrec_app")
        owner.execute("GRANT SELECT, INSERT ON s.t TO medrec_app")
    database = Database(server.dsn(APPLICATION), connections=4)
    await database.open()
    acknowledged, unknown, refused = list[int](), list[int](), list[DataError]()
    over, again, wanted = asyncio.Event(), asyncio.Event(), 10**9

    async def write(first: int) -> None:
        number = first
        while not over.is_set():
            number += 10
            try:
                async with database.transaction(deadline=time.monotonic() + 5) as connection:
                    await connection.execute("INSERT INTO s.t VALUES (%s)", [number])
                acknowledged.append(number)
                if len(acknowledged) >= wanted:
                    again.set()
            except CommitUnknown:
                unknown.append(number)
            except StoreUnavailable as error:
                refused.append(error)

    writers = [asyncio.create_task(write(first)) for first in range(8)]
    await asyncio.sleep(1.0)
    process.kill()
    process.wait()
    wanted = len(acknowledged) + 50
    process = await asyncio.to_thread(server.start)
    await asyncio.to_thread(server.wait_ready, process)
    await asyncio.wait_for(again.wait(), 15)
    over.set()
    await asyncio.gather(*writers)
    await database.close()
    with psycopg.connect(server.dsn(OWNER)) as owner:
        kept = {row[0] for row in owner.execute("SELECT id FROM s.t")}
    assert set(acknowledged) - kept == set()
    assert kept - set(acknowledged) <= set(unknown)
    server.stop()
    process.wait(10)


async def test_a_database_that_comes_late_is_found(server: LocalServer) -> None:
    """Nobody waits for an absent server: not the opening, and requests less as it becomes known."""
    with started(server):
        pass
    database = Database(server.dsn(APPLICATION), connections=4)
    began = time.monotonic()
    await database.open()
    assert time.monotonic() - began < 1

    async def ask(limit_s: float) -> None:
        async with database.transaction(deadline=time.monotonic() + limit_s) as connection:
            await connection.execute("SELECT 1")

    with pytest.raises(StoreUnavailable):
        await ask(1.0)
    await asyncio.sleep(5.0)
    began = time.monotonic()
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        await ask(10.0)
    assert time.monotonic() - began < 2
    with started(server):
        for _ in range(20):
            try:
                await ask(10.0)
                break
            except StoreUnavailable:
                continue
        else:
            pytest.fail("the server is there, and was not found")
        await database.close()
