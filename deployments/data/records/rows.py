"""Between resources and rows: canonical JSON, sealing on the way in, opening on the way out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import orjson
from psycopg import sql

from deployments.data.errors import Invalid
from deployments.data.records import sealed_paths
from deployments.data.records.shapes import Stored
from deployments.data.seal.sealer import Sealed, Sealer

# What a version is read back from, in the order that `Rows.stored` takes.
COLUMNS = sql.SQL(
    "r.type, r.id, r.version, r.updated_at, r.deleted, r.method, r.patient, "
    "r.content::text, r.sealed, r.key_id, r.wrapped_key"
)
WIDTH = 11
_KEPT_IN_COLUMNS = frozenset(("resourceType", "id", "meta"))
_MILLISECOND = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class Encoded:
    """The content of a row. `sha256` is of what lies in the row, so that it can be compared
    without a key, and tells nothing about the text."""

    content: str | None
    sealed: Sealed | None
    sha256: str


class Rows:
    """Encodes and decodes rows with one sealer."""

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer

    def encode(self, organization: str, resource: Mapping[str, Any] | None, name: str) -> Encoded:
        """`name` is `Type/id/version`; version and time of `meta` live in columns alone."""
        if resource is None:
            return Encoded(None, None, hashlib.sha256(b"").hexdigest())
        meta = {
            key: value
            for key, value in (resource.get("meta") or {}).items()
            if key not in ("versionId", "lastUpdated")
        }
        bare = {key: value for key, value in resource.items() if key != "meta"}
        if meta:
            bare["meta"] = meta
        content, parts = sealed_paths.split(bare)
        body = canonical(content)
        sealed = None
        if parts:
            sealed = self._sealer.seal(canonical(parts), _context(organization, name))
        digest = hashlib.sha256(body + b"\0" + (sealed.data if sealed else b"")).hexdigest()
        return Encoded(body.decode(), sealed, digest)

    def stored(self, organization: str, row: Sequence[Any]) -> Stored:
        """The version that a row of `COLUMNS` holds; raises `SealBroken` for a damaged one."""
        type, id, version, updated_at, deleted, method, patient = row[:7]
        content, sealed, key_id, wrapped_key = row[7:WIDTH]
        updated_at = updated_at.astimezone(UTC)
        resource: dict[str, Any] | None = None
        if not deleted:
            inside = orjson.loads(content)
            if sealed is not None:
                context = _context(organization, f"{type}/{id}/{version}")
                plain = self._sealer.open(Sealed(key_id, wrapped_key, sealed), context)
                inside = sealed_paths.join(inside, orjson.loads(plain))
            resource = complete(type, id, version, updated_at, inside)
        return Stored(type, id, version, updated_at, resource, method, patient)


def complete(
    type: str, id: str, version: int, updated_at: datetime, inside: Mapping[str, Any]
) -> dict[str, Any]:
    """The resource as clients see it: with its type, id, version and time."""
    meta = {
        **(inside.get("meta") or {}),
        "versionId": str(version),
        "lastUpdated": updated_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    }
    rest = {key: value for key, value in inside.items() if key not in _KEPT_IN_COLUMNS}
    return {"resourceType": type, "id": id, "meta": meta, **rest}


def moment(after: datetime | None = None) -> datetime:
    """Now in whole milliseconds, which is what `lastUpdated` says; always later than `after`."""
    now = datetime.now(UTC)
    now = now.replace(microsecond=now.microsecond // 1000 * 1000)
    return now if after is None else max(now, after.astimezone(UTC) + _MILLISECOND)


def canonical(values: Any) -> bytes:
    """JSON with sorted keys. Raises `Invalid` for what PostgreSQL's JSON or UTF-8 cannot hold."""
    try:
        body = orjson.dumps(values, default=_decimal, option=orjson.OPT_SORT_KEYS)
    except TypeError:
        message = "A text or number of the resource cannot be kept as JSON."
        raise Invalid(message, code="invalid_json") from None
    if b"\\u0000" in body and _has_nul(values):
        raise Invalid("A text of the resource holds the character U+0000.", code="invalid_json")
    return body


def _decimal(value: Any) -> orjson.Fragment:
    if isinstance(value, Decimal) and value.is_finite():
        return orjson.Fragment(format(value, "f"))
    raise TypeError("no JSON")


def _has_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, Mapping):
        return any("\0" in str(key) or _has_nul(item) for key, item in value.items())
    return isinstance(value, list | tuple) and any(_has_nul(item) for item in value)


def _context(organization: str, name: str) -> bytes:
    return f"{organization}/{name}".encode()
