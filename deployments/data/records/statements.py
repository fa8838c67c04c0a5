"""The statements of the records, fixed texts all of them: what callers say goes into parameters.

Each says its organisation although row-level security does so too: the indexes begin with it.
"""

from __future__ import annotations

from psycopg import sql

_VERSION = (
    *("organization", "type", "id", "version", "updated_at", "deleted", "method", "patient"),
    *("content", "sealed", "key_id", "wrapped_key"),
)
SEARCHED = (
    *("identifiers", "names", "codes", "categories", "status", "birth_date"),
    *("date_from", "date_to", "refs"),
)
_CASTS = {
    "content": "%s::jsonb",
    **dict.fromkeys(("identifiers", "names", "codes", "categories", "refs"), "%s::text[]"),
}
_ALL = (*_VERSION, *SEARCHED)
_VALUES = ", ".join(_CASTS.get(name, "%s") for name in _ALL)
_KEPT = ", ".join(_VERSION)
# One statement for both tables: they can differ in nothing.
INSERT = sql.SQL(
    f"WITH new AS (INSERT INTO records.resource ({', '.join(_ALL)}) VALUES ({_VALUES})"
    f" RETURNING {_KEPT}) INSERT INTO records.history ({_KEPT}) SELECT {_KEPT} FROM new"
)
REPLACE = sql.SQL(
    f"WITH new AS (UPDATE records.resource SET ({', '.join(_ALL)}) = ROW({_VALUES})"
    " WHERE type = {type} AND organization = current_setting('medrec.organization')"
    f" AND id = %s AND version = %s RETURNING {_KEPT})"
    f" INSERT INTO records.history ({_KEPT}) SELECT {_KEPT} FROM new"
)
LOCKED = sql.SQL(
    "SELECT r.version, r.updated_at, r.deleted, r.patient, r.refs,"
    " records.by_break_glass(r.patient) FROM records.resource AS r"
    " WHERE r.type = {type} AND r.organization = current_setting('medrec.organization')"
    " AND r.id = %s FOR {strength}"
)
LIVING = """
SELECT 1 FROM records.resource AS r
WHERE r.organization = current_setting('medrec.organization') AND r.patient = %s
  AND r.type <> 'Patient' AND NOT r.deleted LIMIT 1
"""

OWN = sql.SQL("r.organization = current_setting('medrec.organization')")
ONE = sql.SQL(
    "SELECT {columns}, records.by_break_glass(r.patient) FROM records.{table} AS r"
    " WHERE r.type = {type} AND {own} AND r.id = %s"
)
EVERYTHING = sql.SQL(
    "SELECT {columns}, r.refs FROM records.resource AS r WHERE {own} AND r.patient = %s"
    " AND NOT r.deleted AND r.type = ANY(%s)"
    " AND (r.type <> 'Patient', r.type, r.id) > (%s, %s, %s)"
    " ORDER BY r.type <> 'Patient', r.type, r.id LIMIT %s"
)
COMPARTMENT = sql.SQL(
    "SELECT {columns} FROM records.history AS r WHERE {own} AND r.patient = %s"
    " AND (r.type, r.id, r.version) > (%s, %s, %s) ORDER BY r.type, r.id, r.version LIMIT %s"
)
INCLUDED = sql.SQL(
    "SELECT {columns} FROM unnest(%s::text[], %s::text[]) AS w(type, id)"
    " JOIN records.resource AS r ON r.type = w.type AND r.id = w.id"
    " WHERE {own} AND NOT r.deleted ORDER BY r.type, r.id"
)
BROKE_GLASS = "SELECT coalesce(bool_or(records.by_break_glass(p)), false) FROM unnest(%s::text[]) p"
CONSENTS = sql.SQL(
    "SELECT {columns} FROM records.resource AS r WHERE r.type = 'Consent' AND {own}"
    " AND r.patient = %s AND NOT r.deleted AND r.status = 'active' ORDER BY r.id"
)
