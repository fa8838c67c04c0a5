"""The memory guard stops admitting over 90 % of a budget and restarts the worst replica over it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from deployments.memory import resident_gb
from tests.reliability.drill import MODEL, Drill, chat, chats

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

ROOM_GB = 1.0
GROWER = "tests.reliability.grower:build"


def grown(drill: Drill, order: Path) -> int:
    """Add the grower to the cell; returns its process."""

    def change(config: dict[str, Any]) -> None:
        config["applications"].append(
            {
                "name": "grower",
                "import_path": GROWER,
                "route_prefix": None,
                "args": {"order": str(order)},
            }
        )

    drill.deploy(change)
    [pid] = drill.pids("grower")
    return pid


def used_gb(drill: Drill) -> float:
    pids = [pid for name in ("cell", MODEL, "grower") for pid in drill.pids(name)]
    return sum(resident_gb(pid) or 0.0 for pid in pids)


def ask(drill: Drill) -> httpx.Response:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 3}
    url = f"{drill.cell.base_url}/v1/chat/completions"
    headers = {"authorization": f"Bearer {drill.cell.api_key}"}
    return httpx.post(url, json=body, headers=headers, timeout=60)


async def test_a_growing_replica_closes_the_node_and_is_then_restarted(
    drill: Drill, tmp_path: Path
) -> None:
    order = tmp_path / "order"
    grower = grown(drill, order)
    budget_gb = round(used_gb(drill) + ROOM_GB, 3)

    def limit(config: dict[str, Any]) -> None:
        config["applications"][0]["args"]["cell"]["memory_budget_gb"] = {"ai": budget_gb}

    drill.deploy(limit)
    assert ask(drill).status_code == 200
    engines = drill.pids(MODEL)

    def grow_to(share: float) -> None:
        missing_gb = share * budget_gb - used_gb(drill)
        held_gb = resident_gb(grower) or 0.0
        order.write_text(f"{grower} {int(1024 * (held_gb - base_gb + missing_gb))}")

    base_gb = resident_gb(grower) or 0.0
    grow_to(0.95)
    # Each API replica hears of it by itself, so the refusal that came first is the one looked at.
    refusals: list[httpx.Response] = []

    def is_refused() -> bool:
        refusals.append(ask(drill))
        return refusals[-1].status_code == 429

    await drill.eventually(is_refused, 30, "the node is closed")
    refused = refusals[-1]
    assert refused.json()["error"]["code"] == "memory_pressure"
    assert int(refused.headers["retry-after"]) >= 1
    assert drill.pids("grower") == {grower}, "closed, and nothing restarted yet"

    grow_to(1.1)
    await drill.eventually(
        lambda: bool(drill.pids("grower") - {grower}), 60, "the grown replica is replaced"
    )
    await drill.eventually(lambda: ask(drill).status_code == 200, 30, "the node is open again")
    assert drill.pids(MODEL) == engines, "no other replica was restarted"
    async with chats(drill.cell) as client:
        assert (await chat(client, 1, tokens=5)).finished
