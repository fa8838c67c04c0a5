"""Stores with small invented models, and another cell's surface over loopback."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from configs.args import Limits
from deployments.site.models.staging import stage
from deployments.site.models.store import Model, Store
from serve_app.internal.models import model_routes
from serve_app.surface import create_app
from tests.configs.folders import write_folder
from tests.serve_app.fake_language import FakeLanguage
from tests.serve_app.fake_security import services_of

WEIGHTS = "model.safetensors"
HOST = "mac-a"


def source(folder: Path, text: str = "one") -> Path:
    """A model folder; another `text` makes another version."""
    write_folder(folder)
    (folder / "README.md").write_text(text)
    (folder / "extra").mkdir()
    (folder / "extra" / "notes.txt").write_text("notes")
    return folder


def staged(root: Path, *texts: str) -> tuple[Model, list[str]]:
    """The model `demo` of a store below `root`, with a version for each text."""
    model = Store(root / "store").model("demo")
    versions = [stage(model, source(root / f"source-{text}", text)) for text in texts]
    return model, versions


def spoil(file: Path) -> None:
    """Change one byte in place, and neither size nor time."""
    status = file.stat()
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.chmod(0o600)
    file.write_bytes(data)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


@contextmanager
def served(store: Store) -> Iterator[str]:
    """The surface of a cell with that store, whose gate knows `HOST`; its base URL."""

    def routes(app: FastAPI) -> None:
        app.include_router(model_routes(store))

    services = services_of(FakeLanguage())
    services = replace(services, routes=(routes,), callers=frozenset((HOST,)))
    app = create_app(services, Limits())
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            deadline = time.monotonic() + 10
            while not server.started:
                assert time.monotonic() < deadline, "the surface does not start"
                time.sleep(0.01)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)
