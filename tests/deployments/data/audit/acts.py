"""Entries, and the chain as its owner sees it, for the tests of the audit."""

from __future__ import annotations

import time
from typing import Any

import psycopg

from deployments.data.audit.entry import AuditEntry
from deployments.data.principal import Caller, Principal, Role


def entry(number: int = 0, **fields: Any) -> AuditEntry:
    """An entry of an act on patient `p1`; `number` tells it from others."""
    values: dict[str, Any] = {
        "action": "read",
        "outcome": "success",
        "actor": "a1",
        "actor_kind": "account",
        "role": "physician",
        "organization": "hospital",
        "request_id": f"r{number}",
        "patient": "p1",
        "resource": "Patient/p1",
        "details": {"number": number},
    }
    return AuditEntry(**{**values, **fields})


def caller(
    role: Role = "auditor", *, organization: str = "hospital", scopes: str = "user/AuditEvent.rs"
) -> Caller:
    """Somebody who asks."""
    principal = Principal("u1", "account", role, organization, frozenset(scopes.split()))
    return Caller(principal, "request-1", "10.0.0.9", soon())


def soon(seconds: float = 10.0) -> float:
    """A deadline."""
    return time.monotonic() + seconds


def chain(owner_dsn: str) -> list[tuple[int, str]]:
    """Sequence and id of every entry."""
    with psycopg.connect(owner_dsn) as connection:
        return connection.execute("SELECT seq, id::text FROM audit.entry ORDER BY seq").fetchall()


def outbox(owner_dsn: str) -> list[str]:
    """Ids of what is staged and not chained."""
    with psycopg.connect(owner_dsn) as connection:
        rows = connection.execute("SELECT id::text FROM audit.outbox ORDER BY created_at")
        return [row[0] for row in rows.fetchall()]
