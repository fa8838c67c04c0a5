"""A database with sealed rows in every table that holds some, and a way to read them all."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

import psycopg

from deployments.data.seal.sealer import Sealed, Sealer
from deployments.data.seal.tables import SEALED_TABLES

_RESOURCE = (
    "INSERT INTO records.{table} (organization, type, id, version, updated_at, method, patient,"
    " content, sealed, key_id, wrapped_key)"
    " VALUES ('hospital', %s, %s, 1, now(), 'POST', %s, '{{}}', %s, %s, %s)"
)
_GRANT = (
    "INSERT INTO records.break_glass (id, organization, account, practitioner, patient, request_id,"
    " sealed, key_id, wrapped_key, expires_at)"
    " VALUES (%s, 'hospital', 'a', 'p', 'x', 'r', %s, %s, %s, now())"
)
_REVIEW = (
    "INSERT INTO records.break_glass_review (break_glass, organization, reviewer, verdict, sealed,"
    " key_id, wrapped_key) VALUES (%s, 'hospital', 'r', 'justified', %s, %s, %s)"
)
_SHORT_LIVED = (
    "INSERT INTO interactions.short_lived (id, kind, organization, owner, created_at, expires_at,"
    " data, key_id, wrapped_key) VALUES (%s, 'chat', 'hospital', 'o', now(), now(), %s, %s, %s)"
)
_BLOB = (
    "INSERT INTO records.blob (name, id, organization, type, resource, version, content_type, size,"
    " stored_size, sha256, key_id, wrapped_key)"
    " VALUES (%s, %s, 'hospital', 'Binary', %s, 1, 'text/plain', 1, 2, %s, %s, %s)"
)
_ALERT = (
    "INSERT INTO alerts.alert (id, organization, severity, code, origin, raised_by, to_kind, to_role,"
    " raised_at, state, sealed, key_id, wrapped_key) VALUES (%s, 'hospital', 'critical', 'fall',"
    " 'staff', 'a', 'role', 'nurse', now(), 'raised', %s, %s, %s)"
)
_ACTIVATION = (
    "INSERT INTO emergency.activation (id, reason, host, since, expires_at, ended_at, ended_by,"
    " patients, first_seq) VALUES (%s, 'r', 'edge-1', now(), now(), now(), 'edge-1', 0, 0)"
)
_NOTE = (
    "INSERT INTO emergency.note (id, organization, activation, patient, kind, account, request_id,"
    " written_at, sealed, key_id, wrapped_key)"
    " VALUES (%s, 'hospital', %s, 'x', 'note', 'a', 'r', now(), %s, %s, %s)"
)
_VITAL = (
    "INSERT INTO emergency.vital (organization, type, id, version, updated_at, deleted, method,"
    " patient, content, identifiers, names, codes, categories, refs, code, sealed, key_id,"
    " wrapped_key) VALUES ('hospital', 'Observation', %s, 1, now(), false, 'POST', %s, '{}', '{}',"
    " '{}', '{}', '{}', '{}', 'c', %s, %s, %s)"
)
_DATA = {"short_lived": "data", "blob": "NULL::bytea"}


@dataclass(frozen=True)
class Row:
    """What lies in a row, as far as sealing is concerned."""

    table: str
    key_id: str
    wrapped_key: bytes
    data: bytes | None


def add(connection: psycopg.Connection[Any], sealer: Sealer, number: int) -> None:
    """One sealed row in every table."""
    name = f"id-{number}"

    def parts(text: str) -> tuple[bytes, str, bytes]:
        sealed = sealer.seal(text.encode(), b"context")
        return sealed.data, sealed.key_id, sealed.wrapped_key

    for table in ("resource", "history"):
        for type in ("Patient", "Observation"):
            values = (type, name, name, *parts(f"{table} {number}"))
            connection.execute(_RESOURCE.format(table=table).encode(), values)
    grant = uuid.uuid4()
    connection.execute(_GRANT, (grant, *parts(f"reason {number}")))
    connection.execute(_REVIEW, (grant, *parts(f"review {number}")))
    connection.execute(_SHORT_LIVED, (uuid.uuid4(), *parts(f"chat {number}")))
    connection.execute(_ALERT, (uuid.uuid4(), *parts(f"alert {number}")))
    unique = uuid.uuid4()
    digest = unique.hex * 2
    key_id, wrapped = sealer.wrap(unique.bytes * 2)
    connection.execute(_BLOB, (digest, unique, name, digest, key_id, wrapped))
    activation = uuid.uuid4()
    connection.execute(_ACTIVATION, (activation,))
    connection.execute(_NOTE, (uuid.uuid4(), activation, *parts(f"note {number}")))
    connection.execute(_VITAL, (name, name, *parts(f"vital {number}")))


PER_NUMBER = 11


def rows(connection: psycopg.Connection[Any]) -> list[Row]:
    """Every sealed row of every table."""
    found: list[Row] = []
    for table in SEALED_TABLES:
        data = _DATA.get(table.table, "sealed")
        statement = f"SELECT key_id, wrapped_key, {data} FROM {table.name} WHERE key_id IS NOT NULL"
        found += [Row(table.name, *row) for row in connection.execute(statement.encode())]
    return found


def opened(found: list[Row], sealer: Sealer) -> list[str]:
    """The plain texts, sorted; a blob gives its data key."""
    texts: list[str] = []
    for row in found:
        if row.data is None:
            texts.append(sealer.unwrap(row.key_id, row.wrapped_key).hex())
        else:
            sealed = Sealed(row.key_id, row.wrapped_key, row.data)
            texts.append(sealer.open(sealed, b"context").decode())
    return sorted(texts)
