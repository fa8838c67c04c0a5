"""What was looked up lately: fresh for seconds, known for minutes while the database is away."""

from __future__ import annotations

import asyncio

import pytest

from deployments.data.accounts.remembered import Remembered
from deployments.data.errors import StoreUnavailable


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Table:
    """A database of one value that can be taken away."""

    value = "first"
    asked = 0
    away = False

    async def load(self) -> str:
        self.asked += 1
        await asyncio.sleep(0)
        if self.away:
            raise StoreUnavailable("away")
        return self.value


async def test_a_change_is_seen_after_ten_seconds_and_asked_for_once() -> None:
    clock, table = Clock(), Table()
    remembered: Remembered[str] = Remembered(clock=clock)
    assert await remembered.get("k", table.load) == "first"
    table.value = "second"
    clock.now += 9.9
    assert await remembered.get("k", table.load) == "first"
    clock.now += 0.2
    found = await asyncio.gather(*(remembered.get("k", table.load) for _ in range(50)))
    assert set(found) == {"second"}
    assert table.asked == 2


async def test_while_the_database_is_away_what_was_known_serves_for_minutes_only() -> None:
    clock, table = Clock(), Table()
    remembered: Remembered[str] = Remembered(clock=clock)
    with_nothing = Remembered[str](clock=clock)
    await remembered.get("k", table.load)
    table.away = True
    with pytest.raises(StoreUnavailable):
        await with_nothing.get("k", table.load)
    clock.now += 60
    asked = table.asked
    for _ in range(20):
        assert await remembered.get("k", table.load) == "first"
    # Not every request waits for what is away.
    assert table.asked == asked + 1
    clock.now += 300
    with pytest.raises(StoreUnavailable):
        await remembered.get("k", table.load)


async def test_one_who_gives_up_does_not_end_the_lookup_of_the_others() -> None:
    gate = asyncio.Event()

    async def load() -> str:
        await gate.wait()
        return "found"

    remembered: Remembered[str] = Remembered()
    first = asyncio.ensure_future(remembered.get("k", load))
    second = asyncio.ensure_future(remembered.get("k", load))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    gate.set()
    assert await second == "found"


async def test_no_more_than_so_many_are_remembered() -> None:
    table = Table()
    remembered: Remembered[str] = Remembered(entries=3)
    for name in "abcd":
        await remembered.get(name, table.load)
    await remembered.get("d", table.load)
    assert table.asked == 4
    await remembered.get("a", table.load)
    assert table.asked == 5
    remembered.forget("a")
    await remembered.get("a", table.load)
    assert table.asked == 6


async def test_what_changed_during_a_lookup_is_looked_up_again() -> None:
    clock, table, gate = Clock(), Table(), asyncio.Event()
    remembered: Remembered[str] = Remembered(clock=clock)

    async def slow() -> str:
        value = await table.load()
        await gate.wait()
        return value

    first = asyncio.ensure_future(remembered.get("k", slow))
    await asyncio.sleep(0.01)
    table.value = "second"
    remembered.forget("k")
    gate.set()
    assert await first == "first"
    assert await remembered.get("k", table.load) == "second"


async def test_what_is_in_doubt_still_serves_while_the_database_is_away() -> None:
    clock, table = Clock(), Table()
    remembered: Remembered[str] = Remembered(clock=clock)
    await remembered.get("k", table.load)
    remembered.doubt()
    table.away = True
    assert await remembered.get("k", table.load) == "first"
    table.away, table.value = False, "second"
    clock.now += 11
    assert await remembered.get("k", table.load) == "second"
