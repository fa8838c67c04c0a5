"""The log line of a chat: ids alone. Who asked what about whom stands in the audit."""

from __future__ import annotations

import logging

import orjson

_log = logging.getLogger("medrec.chat")


def log_chat(
    *, request_id: str, completion_id: str, engine_id: str, model: str, priority: str
) -> None:
    """Log that a chat was admitted, by the ids under which others know it.

    No user, metadata or patient: an operator's log is read by people who may not know of them.
    """
    if _log.isEnabledFor(logging.INFO):
        line = {
            "event": "chat",
            "request_id": request_id,
            "completion_id": completion_id,
            "engine_id": engine_id,
            "model": model,
            "priority": priority,
        }
        _log.info("%s", orjson.dumps(line).decode())
