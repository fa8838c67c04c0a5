"""A config update by `serve deploy` under load fails no request; overload is refused in order."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import openai
import pytest

from tests.reliability.drill import MODEL, Drill, Outcome, chat, chats, language

pytestmark = pytest.mark.cluster

CLIENTS = 6
SMALL = {"max_running": 4, "max_queued": 4}


def small(config: dict[str, Any]) -> None:
    language(config)["engine"] = dict(SMALL)
    language(config)["replicas"].update(max=1)


async def keep_asking(
    client: openai.AsyncOpenAI, number: int, stop: asyncio.Event, outcomes: list[Outcome]
) -> None:
    turn = 0
    while not stop.is_set():
        outcomes.append(await chat(client, 1000 * number + turn, tokens=60))
        turn += 1


async def test_an_update_of_the_engines_under_load_fails_no_request(drill: Drill) -> None:
    before = drill.pids(MODEL)
    outcomes: list[Outcome] = []
    stop = asyncio.Event()
    async with chats(drill.cell) as client:
        tasks = [
            asyncio.create_task(keep_asking(client, number, stop, outcomes))
            for number in range(CLIENTS)
        ]
        await asyncio.sleep(1)
        await asyncio.to_thread(drill.deploy, small)
        await drill.eventually(lambda: not before & drill.pids(MODEL), 60, "the old engine is gone")
        during = len(outcomes)
        await asyncio.sleep(1)
        stop.set()
        await asyncio.gather(*tasks)
    assert len(outcomes) > during > CLIENTS
    assert Counter((o.status, o.code, o.finished) for o in outcomes) == {
        (200, None, True): len(outcomes)
    }


async def test_every_answer_to_an_overload_is_a_whole_stream_or_a_429(drill: Drill) -> None:
    async with chats(drill.cell) as client:
        outcomes = await asyncio.gather(*(chat(client, number, 40) for number in range(60)))
    counts = Counter((o.status, o.code, o.finished) for o in outcomes)
    served = counts.pop((200, None, True))
    assert served >= SMALL["max_running"] + SMALL["max_queued"]
    assert counts, "60 at once are more than the engine takes"
    assert {status for status, _, _ in counts} == {429}
    assert served + sum(counts.values()) == 60
