"""Objects open exactly as they were sealed, under their name and key, and nothing else does."""

from __future__ import annotations

import os

import pytest

from deployments.data.backup import keys, objects
from deployments.data.backup.errors import Damaged

KEY = keys.new()
NAME = "here/1/wal/00000001/000000010000000000000001"


@pytest.mark.parametrize("plain", [b"", b"x", bytes(3 * 2**20), os.urandom(600_000)])
@pytest.mark.parametrize("last", [True, False])
def test_an_object_opens_as_it_was_sealed(plain: bytes, last: bool) -> None:
    data = objects.seal(KEY.writer, NAME, plain, last=last)
    assert objects.open_sealed(KEY, NAME, data) == objects.Opened(plain, last)


def test_zeros_are_compressed_and_what_gains_nothing_is_not() -> None:
    assert len(objects.seal(KEY.writer, NAME, bytes(2**24))) < 100_000
    noise = os.urandom(100_000)
    sizes = {len(objects.seal(KEY.writer, NAME, noise, compress=each)) for each in (True, False)}
    assert len(sizes) == 1


def test_every_changed_byte_is_refused() -> None:
    data = objects.seal(KEY.writer, NAME, os.urandom(50))
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= 1
        with pytest.raises(Damaged, match=NAME):
            objects.open_sealed(KEY, NAME, bytes(changed))


def test_a_cut_a_renamed_and_a_swapped_object_are_refused() -> None:
    data = objects.seal(KEY.writer, NAME, os.urandom(600_000))
    for length in (0, 3, objects.HEADER, objects.HEADER + 20, 300_000, len(data) - 1):
        with pytest.raises(Damaged):
            objects.open_sealed(KEY, NAME, data[:length])
    with pytest.raises(Damaged, match=r"changed, moved or damaged"):
        objects.open_sealed(KEY, f"{NAME[:-1]}2", data)


def test_another_key_is_told_from_damage() -> None:
    data = objects.seal(KEY.writer, NAME, b"content")
    with pytest.raises(Damaged, match="another backup key"):
        objects.open_sealed(keys.new(), NAME, data)


def test_the_public_key_alone_makes_nothing_that_opens() -> None:
    """Who can write to the bucket and knows the public key still lacks the stamp."""
    forger = keys.WriterKey(KEY.writer.public, bytes(32))
    data = bytearray(objects.seal(forger, NAME, b"forged"))
    data[5:13] = KEY.writer.id
    with pytest.raises(Damaged):
        objects.open_sealed(KEY, NAME, bytes(data))


def test_the_header_tells_whether_content_is_the_same() -> None:
    data = objects.seal(KEY.writer, NAME, b"content")
    assert objects.has_content(KEY.writer, NAME, b"content", data[: objects.HEADER])
    assert not objects.has_content(KEY.writer, NAME, b"other", data[: objects.HEADER])
    assert not objects.has_content(KEY.writer, NAME, b"content", b"")


def test_no_key_is_shown_by_a_repr() -> None:
    shown = repr(KEY) + repr(KEY.writer)
    assert str(KEY.private) not in shown
    assert str(KEY.stamp) not in shown
