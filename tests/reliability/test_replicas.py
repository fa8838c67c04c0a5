"""Conversations keep their replica; `kill -9` of one costs its own streams and nothing else."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import openai
import pytest

from tests.reliability.drill import MODEL, Drill, Outcome, chat, chats, language, start

pytestmark = pytest.mark.cluster

# Far below every time-out that would end them otherwise; how fast it is, benchmarks tell.
WITHIN_S = 30.0
# Of so many one engine alone cannot have all: its share is bounded (deployments/ai/affinity.py).
CHATS = 14
# Long enough that none has ended when all have begun.
TOKENS = 600


@pytest.fixture(scope="module")
def two_engines(drill: Drill) -> Drill:
    def change(config: dict[str, Any]) -> None:
        language(config)["replicas"].update(min=2, max=2)

    drill.deploy(change)
    drill.wait(lambda: len(drill.pids(MODEL)) == 2, 60, "two engines run")
    return drill


async def turns(client: openai.AsyncOpenAI, number: int) -> list[tuple[int, int]]:
    """Prompt tokens of each turn of a conversation, and how many of them were in a cache."""
    messages: list[Any] = [{"role": "user", "content": f"Case {number}: pulse 1{number}0?"}]
    counts = []
    for _ in range(4):
        answer = await client.chat.completions.create(
            model=MODEL, messages=messages, max_tokens=16, temperature=0
        )
        usage = answer.usage
        assert usage is not None
        assert usage.prompt_tokens_details is not None
        counts.append((usage.prompt_tokens, usage.prompt_tokens_details.cached_tokens or 0))
        messages.append({"role": "assistant", "content": answer.choices[0].message.content or ""})
        messages.append({"role": "user", "content": "And then?"})
    return counts


def kept_its_engine(counts: list[tuple[int, int]]) -> bool:
    """Each turn found the whole prompt of the one before."""
    return all(cached >= before for (before, _), (_, cached) in pairwise(counts))


async def test_every_conversation_keeps_its_engine_and_with_it_its_cache(
    two_engines: Drill,
) -> None:
    async with chats(two_engines.cell) as client:
        # Both API replicas must have heard of both engines; by chance alone, 36 turns would all
        # find the right one of two in no number of rounds.
        for attempt in range(3):
            rounds = [turns(client, 12 * attempt + number) for number in range(12)]
            kept = [kept_its_engine(counts) for counts in await asyncio.gather(*rounds)]
            if all(kept):
                return
            await asyncio.sleep(2)
    pytest.fail(f"{kept.count(False)} of {len(kept)} conversations lost their cache")


async def test_a_killed_engine_ends_its_streams_with_an_error_and_a_new_one_answers(
    two_engines: Drill,
) -> None:
    drill = two_engines
    victim, survivor = sorted(drill.pids(MODEL))
    async with chats(drill.cell) as client:
        tasks = await start(client, CHATS, tokens=TOKENS)
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
        tasks = await start(client, CHATS, tokens=TOKENS)
        assert not any(task.done() for task in tasks)
        killed_s = drill.kill(victim)
        # What reaches the dying process in this very moment is lost with it, like the streams.
        await asyncio.sleep(0.5)
        new = [asyncio.create_task(chat(client, 200 + number, tokens=5)) for number in range(10)]
        outcomes: list[Outcome] = await asyncio.gather(*tasks)
        cut = [outcome for outcome in outcomes if not outcome.finished]
        assert 0 < len(cut) < len(outcomes), "the connections were spread over both replicas"
        # No [DONE], and no event that could be taken for the end: the connection breaks off.
        assert {(o.status, o.code) for o in cut} == {(200, None)}
        assert max(o.ended_s for o in cut) - killed_s < WITHIN_S
        answers = {(o.status, o.code, o.finished) for o in await asyncio.gather(*new)}
        assert answers == {(200, None, True)}
    await drill.eventually(lambda: len(drill.pids("api") - {victim}) == 2, 60, "a new API replica")
