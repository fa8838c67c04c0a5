"""Alerts carried from one database to another: out of the emergency cell, back into the site's.

Alerts and events have ids of their own, so that a merge may be repeated and may overlap. Nothing is
dropped: where two databases disagree, both events are kept and the disagreement is told. Texts travel
sealed; the site's keys are the same in every cell. Both sides are the owner's connections.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import psycopg
from psycopg import sql

from deployments.data.alerts.statements import DURABLE

Connection = psycopg.AsyncConnection[tuple[Any, ...]]
Row = dict[str, Any]

# What an alert is from its birth; two that differ in any of it under one id are not one alert.
_BORN = (
    *("id", "organization", "severity", "code", "origin", "patient", "resource", "raised_by"),
    *("to_kind", "to_id", "to_role", "raised_at"),
)
_NOW = ("to_all", "state", "level", "escalations", "due_at")
_SEALED = ("sealed", "key_id", "wrapped_key")
_ALERT = (*_BORN, *_NOW, *_SEALED)
_EVENT = ("id", "alert", "organization", "kind", "at", "actor", "role", "level")
_BYTES = ("sealed", "wrapped_key")
_TIMES = ("raised_at", "due_at", "at")
# From the first to the last: of two states of one alert the later one holds.
_ORDER = ("raised", "escalated", "acknowledged", "resolved")


def _columns(names: Iterable[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, names))


def _places(names: Sequence[str]) -> sql.Composed:
    return sql.SQL(", ").join(sql.Placeholder() for _ in names)


_CHANGED = sql.SQL(
    "SELECT {} FROM alerts.alert AS a WHERE a.raised_at >= %(since)s"
    " OR EXISTS (SELECT 1 FROM alerts.event AS e WHERE e.alert = a.id AND e.at >= %(since)s)"
    " ORDER BY a.raised_at, a.id"
).format(_columns(_ALERT))
_EVENTS = sql.SQL("SELECT {} FROM alerts.event WHERE alert = ANY(%s) ORDER BY seq, id").format(
    _columns(_EVENT)
)
_HELD = sql.SQL("SELECT {} FROM alerts.alert WHERE id = %s FOR NO KEY UPDATE").format(
    _columns((*_BORN, *_NOW))
)
_ADD_ALERT = sql.SQL("INSERT INTO alerts.alert ({}) VALUES ({}) ON CONFLICT DO NOTHING").format(
    _columns(_ALERT), _places(_ALERT)
)
_ADD_EVENT = sql.SQL(
    "INSERT INTO alerts.event ({}) VALUES ({}) ON CONFLICT (id) DO NOTHING"
).format(_columns(_EVENT), _places(_EVENT))
_OTHERS = "SELECT count(*) FROM alerts.event WHERE alert = %s AND id <> ALL (%s::uuid[])"
_KINDS = "SELECT DISTINCT kind FROM alerts.event WHERE alert = %s"
_MOVE = sql.SQL("UPDATE alerts.alert SET ({}) = ROW({}) WHERE id = %s").format(
    _columns(_NOW), _places(_NOW)
)


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that both databases say differently, in a sentence without any text of an alert."""

    alert: str
    reason: str


@dataclass(slots=True)
class Merged:
    """What a merge added, and what people must look at."""

    alerts: int = 0
    events: int = 0
    conflicts: list[Difference] = field(default_factory=list)


async def export_since(connection: Connection, moment: datetime) -> list[Row]:
    """Every alert that was raised or changed since `moment`, with all its events, as JSON values."""
    alerts = [
        dict(zip(_ALERT, row, strict=True))
        for row in await (await connection.execute(_CHANGED, {"since": moment})).fetchall()
    ]
    events: dict[str, list[Row]] = {}
    cursor = await connection.execute(_EVENTS, ([alert["id"] for alert in alerts],))
    for row in await cursor.fetchall():
        event = dict(zip(_EVENT, row, strict=True))
        events.setdefault(str(event["alert"]), []).append(_plain(event))
    return [
        {"alert": _plain(alert), "events": events.get(str(alert["id"]), [])} for alert in alerts
    ]


async def merge(connection: Connection, rows: Sequence[Row]) -> Merged:
    """Add what is missing here, in the connection's transaction; the same again adds nothing.

    An alert that goes on here takes the later of the two states. Raises `ValueError` for rows that
    `export_since` did not make.
    """
    merged = Merged()
    await connection.execute(DURABLE)
    for row in rows:
        try:
            alert = _typed({name: row["alert"][name] for name in _ALERT})
            events = [_typed({name: each[name] for name in _EVENT}) for each in row["events"]]
        except (KeyError, TypeError) as error:
            raise ValueError("these rows are no export of alerts") from error
        await _alert(connection, alert, events, merged)
    return merged


async def _alert(connection: Connection, alert: Row, events: Sequence[Row], merged: Merged) -> None:
    held = await _held(connection, alert["id"])
    if held is None:
        added = await connection.execute(_ADD_ALERT, [alert[name] for name in _ALERT])
        if added.rowcount == 0:
            # The site raised one on the same value meanwhile: this one is kept beside it, closed.
            closed = {**alert, "state": "resolved", "due_at": None}
            await connection.execute(_ADD_ALERT, [closed[name] for name in _ALERT])
            reason = "the same value raised an alert in both: this one is kept as resolved"
            merged.conflicts.append(Difference(alert["id"], reason))
        merged.alerts += 1
        merged.events += await _add(connection, events)
        return
    if different := [name for name in _BORN if _same(held[name]) != _same(alert[name])]:
        reason = f"another alert has this id here: {', '.join(different)} differ; nothing was added"
        merged.conflicts.append(Difference(alert["id"], reason))
        return
    new = await _add(connection, events)
    merged.events += new
    if new:
        row = await (
            await connection.execute(_OTHERS, (alert["id"], [each["id"] for each in events]))
        ).fetchone()
        if row is not None and row[0]:
            reason = (
                f"it went on in both: {held['state']} here, {alert['state']} there; all is kept"
            )
            merged.conflicts.append(Difference(alert["id"], reason))
        await _settle(connection, held, alert)


async def _settle(connection: Connection, held: Row, alert: Row) -> None:
    """Bring an alert that both databases have to the latest state that either says, or an event does.

    The emergency cell's row alone is not to be believed: its copy of the site's goes on, and what the
    site escalates before the return overwrites that somebody there has taken the alert on.
    """
    later = max((held, alert), key=lambda row: _ORDER.index(row["state"]))
    kinds = [row[0] for row in await (await connection.execute(_KINDS, (alert["id"],))).fetchall()]
    state = max((later["state"], *(k for k in kinds if k in _ORDER)), key=_ORDER.index)
    now = {
        "to_all": held["to_all"] or alert["to_all"],
        "state": state,
        "level": max(held["level"], alert["level"]),
        "escalations": max(held["escalations"], alert["escalations"]),
        "due_at": later["due_at"] if _ORDER.index(state) < _ORDER.index("acknowledged") else None,
    }
    await connection.execute(_MOVE, [*(now[name] for name in _NOW), alert["id"]])


async def _held(connection: Connection, id: str) -> Row | None:
    row = await (await connection.execute(_HELD, (id,))).fetchone()
    return None if row is None else dict(zip((*_BORN, *_NOW), row, strict=True))


async def _add(connection: Connection, events: Sequence[Row]) -> int:
    added = 0
    for event in events:
        done = await connection.execute(_ADD_EVENT, [event[name] for name in _EVENT])
        added += done.rowcount
    return added


def _same(value: Any) -> Any:
    """Ids come as UUID here and as text there; moments compare in any zone."""
    return value if value is None or isinstance(value, datetime) else str(value)


def _plain(row: Mapping[str, Any]) -> Row:
    found: Row = {}
    for name, value in row.items():
        if isinstance(value, datetime):
            found[name] = value.isoformat()
        elif name in _BYTES and value is not None:
            found[name] = base64.b64encode(value).decode()
        else:
            found[name] = str(value) if name in ("id", "alert") else value
    return found


def _typed(row: Row) -> Row:
    """The same as the database takes it. Raises `ValueError` for what is neither time nor base64."""
    for name in _TIMES:
        if row.get(name) is not None:
            row[name] = datetime.fromisoformat(row[name])
    for name in _BYTES:
        if row.get(name) is not None:
            row[name] = base64.b64decode(row[name], validate=True)
    return row
