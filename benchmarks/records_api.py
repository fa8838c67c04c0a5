"""One API process for the benchmark of the records: the real surface under uvicorn, without Ray.

`python -m benchmarks.records_api HOME PORT ARGS`, where ARGS are `ApiArgs` as JSON. It serves
until it is sent SIGTERM. Only the language models are missing, which the records do not need.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import uvicorn

from configs.args import ApiArgs
from deployments.ai.client import CellState
from deployments.cell.state import Home
from models.errors import ModelNotFound
from models.generation import ChatRequest, Event
from serve_app.assembly import assemble
from serve_app.surface import create_app

BACKLOG = 1024


class NoLanguage:
    """A language service of no models."""

    def state(self) -> CellState:
        """Nothing is served, nothing loads."""
        return CellState(models=(), closed={}, loading=())

    async def chat(
        self, model: str, request: ChatRequest, session: str
    ) -> AsyncIterator[Sequence[Event]]:
        """Refused."""
        raise ModelNotFound("No model of this name is served here.", param="model")
        yield ()


def main(home: str, port: str, args: str) -> None:
    """Serve until told to stop."""
    api = ApiArgs.model_validate_json(args)
    services = assemble(api, Home(Path(home)), NoLanguage())
    app = create_app(services, api.limits)
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(port),
        log_level="error",
        access_log=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=5,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
