"""The journal's bytes: read back whole, cut short without loss, and never changed unseen."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from deployments.data.audit import framing
from deployments.data.audit.framing import frames, new_header, scan, seed

BODIES = st.lists(st.binary(min_size=1, max_size=60), max_size=8)
# Bodies that look like frames themselves.
NASTY = st.lists(
    st.one_of(
        st.binary(min_size=1, max_size=30),
        st.builds(lambda a, b: a + b"\xa5MRF" + b, st.binary(max_size=9), st.binary(max_size=50)),
        st.just(b"\x00" * 64),
    ),
    max_size=6,
)
PREVIOUS = st.binary(min_size=32, max_size=32)


@given(NASTY, PREVIOUS)
def test_what_is_written_is_read(bodies: list[bytes], previous: bytes) -> None:
    data, last = frames(bodies, previous)
    found = scan(data, previous, ends=True)
    assert (list(found.bodies), found.faults) == (bodies, ())
    assert (found.length, found.previous) == (len(data), last)


@given(BODIES, BODIES, PREVIOUS)
def test_groups_follow_each_other(first: list[bytes], second: list[bytes], previous: bytes) -> None:
    data, middle = frames(first, previous)
    more, last = frames(second, middle)
    found = scan(data + more, previous, ends=True)
    assert (list(found.bodies), found.previous) == (first + second, last)


@given(BODIES, PREVIOUS, st.data())
def test_a_file_cut_anywhere_gives_its_whole_entries_and_says_that_it_is_torn(
    bodies: list[bytes], previous: bytes, data: st.DataObject
) -> None:
    written, _ = frames(bodies, previous)
    cut = data.draw(st.integers(0, len(written)))
    found = scan(written[:cut], previous, ends=True)
    whole = [frames(bodies[:n], previous)[0] for n in range(len(bodies) + 1)]
    expected = max(n for n, part in enumerate(whole) if len(part) <= cut)
    assert list(found.bodies) == bodies[:expected]
    assert [fault.kind for fault in found.faults] == ["torn"] * (cut != len(whole[expected]))
    assert found.length == cut


@given(st.lists(st.binary(min_size=1, max_size=60), min_size=1, max_size=8), PREVIOUS, st.data())
def test_a_changed_byte_is_seen_and_no_changed_entry_is_read(
    bodies: list[bytes], previous: bytes, data: st.DataObject
) -> None:
    written = bytearray(frames(bodies, previous)[0])
    place = data.draw(st.integers(0, len(written) - 1))
    written[place] ^= data.draw(st.integers(1, 255))
    found = scan(bytes(written), previous, ends=True)
    assert found.faults
    assert found.length == len(written)
    left = iter(bodies)
    assert all(body in left for body in found.bodies), "not a subsequence of what was written"


@given(st.lists(st.binary(min_size=1, max_size=60), min_size=2, max_size=8), PREVIOUS, st.data())
def test_a_changed_body_does_not_hide_the_entries_after_it(
    bodies: list[bytes], previous: bytes, data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(bodies) - 2))
    start = len(frames(bodies[:at], previous)[0]) + 40
    written = bytearray(frames(bodies, previous)[0])
    written[start] ^= 1
    found = scan(bytes(written), previous, ends=True)
    assert [fault.kind for fault in found.faults] == ["damaged"]
    assert list(found.bodies) == bodies[:at] + bodies[at + 1 :]


@given(st.lists(st.binary(min_size=1, max_size=60), min_size=3, max_size=8), PREVIOUS, st.data())
def test_a_removed_entry_is_seen(bodies: list[bytes], previous: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(bodies) - 2))
    written = frames(bodies, previous)[0]
    start, end = (len(frames(bodies[:n], previous)[0]) for n in (at, at + 1))
    found = scan(written[:start] + written[end:], previous, ends=True)
    assert "damaged" in [fault.kind for fault in found.faults]


@given(BODIES, PREVIOUS, st.integers(1, 200))
def test_zeros_at_the_end_are_a_torn_tail(bodies: list[bytes], previous: bytes, zeros: int) -> None:
    found = scan(frames(bodies, previous)[0] + bytes(zeros), previous, ends=True)
    assert list(found.bodies) == bodies
    assert [fault.kind for fault in found.faults] == ["torn"]


def test_a_part_of_a_file_ends_before_the_frame_that_is_not_all_there() -> None:
    bodies = [b"x" * framing.MAX_BODY, b"y" * 1000, b"z" * framing.MAX_BODY]
    data, last = frames(bodies, bytes(32))
    first = scan(data[: framing.MAX_BODY + 2000], bytes(32), ends=False)
    assert (list(first.bodies), first.faults) == (bodies[:2], ())
    second = scan(data[first.length :], first.previous, ends=True)
    assert (list(second.bodies), second.previous) == (bodies[2:], last)


def test_a_header_is_known_by_its_word() -> None:
    header = new_header()
    assert len(header) == framing.HEADER_BYTES
    assert seed(header) not in (None, seed(new_header()))
    assert seed(header[:-1]) is None
    assert seed(b"x" + header[1:]) is None
