"""Ending a wait for a server that does not answer by its socket: a cancel would wait for it again."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg


def cut_off(connection: psycopg.AsyncConnection[Any] | psycopg.Connection[Any]) -> None:
    """End the connection's socket: whoever waits on it is woken, also if the server is frozen."""
    with (
        suppress(OSError, psycopg.Error),
        socket.socket(fileno=os.dup(connection.pgconn.socket)) as twin,
    ):
        twin.shutdown(socket.SHUT_RDWR)


@contextmanager
def cut_after(connection: psycopg.AsyncConnection[Any], seconds: float) -> Iterator[None]:
    """Cut the connection off if the block takes longer; psycopg then raises `OperationalError`."""
    loop = asyncio.get_running_loop()
    cut = loop.call_later(max(0.0, seconds), cut_off, connection)
    try:
        yield
    finally:
        cut.cancel()
