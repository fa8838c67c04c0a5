"""Whether file, database and escrow agree, each finding with its reason in a sentence."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psycopg
from psycopg import sql

from deployments.data.seal import escrow, keys
from deployments.data.seal.errors import SealBroken, SiteKeysError
from deployments.data.seal.sealer import Sealer
from deployments.data.seal.tables import SEALED_TABLES

Level = Literal["ok", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    level: Level
    reason: str


def check(secrets: Path, owner_dsn: str) -> list[Finding]:
    """Look at everything; nothing is changed. Raises nothing: what is wrong is a finding."""
    try:
        loaded = keys.read(secrets)
    except SiteKeysError as error:
        return [Finding("error", str(error))]
    found = [Finding("ok", f"the file has {len(loaded.keys)} site keys, current {loaded.current}")]
    if loaded.rotating_from is not None:
        reason = f"the rotation from {loaded.rotating_from} is not finished: medrec seal rotate"
        found.append(Finding("warning", reason))
    found += _escrow(secrets, loaded)
    try:
        with psycopg.connect(owner_dsn, autocommit=True, connect_timeout=10) as connection:
            found += _database(connection, Sealer.load(secrets), loaded)
            found += _stored_escrow(connection, secrets)
    except psycopg.OperationalError:
        found.append(Finding("error", "the database cannot be reached"))
    return found


def _escrow(secrets: Path, loaded: keys.SiteKeys) -> list[Finding]:
    try:
        bundle = escrow.read_bundle(secrets)
    except SiteKeysError as error:
        return [Finding("error", str(error))]
    if bundle is None:
        reason = "there is no escrow: if the site keys are lost, so are the records"
        return [Finding("warning", f"{reason}; medrec seal escrow makes one")]
    name = f"escrow {bundle.fingerprint}"
    if missing := sorted(set(loaded.keys) - set(bundle.keys)):
        reason = f"{name} of {bundle.made_at} is older than site key {', '.join(missing)}"
        return [Finding("warning", f"{reason}: medrec seal escrow --renew")]
    holders = f"any {bundle.threshold} of {bundle.holders} holders"
    return [Finding("ok", f"{name} of {bundle.made_at} holds every site key for {holders}")]


def _stored_escrow(connection: psycopg.Connection[Any], secrets: Path) -> list[Finding]:
    try:
        bundle = escrow.read_bundle(secrets)
    except SiteKeysError:
        return []
    row = connection.execute(
        "SELECT bundle FROM records.escrow ORDER BY number DESC LIMIT 1"
    ).fetchone()
    if bundle is None and row is None:
        return []
    if bundle is None or row is None or bytes(row[0]) != bundle.dump():
        reason = "the escrow's bundle in the database is not the one beside the site keys"
        return [Finding("warning", f"{reason}: medrec seal escrow --renew")]
    return [Finding("ok", "the database holds a copy of the escrow's bundle")]


def _database(
    connection: psycopg.Connection[Any], sealer: Sealer, loaded: keys.SiteKeys
) -> list[Finding]:
    """Every key that rows name must be here, and one row of each table and key must unwrap."""
    found: list[Finding] = []
    rows = 0
    for table in SEALED_TABLES:
        counts = sql.SQL("SELECT key_id, count(*) FROM {} WHERE key_id IS NOT NULL GROUP BY key_id")
        sample = sql.SQL("SELECT wrapped_key FROM {} WHERE key_id = %s LIMIT 1")
        counted = connection.execute(counts.format(table.identifier)).fetchall()
        for key_id, count in counted:
            rows += count
            if key_id not in loaded.keys:
                reason = f"{count} rows of {table.name} are under site key {key_id}, which is lost"
                found.append(Finding("error", reason))
                continue
            row = connection.execute(sample.format(table.identifier), (key_id,)).fetchone()
            try:
                sealer.unwrap(key_id, row[0] if row else b"")
            except SealBroken:
                reason = f"a row of {table.name} under site key {key_id} does not open"
                found.append(Finding("error", reason))
    return found or [Finding("ok", f"the site keys of all {rows} sealed rows are here")]
