"""A way to a database that can be taken away, as a failover takes it: by a proxy on this machine."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Literal

from psycopg.conninfo import conninfo_to_dict, make_conninfo

# Whoever connects is connected on; is let in and left waiting; is let in and shown out.
Way = Literal["open", "silent", "shut"]


class Switchboard:
    """Listens on a port, and connects on to the server of `dsn`, or not. Counts who came."""

    def __init__(self, dsn: str) -> None:
        self._given = conninfo_to_dict(dsn)
        self._lines: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._way: Way = "open"
        self._frozen = False
        self.port = 0
        self.came = 0

    @property
    def dsn(self) -> str:
        """The connection string through it."""
        given = {key: value for key, value in self._given.items() if key not in ("host", "port")}
        return make_conninfo("", host="127.0.0.1", port=self.port, **given)

    async def begin(self) -> None:
        """Listen, on the same port as before."""
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def end(self) -> None:
        """Cut everybody off, and let nobody connect any more: connections are refused."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def turn(self, way: Way) -> None:
        """From now on connections go this way."""
        self._way = way
        if self._server is None:
            await self.begin()

    def freeze(self) -> None:
        """Carry nothing any more, on connections that stay open; `cut` ends them."""
        self._way = "silent"
        self._frozen = True

    def cut(self) -> None:
        """Break every connection that there is."""
        self._frozen = False
        for line in list(self._lines):
            line.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.came += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._lines.add(writer)
        try:
            if self._way == "silent":
                await asyncio.sleep(3600)
            if self._way == "open":
                await self._connect_on(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            self._lines.discard(writer)
            writer.transport.abort()

    async def _connect_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, port = str(self._given["host"]), self._given.get("port", 5432)
        if host.startswith("/"):
            path = Path(host) / f".s.PGSQL.{port}"
            far_reader, far_writer = await asyncio.open_unix_connection(str(path))
        else:
            far_reader, far_writer = await asyncio.open_connection(host, int(str(port)))
        self._lines.add(far_writer)
        try:
            await asyncio.gather(self._carry(reader, far_writer), self._carry(far_reader, writer))
        finally:
            self._lines.discard(far_writer)
            far_writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                if self._frozen:
                    await asyncio.sleep(3600)
                writer.write(data)
                await writer.drain()
        writer.transport.abort()
