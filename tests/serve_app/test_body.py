from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from serve_app import body as body_module
from serve_app.body import MAX_CONTAINERS, MAX_DEPTH, parse, read_json
from serve_app.errors import (
    BodyTooLarge,
    BodyTooSlow,
    ClientGone,
    InvalidBody,
    UnsupportedMediaType,
)
from tests.serve_app.fake_language import RawConnection

JSON = (b"content-type", b"application/json")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"{'a': 1}",
        b'{"a": 1,}',
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": -Infinity}',
        b'{"a": 1e999}',
        b'{"a": "\xff\xfe"}',
        b'{"a": "\\ud800"}',
        b'\xef\xbb\xbf{"a": 1}',
        b'{"a": 1} {"b": 2}',
        b'{"a": 1, "a": 2}',
        b'{"a": {"b": 1, "\\u0062": 2}}',
        b'[{"x": 1}, {"y": 1, "y": 1}]',
    ],
)
def test_ambiguous_or_broken_json_is_refused_without_quoting_it(body: bytes) -> None:
    with pytest.raises(InvalidBody) as refused:
        parse(body)
    assert refused.value.status == 400
    assert "'" not in refused.value.message
    assert "ud800" not in refused.value.message


def test_the_same_key_in_different_objects_is_allowed() -> None:
    assert parse(b'[{"a": 1}, {"a": {"a": 2}}]') == [{"a": 1}, {"a": {"a": 2}}]


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_nesting_is_bounded_before_any_parser_sees_it(opening: bytes) -> None:
    closing = b"]" if opening == b"[" else b"}"
    fits = opening * MAX_DEPTH + b"1" + closing * MAX_DEPTH
    assert parse(fits)
    with pytest.raises(InvalidBody, match="nested"):
        parse(opening + fits + closing)
    with pytest.raises(InvalidBody, match="nested"):
        parse(opening * 500_000)


def test_brackets_inside_strings_are_text() -> None:
    text = '[{"' * 400 + "\\" * 3
    assert parse(b'{"a": "' + b"[" * 1000 + b'"}') == {"a": "[" * 1000}
    assert parse(orjson.dumps({"a": text, "b": [text]})) == {"a": text, "b": [text]}


def test_a_string_cannot_hide_nesting_behind_an_escaped_quote() -> None:
    nested = b"[" * 100 + b"]" * 100
    with pytest.raises(InvalidBody, match="nested"):
        parse(b'{"a": "\\\\", "b": ' + nested + b"}")


def test_the_number_of_containers_is_bounded() -> None:
    with pytest.raises(InvalidBody, match="lists and objects"):
        parse(b"[" + b"[]," * (MAX_CONTAINERS + 1) + b"1]")


def test_huge_integers_are_read_as_floats_so_that_no_integer_field_takes_them() -> None:
    value = parse(b'{"seed": ' + b"9" * 30 + b"}")["seed"]
    assert isinstance(value, float)


async def read(
    connection: RawConnection, max_bytes: int = 100, headers: tuple[Any, ...] = (JSON,)
) -> Any:
    connection.scope["headers"] = list(headers)
    return await read_json(connection.scope, connection.incoming.get, max_bytes)


async def test_a_body_in_parts_is_joined() -> None:
    connection = RawConnection().give(b'{"a"', more=True).give(b": 1}")
    assert await read(connection) == {"a": 1}


async def test_too_many_bytes_are_refused_while_they_arrive() -> None:
    connection = RawConnection().give(b'"' + b"a" * 60, more=True).give(b"a" * 60, more=True)
    with pytest.raises(BodyTooLarge):
        await read(connection)
    assert connection.incoming.empty()


async def test_an_announced_length_is_refused_before_a_byte_is_read() -> None:
    connection = RawConnection().give(b"{}")
    with pytest.raises(BodyTooLarge):
        await read(connection, headers=(JSON, (b"content-length", b"101")))
    assert connection.incoming.qsize() == 1


async def test_a_body_of_exactly_the_limit_is_read() -> None:
    body = b'"' + b"a" * 98 + b'"'
    assert len(await read(RawConnection().give(body))) == 98


async def test_a_slow_body_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_module, "BODY_TIMEOUT_S", 0.01)
    with pytest.raises(BodyTooSlow):
        await asyncio.wait_for(read(RawConnection().give(b"{", more=True)), 5)


async def test_a_client_that_leaves_in_mid_body_is_noticed() -> None:
    connection = RawConnection().give(b"{", more=True)
    connection.leave()
    with pytest.raises(ClientGone):
        await read(connection)


@pytest.mark.parametrize(
    "headers",
    [
        (),
        ((b"content-type", b"text/plain"),),
        ((b"content-type", b"application/x-www-form-urlencoded"),),
        ((b"content-type", b"application/json; charset=latin-1"),),
        ((b"content-type", b"application/jsonp"),),
        (JSON, (b"content-encoding", b"gzip")),
    ],
)
async def test_other_content_types_and_encodings_are_refused(headers: tuple[Any, ...]) -> None:
    with pytest.raises(UnsupportedMediaType):
        await read(RawConnection().give(b"{}"), headers=headers)


@pytest.mark.parametrize(
    "value",
    [b"application/json", b"Application/JSON", b'application/json; charset="UTF-8"'],
)
async def test_the_ways_to_write_json_in_utf8_are_accepted(value: bytes) -> None:
    assert await read(RawConnection().give(b"{}"), headers=((b"content-type", value),)) == {}
