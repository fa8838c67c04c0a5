"""A FHIR server on loopback that answers as fast as asked to: the boundary of the benchmark."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import orjson

from benchmarks.targets import Target

PATIENTS = [{"id": f"p{n}", "name": [{"family": f"Silva{n}"}]} for n in range(3)]


class FakeRecords:
    """`delay_s` goes before every answer; every `failing`-th write is answered with 503."""

    def __init__(self, delay_s: float = 0.0, failing: int = 0) -> None:
        self.delay_s = delay_s
        self.failing = failing
        self.keys: Counter[str] = Counter()
        self.asked: Counter[str] = Counter()
        self.unsigned = 0

    @contextmanager
    def serving(self) -> Iterator[Target]:
        """Serve on a thread of its own until the block ends."""
        loop = asyncio.new_event_loop()
        server = loop.run_until_complete(asyncio.start_server(self._talk, "127.0.0.1", 0))
        port = server.sockets[0].getsockname()[1]
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        try:
            yield Target("127.0.0.1", port)
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            server.close()
            for task in asyncio.all_tasks(loop):
                task.cancel()
            loop.run_until_complete(asyncio.sleep(0))
            loop.run_until_complete(server.wait_closed())
            loop.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.decode().split("\r\n")
                headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
                await reader.readexactly(int(headers.get("content-length", "0")))
                method, path, _ = lines[0].split(" ")
                status, body = self._answer(method, path, headers)
                await asyncio.sleep(self.delay_s)
                content = orjson.dumps(body)
                writer.write(
                    f"HTTP/1.1 {status} x\r\ncontent-length: {len(content)}\r\n\r\n".encode()
                    + content
                )
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    def _answer(
        self, method: str, path: str, headers: dict[str, str]
    ) -> tuple[int, dict[str, Any]]:
        self.unsigned += headers.get("authorization") != "bearer key"
        parts = urlsplit(path)
        names = parts.path.split("/")[2:]
        if method == "POST":
            self.asked["write"] += 1
            self.keys[headers["idempotency-key"]] += 1
            busy = self.failing and self.asked["write"] % self.failing == 0
            return (503 if busy else 201), {}
        if len(names) == 2:
            self.asked["read"] += 1
            return 200, {"id": names[1]}
        self.asked["search"] += 1
        query = parse_qs(parts.query)
        found = PATIENTS if names[0] == "Patient" else [{"id": f"o-{query['patient'][0]}"}]
        return 200, {"entry": [{"resource": entry} for entry in found]}
