"""`kill -9` of a replica in mid-stream costs its own streams and nothing else."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from tests.reliability.drill import MODEL, Drill, Outcome, chat, chats, language, start

pytestmark = pytest.mark.cluster

WITHIN_S = 2.0


@pytest.fixture(scope="module")
def two_engines(drill: Drill) -> Drill:
    def change(config: dict[str, Any]) -> None:
        language(config)["replicas"].update(min=2, max=2)

    drill.deploy(change)
    drill.wait(lambda: len(drill.pids(MODEL)) == 2, 60, "two engines run")
    return drill


async def test_a_killed_engine_ends_its_streams_with_an_error_and_a_new_one_answers(
    two_engines: Drill,
) -> None:
    drill = two_engines
    victim, survivor = sorted(drill.pids(MODEL))
    async with chats(drill.cell) as client:
        tasks = await start(client, 10, tokens=1500)
        assert not any(task.done() for task in tasks)
        killed_s = drill.kill(victim)
        after = await chat(client, 100, tokens=5)
        assert after.finished, "a chat that comes after the kill is answered"
        outcomes = await asyncio.gather(*tasks)
        lost = [outcome for outcome in outcomes if not outcome.finished]
        assert 0 < len(lost) < len(outcomes), "the sessions were spread over both engines"
        assert {(o.status, o.code) for o in lost} == {(200, "engine_unavailable")}
        assert max(o.ended_s for o in lost) - killed_s < WITHIN_S

        await drill.eventually(
            lambda: len(drill.pids(MODEL) - {victim}) == 2, 60, "a new engine runs"
        )
        drill.kill(survivor)
        late = await chat(client, 101, tokens=5)
        assert late.finished, "the new engine answers alone"


async def test_a_killed_api_replica_closes_its_connections_and_the_other_one_serves(
    two_engines: Drill,
) -> None:
    drill = two_engines
    victim = min(drill.pids("api"))
    async with chats(drill.cell) as client:
        tasks = await start(client, 10, tokens=1500)
        assert not any(task.done() for task in tasks)
        killed_s = drill.kill(victim)
        new = [asyncio.create_task(chat(client, 200 + number, tokens=5)) for number in range(10)]
        outcomes: list[Outcome] = await asyncio.gather(*tasks)
        cut = [outcome for outcome in outcomes if not outcome.finished]
        assert 0 < len(cut) < len(outcomes), "the connections were spread over both replicas"
        # No [DONE], and no event that could be taken for the end: the connection breaks off.
        assert {(o.status, o.code) for o in cut} == {(200, None)}
        assert max(o.ended_s for o in cut) - killed_s < WITHIN_S
        assert all(outcome.finished for outcome in await asyncio.gather(*new))
    began_s = time.monotonic()
    await drill.eventually(lambda: len(drill.pids("api") - {victim}) == 2, 60, "a new API replica")
    assert time.monotonic() - began_s < 60
