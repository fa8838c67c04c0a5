"""Passwords: what is one, and its Argon2id hash, computed on few threads with a bounded queue.

NIST SP 800-63B-4, section 3.1.1: at least 15 characters where a password is the only factor, no
rules of composition, none that is guessed first. Costs as OWASP's Password Storage Cheat Sheet.
"""

from __future__ import annotations

import asyncio
import secrets
import time
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from deployments.data.errors import DeadlineExceeded, Invalid, TooMany

LEAST, MOST = 15, 256
# 19 MiB a hash and two at a time: a crowd that signs in takes 40 MB of a replica, not its memory.
_HASHER = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
_THREADS = 2
_QUEUE = 64
_FEWEST_DISTINCT = 5
_GUESSED = ("password", "senha", "12345", "qwerty", "abcde", "letmein", "hospital", "medrec")

T = TypeVar("T")


def checked(password: str, username: str) -> str:
    """The password in NFC. Raises `Invalid`, which says what is wrong and quotes nothing."""
    password = unicodedata.normalize("NFC", password)
    if not LEAST <= len(password) <= MOST:
        raise _bad(f"A password has {LEAST} to {MOST} characters.")
    if len(set(password)) < _FEWEST_DISTINCT:
        raise _bad("A password of so few different characters is guessed at once.")
    rest = password.casefold()
    for word in (*_GUESSED, username.casefold()):
        rest = rest.replace(word, "") if word else rest
    if len(set(rest)) < _FEWEST_DISTINCT:
        raise _bad("A password made of the user's name or of common ones is guessed at once.")
    return password


def generated() -> str:
    """A password of 130 bits that can be read out: five groups of lower-case letters and digits."""
    alphabet = "abcdefghjkmnpqrstuvwxyz23456789"
    return "-".join("".join(secrets.choice(alphabet) for _ in range(6)) for _ in range(5))


def hashed(password: str) -> str:
    """Its Argon2id hash, here and now: for commands, not for a server's event loop."""
    return _HASHER.hash(unicodedata.normalize("NFC", password))


def matches(password: str, stored: str) -> bool:
    """Whether `stored` is the password's hash, here and now."""
    try:
        return _HASHER.verify(stored, unicodedata.normalize("NFC", password))
    except (VerificationError, InvalidHashError):
        return False


class Hashing:
    """Argon2id off the event loop: `_THREADS` at a time, `_QUEUE` waiting, then 429."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="argon2")
        self._inside = 0
        # An unknown name costs as much as a known one: its password is held against this.
        self._nobody = hashed(secrets.token_urlsafe(24))

    async def verify(self, password: str, stored: str | None, *, deadline: float) -> bool:
        """Whether the password is that of `stored`; as slow, and False, without one."""
        right = await self._run(lambda: matches(password, stored or self._nobody), deadline)
        return right and stored is not None

    async def hash(self, password: str, *, deadline: float) -> str:
        """The password's hash."""
        return await self._run(lambda: hashed(password), deadline)

    def close(self) -> None:
        """End the threads; what waits for them is dropped."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _run(self, work: Callable[[], T], deadline: float) -> T:
        if self._inside >= _THREADS + _QUEUE:
            raise TooMany("Too many people sign in at this moment.", retry_after_s=2)
        loop = asyncio.get_running_loop()
        future = self._pool.submit(work)
        self._inside += 1
        future.add_done_callback(lambda _: self._left(loop))
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                return await asyncio.wrap_future(future)
        except TimeoutError:
            raise DeadlineExceeded("The time limit passed before the password was read.") from None

    def _left(self, loop: asyncio.AbstractEventLoop) -> None:
        # Called on a pool's thread, or on the loop's when a future was cancelled in the queue.
        if not loop.is_closed():
            loop.call_soon_threadsafe(self._count_out)

    def _count_out(self) -> None:
        self._inside -= 1


def _bad(message: str) -> Invalid:
    return Invalid(message, param="password", code="weak_password")
