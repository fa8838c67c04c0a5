"""What is done again, what is not, and what is said of work whose fate was unknown once."""

from __future__ import annotations

import time
from dataclasses import dataclass

import pytest

from deployments.data.errors import (
    CommitUnknown,
    Conflict,
    DataError,
    Interrupted,
    NotFound,
    StoreUnavailable,
)
from deployments.data.repeating import repeat, repeated


class Work:
    """Fails in these ways, one after the other, and then succeeds."""

    def __init__(self, *errors: DataError) -> None:
        self._errors = list(errors)
        self.runs = 0

    async def __call__(self) -> str:
        self.runs += 1
        if self._errors:
            raise self._errors.pop(0)
        return "done"


def soon(seconds: float = 5.0) -> float:
    return time.monotonic() + seconds


async def test_what_was_broken_off_is_done_again() -> None:
    work = Work(Interrupted("gone"), Interrupted("gone"))
    assert await repeat(work, deadline=soon()) == "done"
    assert work.runs == 3


@pytest.mark.parametrize(
    "error", [StoreUnavailable("full"), Conflict("others"), CommitUnknown("?"), NotFound("no")]
)
async def test_everything_else_is_told_at_once(error: DataError) -> None:
    work = Work(error)
    with pytest.raises(type(error)):
        await repeat(work, deadline=soon())
    assert work.runs == 1


async def test_nothing_is_done_again_after_the_deadline() -> None:
    work = Work(*[Interrupted("gone")] * 1000)
    began = time.monotonic()
    with pytest.raises(Interrupted):
        await repeat(work, deadline=soon(0.5))
    assert 0.4 < time.monotonic() - began < 2.0
    # Twenty times a second at most, also where a server breaks every transaction.
    assert work.runs <= 12


async def test_an_unknown_commit_is_repeated_only_where_it_finds_itself_done() -> None:
    work = Work(CommitUnknown("?"), Interrupted("gone"), CommitUnknown("?"))
    assert await repeat(work, deadline=soon(), even_unknown=True) == "done"
    assert work.runs == 4


@pytest.mark.parametrize("last", [Conflict("others"), StoreUnavailable("full"), NotFound("no")])
async def test_once_its_fate_was_unknown_no_later_error_says_that_nothing_was_written(
    last: DataError,
) -> None:
    work = Work(CommitUnknown("?"), last)
    with pytest.raises(CommitUnknown):
        await repeat(work, deadline=soon(), even_unknown=True)
    assert work.runs == 2


@dataclass
class _Asker:
    deadline: float


class Desk:
    """With a method that is repeated until its first argument's deadline."""

    def __init__(self, work: Work) -> None:
        self._work = work

    @repeated
    async def ask(self, asker: _Asker, word: str) -> str:
        """Ask."""
        return f"{word} {await self._work()}"


async def test_a_method_takes_the_deadline_of_who_asks() -> None:
    assert await Desk(Work(Interrupted("gone"))).ask(_Asker(soon()), "well") == "well done"
    late = Work(Interrupted("gone"))
    with pytest.raises(Interrupted):
        await Desk(late).ask(_Asker(time.monotonic()), "well")
    assert late.runs == 1
