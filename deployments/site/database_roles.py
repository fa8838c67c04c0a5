"""Patroni's post_bootstrap: `python -m deployments.site.database_roles PASSWORDS DSN`.

Makes the roles and the database of a new PostgreSQL, or gives existing roles the site's passwords.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import psycopg
from psycopg import sql

from deployments.cell.state import CellError
from deployments.data.postgres import APPLICATION, DATABASE, OWNER
from deployments.site.passwords import COPY, Passwords, read

_RIGHTS = {
    OWNER: "LOGIN SUPERUSER",
    APPLICATION: "LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION",
    COPY: "LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE REPLICATION",
}


def main(words: Sequence[str]) -> int:
    """Returns the exit status; a failure is told in Patroni's log."""
    try:
        path, dsn = words
    except ValueError:
        print("usage: database_roles PASSWORDS DSN", file=sys.stderr)
        return 1
    try:
        with psycopg.connect(dsn, autocommit=True) as connection:
            make_roles(connection, read(Path(path)))
    except (CellError, psycopg.Error) as error:
        print(f"the database's roles were not made: {error}", file=sys.stderr)
        return 1
    return 0


def make_roles(connection: psycopg.Connection, passwords: Passwords) -> None:
    """Owner, application and copy with their passwords, and the database, which the owner owns."""
    # No standby follows yet: a commit that waited for one would wait for ever.
    connection.execute("SET synchronous_commit = local")
    for role, rights in _RIGHTS.items():
        there = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [role]).fetchone()
        # The server is given the verifier, so that no log of a statement could hold the password.
        verifier = connection.pgconn.encrypt_password(
            passwords.of(role).encode(), role.encode(), b"scram-sha-256"
        )
        connection.execute(
            sql.SQL("{} ROLE {} {} PASSWORD {}").format(
                sql.SQL("ALTER" if there else "CREATE"),
                sql.Identifier(role),
                sql.SQL(rights),
                sql.Literal(verifier.decode()),
            )
        )
    found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE])
    if not found.fetchone():
        connection.execute(
            sql.SQL("CREATE DATABASE {} OWNER {}").format(
                sql.Identifier(DATABASE), sql.Identifier(OWNER)
            )
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
