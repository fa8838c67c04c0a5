"""What every drill needs: a config of its own on the shared cell, the replicas, and chats."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import httpx
import openai

from configs.reader import PROJECT_ROOT
from deployments.cell.running import deployable
from deployments.cell.serve_api import ServeApi
from deployments.memory import Replica, replicas_of
from tests.conftest import LOCAL, RunningCell

MODEL = "gemma3-demo"
DEPLOY_TIMEOUT_S = 120.0
CHAT_TIMEOUT_S = 90.0
_WEIGHTS = PROJECT_ROOT / "models" / "weights" / MODEL


def _never_ends() -> dict[str, int]:
    """A bias under which no answer ends before `max_tokens`."""
    config = json.loads((_WEIGHTS / "generation_config.json").read_text(encoding="utf-8"))
    return {str(token): -100 for token in config["eos_token_id"]}


ENDLESS = _never_ends()


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one streaming chat went. `ended_s` is on the monotonic clock."""

    status: int
    code: str | None
    finished: bool
    pieces: int
    ended_s: float


class Drill:
    """The shared cell under a config that differs from configs/local.yaml."""

    def __init__(self, cell: RunningCell) -> None:
        self.cell = cell
        token = (cell.home / "auth_token").read_text(encoding="ascii")
        self._api = ServeApi(cell.dashboard_url, token)
        self._config = deployable(LOCAL, cell.ports)

    def close(self) -> None:
        """Go back to configs/local.yaml."""
        try:
            self._config = deployable(LOCAL, self.cell.ports)
            self.deploy(lambda config: None)
        finally:
            self._api.close()

    def deploy(self, change: Callable[[dict[str, Any]], None], *, wait: bool = True) -> None:
        """Change the config as it is now and send it, as `serve deploy` does."""
        config = deepcopy(self._config)
        change(config)
        self._config = config
        self._api.deploy(config)
        if wait:
            self.settle()

    def settle(self) -> None:
        """Wait until every application runs with all its deployments healthy."""
        names = {app["name"] for app in self._config["applications"]}

        def settled() -> bool:
            running = self._api.details()["applications"]
            return set(running) == names and all(
                app["status"] == "RUNNING"
                and all(d["status"] == "HEALTHY" for d in app["deployments"].values())
                for app in running.values()
            )

        self.wait(settled, DEPLOY_TIMEOUT_S, "the applications run")

    def details(self) -> dict[str, Any]:
        """What Serve says of the cell."""
        return self._api.details()

    def replicas(self, deployment: str) -> list[Replica]:
        """The replicas of a deployment that take requests."""
        found = replicas_of(self._api.details())
        return [entry for entry in found if entry.deployment == deployment and entry.is_running]

    def pids(self, deployment: str) -> set[int]:
        """Their processes."""
        return {entry.pid for entry in self.replicas(deployment)}

    def kill(self, pid: int) -> float:
        """`kill -9`; returns the moment on the monotonic clock."""
        os.kill(pid, signal.SIGKILL)
        return time.monotonic()

    def wait(self, condition: Callable[[], bool], timeout_s: float, what: str) -> None:
        """Poll until `condition` holds; fail with `what` after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, f"not within {timeout_s:.0f} s: {what}"
            time.sleep(0.3)

    async def eventually(self, condition: Callable[[], bool], timeout_s: float, what: str) -> None:
        """`wait` beside running chats."""
        await asyncio.to_thread(self.wait, condition, timeout_s, what)


def language(config: dict[str, Any]) -> dict[str, Any]:
    """The block of the language model in a config."""
    [ai] = [app for app in config["applications"] if app["name"] == "ai"]
    entry: dict[str, Any] = ai["args"]["language"][0]
    return entry


def chats(cell: RunningCell) -> openai.AsyncOpenAI:
    """OpenAI's own client, which does not try again by itself."""
    return openai.AsyncOpenAI(
        api_key=cell.api_key, base_url=f"{cell.base_url}/v1", max_retries=0, timeout=CHAT_TIMEOUT_S
    )


async def chat(
    client: openai.AsyncOpenAI, number: int, tokens: int, first: asyncio.Event | None = None
) -> Outcome:
    """One streaming chat of `tokens` tokens; `number` makes it a conversation of its own.

    A connection that breaks off has status 200, no code and is not finished; one that was never
    answered has status 0.
    """
    status, code, finished, pieces = 0, None, False, 0
    try:
        stream = await client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": f"Patient {number}: potassium 5.{number}?"}],
            max_tokens=tokens,
            temperature=0,
            logit_bias=ENDLESS,
            stream=True,
        )
        status = 200
        async for chunk in stream:
            pieces += 1
            finished = finished or any(choice.finish_reason for choice in chunk.choices)
            if first is not None and any(choice.delta.content for choice in chunk.choices):
                first.set()
    except openai.APIStatusError as error:
        status, code = error.status_code, error.code
    except (openai.APIConnectionError, httpx.TransportError):
        finished = False
    except openai.APIError as error:  # an error event inside the stream
        code = error.code
    finally:
        if first is not None:
            first.set()
    return Outcome(status, code, finished, pieces, time.monotonic())


async def start(
    client: openai.AsyncOpenAI, count: int, tokens: int, offset: int = 0
) -> list[asyncio.Task[Outcome]]:
    """Chats that all have received text."""
    firsts = [asyncio.Event() for _ in range(count)]
    tasks = [
        asyncio.create_task(chat(client, offset + number, tokens, first))
        for number, first in enumerate(firsts)
    ]
    async with asyncio.timeout(CHAT_TIMEOUT_S):
        for first in firsts:
            await first.wait()
    return tasks
