"""A deployment on the `ai` node that grows as a file tells it: how a test fills a budget."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from ray import serve
from ray.serve import Application

from configs.args import Replicas, Resources
from deployments.options import serve_options

_BLOCK = 2**20


class Grower:
    """Holds as many MB as the file's line `pid MB` says, if the pid is its own."""

    def __init__(self, order: str) -> None:
        self._order = Path(order)
        self._held: list[bytearray] = []
        self._task = asyncio.get_running_loop().create_task(self._follow())

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(0.1)
            try:
                pid, megabytes = map(int, self._order.read_text(encoding="ascii").split())
            except (OSError, ValueError):
                continue
            if pid != os.getpid():
                continue
            while len(self._held) < megabytes:
                self._held.append(bytearray(os.urandom(1) * _BLOCK))


def build(args: dict[str, Any]) -> Application:
    """`args["order"]` is the path of the file."""
    options = serve_options(
        "ai",
        "grower",
        Replicas(),
        Resources(memory_gb=0.1, cpu=0.01),
        max_ongoing_requests=8,
        max_queued_requests=8,
        request_timeout_s=5.0,
    )
    return serve.deployment(**options)(Grower).bind(args["order"])
