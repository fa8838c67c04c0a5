"""Who asked what for whom: one record for each chat, and the line that says so by ids alone."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import orjson

_log = logging.getLogger("medrec.chat")
_KEY = re.compile(r"[A-Za-z0-9_.-]{1,64}")


@dataclass(frozen=True, slots=True)
class ChatRecord:
    """What the audit keeps of a chat. `began_at` is Unix time in seconds.

    `user` and the values of `metadata` may name people: they stay in this record, which goes to
    protected storage, and out of every log.
    """

    request_id: str
    completion_id: str
    engine_id: str
    model: str
    weights_sha256: str
    priority: str
    began_at: float
    user: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)

    def line(self) -> bytes:
        """The record without `user` and without metadata values, as JSON.

        A metadata key that is not a plain word could itself be somebody's name, so such keys are
        only counted. The user is left out even as a hash: e-mail addresses can be guessed.
        """
        keys = sorted(key for key in self.metadata if _KEY.fullmatch(key))
        return orjson.dumps(
            {
                "event": "chat",
                "request_id": self.request_id,
                "completion_id": self.completion_id,
                "engine_id": self.engine_id,
                "model": self.model,
                "weights_sha256": self.weights_sha256,
                "priority": self.priority,
                "began_at": round(self.began_at, 3),
                "user_given": bool(self.user),
                "metadata_keys": keys,
                "metadata_other_keys": len(self.metadata) - len(keys),
            }
        )

    def write(self) -> None:
        """Log `line`."""
        if _log.isEnabledFor(logging.INFO):
            _log.info("%s", self.line().decode())
