"""Passwords: what is one, that it is hashed with Argon2id, and that a crowd is bounded."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from deployments.data.accounts import passwords
from deployments.data.accounts.passwords import Hashing
from deployments.data.errors import DeadlineExceeded, Invalid, TooMany
from tests.conftest import REAL_HASHER

GOOD = "correct horse battery staple"


@pytest.fixture(autouse=True)
def real_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "_HASHER", REAL_HASHER)


@pytest.mark.parametrize(
    "password",
    [
        *("short", "14 characters!", "a" * 20, "abababababababab", "password12345password"),
        *("Maria.SilvaMaria.Silva", "x" * 257, "senhasenhasenhasenha"),
    ],
)
def test_a_password_that_is_guessed_first_is_refused_and_not_quoted(password: str) -> None:
    with pytest.raises(Invalid) as caught:
        passwords.checked(password, "maria.silva")
    assert caught.value.code == "weak_password"
    assert password not in caught.value.message


@pytest.mark.parametrize(
    "password",
    [
        *(GOOD, "quinze letras!!", "日本語のとても長いパスワードです。"),
        pytest.param(passwords.generated(), id="generated"),
    ],
)
def test_length_is_what_counts(password: str) -> None:
    assert passwords.checked(password, "maria.silva") == password


def test_the_hash_is_argon2id_and_the_same_word_in_two_normal_forms_matches() -> None:
    stored = passwords.hashed("São João da Boa Vista")
    assert stored.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert passwords.matches("São João da Boa Vista", stored)
    assert not passwords.matches("Sao Joao da Boa Vista", stored)
    assert not passwords.matches("anything", "not a hash")


async def test_nobody_s_password_is_read_as_long_and_never_right() -> None:
    hashing = Hashing()
    try:
        deadline = time.monotonic() + 10
        stored = passwords.hashed(GOOD)
        assert await hashing.verify(GOOD, stored, deadline=deadline)
        assert not await hashing.verify(GOOD + "!", stored, deadline=deadline)
        assert not await hashing.verify(GOOD, None, deadline=deadline)
    finally:
        hashing.close()


async def test_a_crowd_beyond_the_queue_is_told_to_come_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate = threading.Event()
    monkeypatch.setattr(passwords, "matches", lambda *_: gate.wait(10))
    hashing = Hashing()
    try:
        deadline = time.monotonic() + 10
        crowd = [
            asyncio.ensure_future(hashing.verify(GOOD, "stored", deadline=deadline))
            for _ in range(66)
        ]
        await asyncio.sleep(0)
        with pytest.raises(TooMany) as caught:
            await hashing.verify(GOOD, "stored", deadline=deadline)
        assert caught.value.retry_after_s
        gate.set()
        assert all(await asyncio.gather(*crowd))
        # Those who have left make room for others.
        assert await hashing.verify(GOOD, "stored", deadline=deadline)
    finally:
        gate.set()
        hashing.close()


async def test_who_waits_too_long_is_told_so_and_makes_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate = threading.Event()
    monkeypatch.setattr(passwords, "matches", lambda *_: gate.wait(10))
    hashing = Hashing()
    try:
        with pytest.raises(DeadlineExceeded):
            await hashing.verify(GOOD, "stored", deadline=time.monotonic() + 0.05)
        gate.set()
        assert await hashing.verify(GOOD, "stored", deadline=time.monotonic() + 10)
    finally:
        gate.set()
        hashing.close()
