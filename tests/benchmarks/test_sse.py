from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import sse
from benchmarks.sse import EventParser, MalformedStream

STREAM = (
    b": keepalive 3/9\n\n"
    b'data: {"a": 1}\n\n'
    b'event: message\r\nid: 7\r\ndata: {"b": 2}\r\n\r\n'
    b"data: one\ndata: two\n\n"
    b"\n\n"
    b"data:[DONE]\n\n"
)
EVENTS = [b'{"a": 1}', b'{"b": 2}', b"one\ntwo", b"[DONE]"]


def test_events_are_cut_out_and_comments_and_other_fields_skipped() -> None:
    assert EventParser().feed(STREAM) == EVENTS


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_events_do_not_depend_on_where_the_bytes_are_cut(cuts: list[int]) -> None:
    parser = EventParser()
    edges = [0, *sorted(cuts), len(STREAM)]
    events = [
        event
        for start, end in itertools.pairwise(edges)
        for event in parser.feed(STREAM[start:end])
    ]
    assert events == EVENTS


def test_an_unfinished_event_is_not_given_out() -> None:
    assert EventParser().feed(b"data: half\n") == []


def test_a_line_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 100)
    with pytest.raises(MalformedStream, match="more than 100 bytes"):
        EventParser().feed(b"data: " + b"x" * 200)
