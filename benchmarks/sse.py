"""Server-sent events as OpenAI's API sends them, parsed at the least cost."""

from __future__ import annotations

DONE = b"[DONE]"
MAX_EVENT_BYTES = 4 * 1024 * 1024


class MalformedStream(ValueError):
    """The server's fault: an event without an end."""


class EventParser:
    """Cuts a byte stream into the data of its events (WHATWG HTML, 9.2.6).

    Comments and every field but `data` are skipped. Takes bytes as they come, cut anywhere.
    """

    __slots__ = ("_data", "_rest")

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> list[bytes]:
        """The events that `chunk` completes, each as the bytes of its data."""
        lines = (self._rest + chunk).split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > MAX_EVENT_BYTES:
            raise MalformedStream(f"a line of more than {MAX_EVENT_BYTES} bytes")
        events: list[bytes] = []
        for line in lines:
            if line.endswith(b"\r"):
                line = line[:-1]
            if line.startswith(b"data:"):
                self._data.append(line[6:] if line[5:6] == b" " else line[5:])
            elif not line and self._data:
                events.append(self._data[0] if len(self._data) == 1 else b"\n".join(self._data))
                self._data = []
        return events
