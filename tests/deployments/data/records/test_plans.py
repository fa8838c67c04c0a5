"""Proves that searches use their indexes below row-level security, with the store's own statements."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from psycopg import sql

from deployments.data.records.rows import COLUMNS
from deployments.data.records.search import parse
from deployments.data.records.shapes import TYPES
from deployments.data.seal.sealer import Sealer
from tests.deployments.data.records import people
from tests.deployments.data.records.conftest import Owner

# Enough that reading them all would be the worse plan.
FILL = """
INSERT INTO records.resource (organization, type, id, version, updated_at, method, patient,
    content, identifiers, names, codes, status, date_from, date_to, refs)
SELECT 'hospital', %s, prefix || n, 1, now(), 'POST',
    CASE WHEN %s = 'Patient' THEN prefix || n ELSE 'p' || n %% 200 END, '{}',
    ARRAY['i' || n], ARRAY['n' || n], ARRAY['c' || n %% 500], 'final',
    '2026-01-01'::timestamptz + n * interval '1 minute',
    '2026-01-01'::timestamptz + n * interval '1 minute', ARRAY['encounter:Encounter/e' || n]
FROM generate_series(1, 4000) AS n, (VALUES (%s)) AS t(prefix)
"""


@pytest.fixture
def filled(owner: Owner) -> None:
    for type, prefix in (("Patient", "p"), ("Observation", "o")):
        owner.rows(FILL, type, type, prefix)
    owner.rows(
        "INSERT INTO records.care (organization, practitioner, patient, basis, source)"
        " SELECT 'hospital', 'me', 'p' || n, 'encounter', 'Encounter/' || n"
        " FROM generate_series(1, 50) AS n"
    )
    owner.rows("ANALYZE records.resource")
    owner.rows("ANALYZE records.care")


def plan(dsn: str, statement: sql.Composable, values: list[Any], compartment: str) -> str:
    with psycopg.connect(dsn) as connection:
        settings = {"organization": "hospital", "practitioner": "me", "compartment": compartment}
        for name, value in settings.items():
            connection.execute("SELECT set_config(%s, %s, true)", (f"medrec.{name}", value))
        explained = sql.SQL("EXPLAIN (COSTS OFF) {}").format(statement)
        return "\n".join(row[0] for row in connection.execute(explained, values).fetchall())


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("compartment", ["care", "all"])
@pytest.mark.parametrize(
    ("type", "name", "value", "index"),
    [
        ("Patient", "_id", "p7", "_pkey"),
        ("Patient", "identifier", f"{people.CPF_SYSTEM}|{people.CPF}", "identifiers"),
        ("Patient", "name", "Zuleica", "names"),
        ("Observation", "patient", "p7", "patient"),
        ("Observation", "code", "http://loinc.org|8867-4", "codes"),
        ("Observation", "encounter", "Encounter/e9", "refs"),
        ("Observation", "_lastUpdated", "gt2030-01-01", "updated"),
    ],
)
async def test_a_search_does_not_read_the_whole_table(
    dsns: tuple[str, str],
    sealer: Sealer,
    compartment: str,
    type: str,
    name: str,
    value: str,
    index: str,
) -> None:
    statement, values = parse(type, [(name, value)]).page(COLUMNS, sealer)
    found = plan(dsns[0], statement, values, compartment)
    table = f"resource_{type.lower()}"
    assert f"Seq Scan on {table}" not in found, found
    scans = [line for line in found.splitlines() if "Index" in line and "Scan" in line]
    assert any(index in line for line in scans), found
    other = [each for each in TYPES if each != type and f" on resource_{each.lower()} " in found]
    assert other == [], found
