"""A search that can be honoured: its conditions, its order, and the SQL of its pages.

Pages follow each other by key, never by offset: a cursor holds the last row's sort values. It is
checked, not trusted: row-level security decides what can be seen whatever a cursor says.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

import orjson
from psycopg import sql

from deployments.data.errors import Invalid
from deployments.data.records.conditions import (
    ID,
    Blinds,
    Criterion,
    Statement,
    all_of,
    any_of,
)
from deployments.data.records.shapes import Stored

_NULLABLE = ("date_from", "birth_date")


@dataclass(frozen=True, slots=True)
class Include:
    """One `_include`: the references of search parameter `name`, to `target` alone if it is given."""

    name: str
    target: str | None


@dataclass(frozen=True, slots=True)
class SortKey:
    """One column to sort by. What has no date counts as earliest, in both directions."""

    column: str
    descending: bool

    def order(self) -> sql.Composable:
        """The item of ORDER BY."""
        text = "r.{} DESC" if self.descending else "r.{} ASC"
        if self.column in _NULLABLE:
            text = "r.{} DESC NULLS LAST" if self.descending else "r.{} ASC NULLS FIRST"
        return sql.SQL(text).format(sql.Identifier(self.column))

    def after(self, value: Any) -> Statement:
        """What comes later than `value` in this key's order."""
        column = sql.Identifier(self.column)
        if value is None:
            text = "FALSE" if self.descending else "r.{} IS NOT NULL"
            return sql.SQL(text).format(column), []
        text = "r.{} > %s"
        if self.descending:
            text = "(r.{0} < %s OR r.{0} IS NULL)" if self.column in _NULLABLE else "r.{} < %s"
        return sql.SQL(text).format(column), [value]

    def equal(self, value: Any) -> Statement:
        """What has the same value."""
        column = sql.Identifier(self.column)
        if value is None:
            return sql.SQL("r.{} IS NULL").format(column), []
        return sql.SQL("r.{} = %s").format(column), [value]

    def read(self, value: Any) -> Any:
        """A cursor's value as this column has it. Raises `ValueError` or `TypeError`."""
        if value is None and self.column in _NULLABLE:
            return None
        if self.column == "id":
            if not ID.fullmatch(value):
                raise ValueError
            return value
        if self.column == "birth_date":
            return date.fromisoformat(value)
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is None:
            raise ValueError
        return moment.astimezone(UTC)


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """A search that can be honoured, in full.

    `count` is the size of a page, 0 where only the total is wanted; `total` tells whether it is.
    `honoured` is what the self link shows: the caller's own words, so never for a log.
    """

    type: str
    criteria: tuple[Criterion, ...] = field(repr=False)
    sort: tuple[SortKey, ...]
    count: int
    total: bool
    includes: tuple[Include, ...]
    honoured: tuple[tuple[str, str], ...] = field(repr=False)
    after: tuple[Any, ...] | None = field(default=None, repr=False)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the parameters asked by, for the audit."""
        return tuple(sorted({asked.parameter.name for asked in self.criteria}))

    def where(self, blinds: Blinds) -> Statement:
        """The condition over `records.resource r`, without deletions and without the cursor."""
        own: Statement = (sql.SQL("r.type = %s"), [self.type])
        return all_of([own, *(asked.statement(self.type, blinds) for asked in self.criteria)])

    def page(self, columns: sql.Composable, blinds: Blinds) -> Statement:
        """The query of one page and one row more. The sort values are each row's tail."""
        condition, parameters = self.where(blinds)
        if self.after is not None:
            later, more = self._later(self.after)
            condition, parameters = sql.SQL("{} AND {}").format(condition, later), parameters + more
        statement = sql.SQL(
            "SELECT {columns}, {tail} FROM records.resource r WHERE {condition} AND NOT r.deleted"
            " ORDER BY {order} LIMIT %s"
        ).format(
            columns=columns,
            tail=sql.SQL(", ").join(sql.SQL("r.{}").format(_name(key)) for key in self.sort),
            condition=condition,
            order=sql.SQL(", ").join(key.order() for key in self.sort),
        )
        return statement, [*parameters, self.count + 1]

    def cursor(self, tail: Sequence[Any]) -> str:
        """The cursor of the page after the row whose sort values are `tail`."""
        return encode_cursor(self.fingerprint, tail)

    def condition(self) -> bytes:
        """The same bytes for the same conditions, in whatever order they were given."""
        parts = sorted(
            repr((asked.parameter.name, asked.exact, sorted(map(repr, asked.values))))
            for asked in self.criteria
        )
        return "\n".join((self.type, *parts)).encode("utf-8", "backslashreplace")

    @property
    def fingerprint(self) -> str:
        """Ties a cursor to its query: the conditions and the order."""
        return hashlib.sha256(self.condition() + repr(self.sort).encode()).hexdigest()[:16]

    def _later(self, values: tuple[Any, ...]) -> Statement:
        branches = []
        for position, key in enumerate(self.sort):
            same = [self.sort[i].equal(values[i]) for i in range(position)]
            branches.append(all_of([*same, key.after(values[position])]))
        return any_of(branches)


def _name(key: SortKey) -> sql.Identifier:
    return sql.Identifier(key.column)


@dataclass(frozen=True, slots=True)
class SearchPage:
    """One page of a search: what matched, what was included with it, and how to go on."""

    entries: list[Stored]
    includes: list[Stored]
    next_cursor: str | None
    total: int | None


def encode_cursor(fingerprint: str, values: Sequence[Any]) -> str:
    """An opaque cursor that `decode_cursor` reads with the same fingerprint alone."""
    packed = orjson.dumps([fingerprint, *values], option=orjson.OPT_UTC_Z)
    return base64.urlsafe_b64encode(packed).rstrip(b"=").decode("ascii")


def decode_cursor(fingerprint: str, text: str) -> list[Any]:
    """The values of a cursor. Raises `Invalid` for one that is not this query's."""
    try:
        if len(text) > 1024:
            raise bad_cursor()
        packed = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        values = orjson.loads(packed)
    except (ValueError, binascii.Error):
        raise bad_cursor() from None
    if not isinstance(values, list) or values[:1] != [fingerprint]:
        raise bad_cursor()
    return values[1:]


def bad_cursor() -> Invalid:
    """The error of a cursor that is not this search's."""
    return Invalid("_cursor is not one of this search; begin again without it.", param="_cursor")
