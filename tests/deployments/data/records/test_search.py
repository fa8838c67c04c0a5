"""Searches as they are parsed: what is read, what is refused and how it is named, and the SQL."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import sql

from deployments.data.database import Database
from deployments.data.errors import Invalid, Unsupported
from deployments.data.records.conditions import criterion, split
from deployments.data.records.dates import EARLIEST, Range, range_of
from deployments.data.records.parameters import PARAMETERS, PREFIXES
from deployments.data.records.search import (
    MAX_COUNT,
    decode_cursor,
    encode_cursor,
    parse,
)
from deployments.data.records.shapes import TYPES
from deployments.data.records.words import token_of
from tests.deployments.data.records.blinds import Readable

COLUMNS = sql.SQL("r.id")


def where(type: str, *parameters: tuple[str, str]) -> tuple[str, list[Any]]:
    statement, values = parse(type, parameters).where(Readable())
    return statement.as_string(None), values


def test_every_type_but_binary_is_searched_by_what_fhir_defines_for_all() -> None:
    assert set(PARAMETERS) == set(TYPES) - {"Binary"}
    for parameters in PARAMETERS.values():
        assert {"_id", "_lastUpdated"} <= set(parameters)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("1", ["1"]),
        ("s|1", ["s|1"]),
        ("|1", ["|1"]),
        ("s|", ["s|"]),
        ("a,b", ["a", "b"]),
        (r"a\,b", ["a,b"]),
        (r"s|a\|b", [r"s|a\|b"]),
        (r"a\\b", [r"a\\b"]),
        (r"a\$b", ["a$b"]),
    ],
)
def test_tokens_are_read_in_every_form(text: str, tokens: list[str]) -> None:
    assert where("Observation", ("code", text))[1] == ["Observation", tokens]


SAFE = st.characters(blacklist_categories=["Cc", "Cs"])


@given(st.text(SAFE, min_size=1, max_size=20), st.text(SAFE, min_size=1, max_size=20))
def test_escaping_brings_any_token_through(system: str, code: str) -> None:
    def escaped(text: str) -> str:
        for special in "\\,|$":
            text = text.replace(special, "\\" + special)
        return text

    _, values = where("Observation", ("code", f"{escaped(system)}|{escaped(code)}"))
    assert values[1] == [token_of(system, code)]


@given(st.text(max_size=60))
def test_any_value_is_split_into_itself_or_refused(text: str) -> None:
    try:
        pieces = split(text, ",", "code")
    except Invalid:
        return
    assert ",".join(pieces) == text


@given(st.text(max_size=30), st.text(max_size=60))
def test_any_parameter_is_parsed_or_refused_without_being_quoted(name: str, value: str) -> None:
    for type in ("Patient", "Observation"):
        error: Invalid | None = None
        try:
            query = parse(type, [(name, value)])
        except Invalid as refused:
            error = refused
        if error is not None:
            assert error.param is None or error.param.isprintable()
            # A parameter's name may be told, and may be what the value is.
            assert len(value) <= 12 or value in name or value not in error.message
            continue
        text, values = query.page(COLUMNS, Readable())
        assert text.as_string(None).count("%s") == len(values)


NOT_OFFERED = [
    ("shoe-size", "44", "shoe-size"),
    ("Maria das Dores", "44", None),
    ("name:contains", "a", "name"),
    ("name:", "ab", "name"),
    ("code:missing", "true", "code"),
    ("code:exact", "a", "code"),
    ("_id:not", "a", "_id"),
    ("_sort:x", "a", "_sort"),
    ("_include:iterate", "Observation:patient", "_include"),
    ("_revinclude", "a", "_revinclude"),
    ("_elements", "a", "_elements"),
    ("_summary", "count", "_summary"),
    ("_offset", "1", "_offset"),
    ("patient.name", "a", "patient"),
    ("subject:Patient.name", "a", "subject"),
    ("_has:Observation:patient:code", "a", "_has"),
    ("date", "ap2026", "date"),
    ("_total", "estimate", "_total"),
    ("_include", "*", "_include"),
    ("_include", "Patient:organization", "_include"),
    ("_include", "Observation:code", "_include"),
    ("_include", "Observation:patient:Group", "_include"),
    ("_sort", "code", "_sort"),
    ("_sort", "", "_sort"),
]


@pytest.mark.parametrize(("name", "value", "param"), NOT_OFFERED)
def test_what_is_not_offered_is_refused_by_name(name: str, value: str, param: str | None) -> None:
    with pytest.raises(Unsupported) as refused:
        parse("Observation", [(name, value)])
    assert refused.value.param == param
    assert "Maria" not in refused.value.message


WRONG = [
    ("code", ""),
    ("code", "a|b|c"),
    ("code", "|"),
    ("code", "a,,b"),
    ("code", "a\\b"),
    ("code", "a\\"),
    ("code", "a\0b"),
    ("code", "a" * 1001),
    ("code", ",".join("ab" * 60)),
    ("date", "yesterday"),
    ("date", "zz2026"),
    ("date", "ge"),
    ("patient", "Observation/1"),
    ("patient", "a b"),
    ("_id", "a b"),
    ("_id", "ä"),
    ("_count", "-1"),
    ("_count", "many"),
    ("_count", "٣"),
    ("_cursor", "AAAA"),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_what_cannot_be_read_is_refused(name: str, value: str) -> None:
    with pytest.raises(Invalid) as refused:
        parse("Observation", [(name, value)])
    assert refused.value.param == name


def test_paging_is_asked_for_once() -> None:
    for name, value in (("_count", "1"), ("_sort", "date"), ("_total", "none")):
        with pytest.raises(Invalid, match="more than once"):
            parse("Observation", [(name, value), (name, value)])
    with pytest.raises(Invalid, match="At most"):
        parse("Observation", [("code", "1")] * 51)
    assert parse("Observation", [("_count", "999999999")]).count == MAX_COUNT


def test_pages_follow_by_key_in_a_total_order() -> None:
    query = parse("Patient", [("_sort", "-birthdate")])
    statement, _ = query.page(COLUMNS, Readable())
    order = 'ORDER BY r."birth_date" DESC NULLS LAST, r."id" DESC LIMIT %s'
    assert statement.as_string(None).endswith(order)
    assert "OFFSET" not in statement.as_string(None)
    cursor = query.cursor([None, "abc"])
    following = parse("Patient", [("_sort", "-birthdate"), ("_cursor", cursor)])
    statement, values = following.page(COLUMNS, Readable())
    later = '(FALSE OR (r."birth_date" IS NULL AND r."id" < %s))'
    assert later in statement.as_string(None)
    assert values == ["Patient", "abc", 21]


def test_a_condition_is_the_same_in_any_order() -> None:
    one = parse("Patient", [("name", "ana,bia"), ("identifier", "1")])
    two = parse("Patient", [("identifier", "1"), ("name", "bia,ana"), ("_count", "3")])
    other = parse("Patient", [("identifier", "1"), ("name", "ana")])
    assert one.condition() == two.condition() != other.condition()
    assert one.names == ("identifier", "name")
    assert "ana" not in repr(one)


@given(st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=126), max_size=40))
def test_any_cursor_is_this_searchs_or_refused(text: str) -> None:
    with pytest.raises(Invalid) as refused:
        parse("Observation", [("_sort", "date"), ("_cursor", text)])
    assert refused.value.param == "_cursor"


def test_a_cursor_is_read_with_its_own_fingerprint_alone() -> None:
    text = encode_cursor("mine", ["a", 1, None])
    assert decode_cursor("mine", text) == ["a", 1, None]
    with pytest.raises(Invalid):
        decode_cursor("yours", text)


BAD_TAILS = ([1], ["x", "1"], [None, "a b"], ["2026-01-01T00:00:00", "1"], [None, None], [{}, "1"])


@pytest.mark.parametrize("tail", BAD_TAILS)
def test_a_cursor_holds_values_of_its_columns(tail: list[Any]) -> None:
    query = parse("Observation", [("_sort", "date")])
    with pytest.raises(Invalid):
        parse("Observation", [("_sort", "date"), ("_cursor", query.cursor(tail))])


def _holds(prefix: str, stored: Range, asked: Range) -> bool:
    """FHIR's words on prefixes, http://hl7.org/fhir/R4/search.html#prefix, over half-open ranges."""
    (from_, to), (start, end) = stored, asked
    contained = start <= from_ and to <= end
    reaches_above, reaches_below = to > end, from_ < start
    return {
        "eq": contained,
        "ne": not contained,
        "gt": reaches_above,
        "lt": reaches_below,
        "ge": reaches_above or contained,
        "le": reaches_below or contained,
        "sa": from_ >= end,
        "eb": to <= start,
    }[prefix]


async def test_prefixes_mean_in_postgresql_what_fhir_says(database: Database) -> None:
    texts = [
        "2024",
        "2024-02",
        "2024-02-28",
        "2024-02-29",
        "2024-03",
        "2025",
        "2024-02-29T12:00:00Z",
    ]
    stored = [range_of(text) for text in texts] + [(EARLIEST, range_of("2024-02")[1])]
    async with database.transaction(deadline=time.monotonic() + 30) as connection:
        for prefix in PREFIXES:
            for text in texts:
                asked = criterion(PARAMETERS["Observation"]["date"], "", prefix + text)
                condition, values = asked.statement("Observation", Readable())
                query = sql.SQL(
                    "SELECT n FROM unnest(%s::timestamptz[], %s::timestamptz[])"
                    " WITH ORDINALITY AS r(date_from, date_to, n) WHERE {} ORDER BY n"
                ).format(condition)
                ends = [list(each) for each in zip(*stored, strict=True)]
                rows = await (await connection.execute(query, [*ends, *values])).fetchall()
                expected = [
                    at + 1 for at, each in enumerate(stored) if _holds(prefix, each, range_of(text))
                ]
                assert [row[0] for row in rows] == expected, (prefix, text)
