"""Proves that a sealed stream opens to what was sealed, whole and in order, or not at all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.data.seal import framing
from deployments.data.seal.errors import SealBroken

KEY = bytes(range(32))
CONTEXT = b"blob-1"


def sealed(pieces: Sequence[bytes], key: bytes = KEY, context: bytes = CONTEXT) -> bytes:
    sealer = framing.StreamSealer(key, context)
    body = b"".join(chunk for piece in pieces for chunk in sealer.feed(piece))
    return sealer.header + body + sealer.finish()


def chunks(data: bytes) -> Iterator[bytes]:
    for offset in range(framing.HEADER, len(data), framing.FRAME):
        yield data[offset : offset + framing.FRAME]


def opened(data: bytes, key: bytes = KEY, context: bytes = CONTEXT) -> bytes:
    """As a reader does that knows nothing but the bytes."""
    parts = list(chunks(data))
    opener = framing.StreamOpener(key, context, data[: framing.HEADER], len(parts))
    if not parts:
        raise SealBroken("no chunk")
    return b"".join(opener.open(number, part) for number, part in enumerate(parts))


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many chunks of few bytes: the same code, other sizes."""
    monkeypatch.setattr(framing, "CHUNK", 16)
    monkeypatch.setattr(framing, "FRAME", 32)


pieces_of_any_size = st.lists(st.binary(max_size=70), max_size=8)
quick = settings(max_examples=150, deadline=None)


@quick
@given(pieces_of_any_size)
def test_any_split_into_pieces_opens_to_the_whole(pieces: list[bytes]) -> None:
    plain = b"".join(pieces)
    data = sealed(pieces)
    assert opened(data) == plain
    assert len(data) == framing.sealed_size(len(plain))
    assert len(list(chunks(data))) == framing.chunks_of(len(plain))


@quick
@given(st.binary(max_size=70), st.data())
def test_any_flipped_bit_is_noticed(plain: bytes, choice: st.DataObject) -> None:
    data = bytearray(sealed([plain]))
    bit = choice.draw(st.integers(0, len(data) * 8 - 1))
    data[bit // 8] ^= 1 << bit % 8
    with pytest.raises(SealBroken):
        opened(bytes(data))


@quick
@given(st.binary(max_size=70), st.data())
def test_any_truncation_is_noticed(plain: bytes, choice: st.DataObject) -> None:
    data = sealed([plain])
    with pytest.raises(SealBroken):
        opened(data[: choice.draw(st.integers(0, len(data) - 1))])


@quick
@given(st.binary(max_size=70), st.binary(min_size=1, max_size=70))
def test_anything_added_is_noticed(plain: bytes, more: bytes) -> None:
    with pytest.raises(SealBroken):
        opened(sealed([plain]) + more)


@quick
@given(st.binary(min_size=33, max_size=100), st.data())
def test_chunks_moved_repeated_or_left_out_are_noticed(plain: bytes, choice: st.DataObject) -> None:
    data = sealed([plain])
    parts = list(chunks(data))
    order = list(range(len(parts)))
    other = choice.draw(st.lists(st.sampled_from(order), max_size=len(order) + 2))
    if other == order:
        return
    with pytest.raises(SealBroken):
        opened(data[: framing.HEADER] + b"".join(parts[number] for number in other))


def test_another_key_another_context_and_another_streams_chunk_do_not_open() -> None:
    plain = bytes(40)
    data, again = sealed([plain]), sealed([plain])
    for key, context in ((bytes(32), CONTEXT), (KEY, b"blob-2")):
        with pytest.raises(SealBroken):
            opened(data, key, context)
    mixed = data[: framing.offset_of(1)] + again[framing.offset_of(1) :]
    with pytest.raises(SealBroken):
        opened(mixed)


def test_nonces_never_repeat_within_a_stream_nor_between_streams_of_one_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[bytes] = []
    real = framing._nonce

    def noted(prefix: bytes, number: int, last: bool) -> bytes:
        seen.append(real(prefix, number, last))
        return seen[-1]

    monkeypatch.setattr(framing, "_nonce", noted)
    for _ in range(200):
        sealed([bytes(100)])
    assert len(seen) == 200 * 7
    assert len(set(seen)) == len(seen)
    assert {len(nonce) for nonce in seen} == {12}


def test_a_stream_longer_than_the_counter_is_refused() -> None:
    with pytest.raises(ValueError, match="chunks"):
        framing._nonce(bytes(7), 2**32, False)
