"""Proves that a sealed value opens only as itself, in its place, under its key."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.data.seal import keys
from deployments.data.seal.errors import SealBroken
from deployments.data.seal.sealer import Sealed, Sealer

CONTEXT = b"hospital/Patient/1/1"


@pytest.fixture(scope="module")
def sealer(tmp_path_factory: pytest.TempPathFactory) -> Sealer:
    secrets = tmp_path_factory.mktemp("home") / "secrets"
    keys.ensure_site_keys(secrets)
    return Sealer.load(secrets)


@settings(max_examples=100, deadline=None)
@given(plain=st.binary(max_size=300), context=st.binary(max_size=40))
def test_what_was_sealed_opens_in_its_place(sealer: Sealer, plain: bytes, context: bytes) -> None:
    assert sealer.open(sealer.seal(plain, context), context) == plain


@settings(max_examples=200, deadline=None)
@given(plain=st.binary(max_size=60), choice=st.data())
def test_any_change_is_noticed(sealer: Sealer, plain: bytes, choice: st.DataObject) -> None:
    sealed = sealer.seal(plain, CONTEXT)
    field = choice.draw(st.sampled_from(["wrapped_key", "data"]))
    value = bytearray(getattr(sealed, field))
    if choice.draw(st.booleans()):
        bit = choice.draw(st.integers(0, len(value) * 8 - 1))
        value[bit // 8] ^= 1 << bit % 8
    else:
        del value[choice.draw(st.integers(0, len(value) - 1)) :]
    broken = (
        replace(sealed, data=bytes(value))
        if field == "data"
        else replace(sealed, wrapped_key=bytes(value))
    )
    with pytest.raises(SealBroken) as refused:
        sealer.open(broken, CONTEXT)
    assert refused.value.status == 500


def test_values_cannot_be_swapped_among_rows_nor_keys_among_values(sealer: Sealer) -> None:
    one, other = sealer.seal(b"one", b"Patient/1/1"), sealer.seal(b"other", b"Patient/2/1")
    for sealed, context in (
        (one, b"Patient/2/1"),
        (one, b"Patient/1/2"),
        (replace(one, wrapped_key=other.wrapped_key), b"Patient/1/1"),
        (replace(one, data=other.data), b"Patient/1/1"),
    ):
        with pytest.raises(SealBroken):
            sealer.open(sealed, context)


def test_a_wrapped_key_does_not_open_as_another_site_keys(tmp_path: Path) -> None:
    keys.create(tmp_path)
    sealer = Sealer.load(tmp_path)
    sealed = sealer.seal(b"plain", CONTEXT)
    keys.write(tmp_path, keys.read(tmp_path).with_new_current())
    renewed = Sealer.load(tmp_path)
    assert renewed.current != sealed.key_id
    assert renewed.open(sealed, CONTEXT) == b"plain"
    for name in (renewed.current, "0" * 16):
        with pytest.raises(SealBroken):
            renewed.open(replace(sealed, key_id=name), CONTEXT)


def test_equal_values_seal_differently_and_no_key_or_nonce_is_used_twice(sealer: Sealer) -> None:
    many = [sealer.seal(b"equal", CONTEXT) for _ in range(2000)]
    assert len({sealed.data for sealed in many}) == len(many)
    assert len({sealed.wrapped_key[:12] for sealed in many}) == len(many)
    unwrapped = {sealer.unwrap(sealed.key_id, sealed.wrapped_key) for sealed in many}
    assert len(unwrapped) == len(many)


def test_blind_tokens_tell_equality_within_a_purpose_and_nothing_else(tmp_path: Path) -> None:
    keys.create(tmp_path)
    sealer = Sealer.load(tmp_path)
    token = sealer.blind("name", "silva")
    assert token == sealer.blind("name", "silva")
    assert len(token) == 22
    assert token.isascii()
    others = {sealer.blind("name", "souza"), sealer.blind("identifier", "silva")}
    assert token not in others
    # No way to shift letters from the purpose to the value.
    assert sealer.blind("ab", "c") != sealer.blind("a", "bc")
    keys.write(tmp_path, keys.read(tmp_path).with_new_current())
    assert Sealer.load(tmp_path).blind("name", "silva") == token


def test_a_running_sealer_learns_of_a_rotation_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys.create(tmp_path)
    sealer, writer = Sealer.load(tmp_path), Sealer.load(tmp_path)
    first = sealer.current
    keys.write(tmp_path, keys.read(tmp_path).with_new_current())
    fresh = Sealer.load(tmp_path).seal(b"new", CONTEXT)
    # At once, when it meets the new key …
    assert sealer.open(fresh, CONTEXT) == b"new"
    # … and within a second when it does not.
    monkeypatch.setattr("deployments.data.seal.sealer.RELOAD_S", 0.0)
    assert writer.seal(b"more", CONTEXT).key_id == fresh.key_id != first


def test_a_lost_file_stops_nobody_who_has_the_keys_already(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys.create(tmp_path)
    sealer = Sealer.load(tmp_path)
    sealed = sealer.seal(b"plain", CONTEXT)
    os.unlink(keys.path_of(tmp_path))
    monkeypatch.setattr("deployments.data.seal.sealer.RELOAD_S", 0.0)
    assert sealer.open(sealed, CONTEXT) == b"plain"
    assert sealer.open(sealer.seal(b"more", CONTEXT), CONTEXT) == b"more"
    with pytest.raises(SealBroken):
        sealer.open(Sealed("0" * 16, sealed.wrapped_key, sealed.data), CONTEXT)


def test_nothing_secret_is_in_a_representation(sealer: Sealer) -> None:
    sealed = sealer.seal(b"plain", CONTEXT)
    assert repr(sealed) == f"Sealed(key_id='{sealed.key_id}')"
