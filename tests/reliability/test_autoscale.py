"""Replicas follow the load between their minimum and the most that the budget holds."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.reliability.drill import MODEL, Drill, Outcome, chats, language, start

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


def eager(config: dict[str, Any]) -> None:
    language(config)["replicas"].update(
        min=1, max=2, target_ongoing_requests=3.0, upscale_delay_s=1.0, downscale_delay_s=2.0
    )


async def test_the_count_rises_under_load_and_falls_again_without_a_cut_stream(
    drill: Drill,
) -> None:
    drill.deploy(eager)
    drill.wait(lambda: len(drill.pids(MODEL)) == 1, 60, "one engine runs")
    async with chats(drill.cell) as client:
        tasks = await start(client, 8, tokens=4000)
        try:
            await drill.eventually(lambda: len(drill.pids(MODEL)) == 2, 60, "two engines run")
            late = await start(client, 4, tokens=400, offset=50)
            assert len(drill.pids(MODEL)) == 2, "no more than the maximum"
        finally:
            for task in tasks:
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        outcomes: list[Outcome] = await asyncio.gather(*late)
    assert all(outcome.finished for outcome in outcomes)
    await drill.eventually(lambda: len(drill.pids(MODEL)) == 1, 60, "one engine is left")
