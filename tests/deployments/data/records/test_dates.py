"""FHIR's dates as ranges: what each precision covers, and that no date leaves the calendar."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from deployments.data.records.dates import EARLIEST, LATEST, range_of, range_of_element


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[arg-type,misc]


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("2024", utc(2024, 1, 1), utc(2025, 1, 1)),
        ("2024-02", utc(2024, 2, 1), utc(2024, 3, 1)),
        ("2024-12", utc(2024, 12, 1), utc(2025, 1, 1)),
        ("2024-02-29", utc(2024, 2, 29), utc(2024, 3, 1)),
        ("2024-05-01T10:20", utc(2024, 5, 1, 10, 20), utc(2024, 5, 1, 10, 21)),
        ("2024-05-01T10:20:30Z", utc(2024, 5, 1, 10, 20, 30), utc(2024, 5, 1, 10, 20, 31)),
        ("2024-05-01T10:20:30-03:00", utc(2024, 5, 1, 13, 20, 30), utc(2024, 5, 1, 13, 20, 31)),
        (
            "2024-05-01T10:20:30.25Z",
            utc(2024, 5, 1, 10, 20, 30, 250_000),
            utc(2024, 5, 1, 10, 20, 30, 260_000),
        ),
        ("2016-12-31T23:59:60Z", utc(2016, 12, 31, 23, 59, 59), utc(2017, 1, 1)),
    ],
)
def test_a_date_covers_what_it_leaves_open(text: str, start: datetime, end: datetime) -> None:
    assert range_of(text) == (start, end)


@pytest.mark.parametrize(
    "text",
    ["", "24", "2024-13", "2024-02-30", "2024-1-1", "2024-05-01T25:00:00Z", "2024-05-01T10:00:61Z",
     "2024-05-01T10:00:00+15:00", "0000", "٢٠٢٤", "2024-05-01 10:00", "2024\n"],
)  # fmt: skip
def test_what_is_no_date_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        range_of(text)


def _written(moment: datetime, precision: int) -> str:
    text = moment.isoformat(timespec="microseconds")
    return text + "Z" if precision == 26 else text[:precision] + ("Z" if precision == 19 else "")


@given(st.datetimes(), st.sampled_from((4, 7, 10, 19, 26)))
@example(datetime.min, 4)
@example(datetime.max, 26)
def test_a_range_begins_before_it_ends_and_holds_its_moment(
    moment: datetime, precision: int
) -> None:
    start, end = range_of(_written(moment, precision))
    assert EARLIEST <= start <= end <= LATEST
    whole = moment.replace(tzinfo=UTC)
    if EARLIEST + timedelta(days=366) < whole < LATEST - timedelta(days=366):
        assert start <= whole < end


@given(st.datetimes(), st.integers(-14 * 60, 14 * 60))
@example(datetime.min, 840)
@example(datetime.max, -840)
def test_zones_never_lead_out_of_the_calendar(moment: datetime, minutes: int) -> None:
    sign, size = "-" if minutes < 0 else "+", abs(minutes)
    zone = f"{sign}{size // 60:02}:{size % 60:02}"
    start, end = range_of(moment.isoformat(timespec="seconds") + zone)
    assert start <= end


@given(st.text(max_size=40))
def test_any_text_is_a_range_or_refused(text: str) -> None:
    try:
        start, end = range_of(text)
    except ValueError:
        return
    assert start <= end


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"start": "2024", "end": "2024-03"}, (utc(2024, 1, 1), utc(2024, 4, 1))),
        ({"start": "2024"}, (utc(2024, 1, 1), LATEST)),
        ({"end": "2024"}, (EARLIEST, utc(2025, 1, 1))),
        ({"start": "soon"}, None),
        ({}, None),
        (None, None),
        ({"event": ["2024-03", "2024-01"]}, (utc(2024, 1, 1), utc(2024, 4, 1))),
        (
            {"repeat": {"boundsPeriod": {"start": "2024", "end": "2024"}}},
            (utc(2024, 1, 1), utc(2025, 1, 1)),
        ),
        ({"repeat": {"frequency": 3}}, None),
    ],
)
def test_periods_and_timings_have_ranges_too(value: Any, expected: Any) -> None:
    assert range_of_element(value) == expected
