"""FHIR's partial dates, instants, periods and timings as ranges of time.

http://hl7.org/fhir/R4/datatypes.html#dateTime, http://hl7.org/fhir/R4/search.html#date
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

# Open ends: far, but finite, so that every reader can hold them in any time zone.
EARLIEST = datetime(2, 1, 1, tzinfo=UTC)
LATEST = datetime(9998, 1, 1, tzinfo=UTC)

_FIRST, _LAST = EARLIEST.replace(tzinfo=None), LATEST.replace(tzinfo=None)

Range = tuple[datetime, datetime]

_DATE_TIME = re.compile(
    r"(?P<year>[0-9]{4})(?:-(?P<month>[0-9]{2})(?:-(?P<day>[0-9]{2})"
    r"(?:T(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2})(?::(?P<second>[0-9]{2})"
    r"(?:\.(?P<fraction>[0-9]{1,9}))?)?(?P<zone>Z|[+-][0-9]{2}:[0-9]{2})?)?)?)?"
)


def range_of(text: str) -> Range:
    """The first moment of a FHIR date, dateTime or instant, and the first one after it.

    What has no time zone is taken as UTC. Raises `ValueError` for what is no date.
    """
    found = _DATE_TIME.fullmatch(text)
    if found is None:
        raise ValueError("not a FHIR date")
    year, month, day = int(found["year"]), int(found["month"] or 1), int(found["day"] or 1)
    hour, minute = int(found["hour"] or 0), int(found["minute"] or 0)
    second = int(found["second"] or 0)
    # A leap second has no number here: it is taken for the second before it.
    start = datetime(year, month, day, hour, minute, min(second, 59) if second <= 60 else second)
    fraction = found["fraction"] or ""
    start += timedelta(microseconds=int(fraction[:6].ljust(6, "0")))
    offset = _offset(found["zone"] or "Z")
    return _shifted(start, offset), _shifted(_end(start, found), offset)


def _end(start: datetime, found: re.Match[str]) -> datetime:
    if start >= _LAST:
        return start
    if found["month"] is None:
        return start.replace(year=start.year + 1)
    if found["day"] is None:
        return (start + timedelta(days=31)).replace(day=1)
    if found["hour"] is None:
        return start + timedelta(days=1)
    if found["second"] is None:
        return start + timedelta(minutes=1)
    digits = min(len(found["fraction"] or ""), 6)
    return start + timedelta(microseconds=10 ** (6 - digits))


def _offset(zone: str) -> timedelta:
    if zone == "Z":
        return timedelta(0)
    hours, minutes = int(zone[1:3]), int(zone[4:6])
    if hours > 14 or minutes > 59:
        raise ValueError("not a time zone")
    offset = timedelta(hours=hours, minutes=minutes)
    return -offset if zone[0] == "-" else offset


def _shifted(moment: datetime, offset: timedelta) -> datetime:
    # Clamped before the offset is applied: neither end of the calendar may be passed.
    within = min(max(moment, _FIRST), _LAST)
    return within.replace(tzinfo=UTC) if within != moment else (moment - offset).replace(tzinfo=UTC)


def range_of_element(value: Any) -> Range | None:
    """The range of a date, a Period or a Timing's events; None where it tells of no time."""
    if isinstance(value, str):
        return _range_or_none(value)
    if not isinstance(value, Mapping):
        return None
    if "event" in value or "repeat" in value:
        bounds = (value.get("repeat") or {}).get("boundsPeriod")
        ranges = [_range_or_none(event) for event in value.get("event") or []]
        found = [each for each in (*ranges, range_of_element(bounds)) if each is not None]
        if not found:
            return None
        return min(start for start, _ in found), max(end for _, end in found)
    first, last = _range_or_none(value.get("start")), _range_or_none(value.get("end"))
    if first is None and last is None:
        return None
    start, end = first[0] if first else EARLIEST, last[1] if last else LATEST
    return start, max(start, end)


def _range_or_none(text: Any) -> Range | None:
    if not isinstance(text, str):
        return None
    try:
        return range_of(text)
    except ValueError:
        return None
