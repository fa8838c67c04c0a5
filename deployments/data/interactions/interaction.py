"""One question to a model and what came of it, as the ledger and the audit keep them."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

End = Literal["success", "failed", "interrupted"]


@dataclass(frozen=True, slots=True)
class Asked:
    """A question, complete before its first token is asked of the engine.

    `id` is the completion's id, `patient` the bare id of a Patient, `at` Unix time in seconds and
    `text` the canonical messages (see `canonical`), which are kept sealed for a while where a
    patient is named and nowhere otherwise.
    """

    id: str
    model: str
    weights_sha256: str
    prompt_version: str
    input_sha256: str
    system_sha256: str | None = None
    priority: str = "interactive"
    streamed: bool = False
    choices: int = 1
    patient: str | None = None
    text: bytes = field(default=b"", repr=False)
    at: float = field(default_factory=time.time)

    def details(self) -> dict[str, Any]:
        """What the audit entry `ai-request` holds of it."""
        return {
            "interaction": self.id,
            "model": self.model,
            "weights_sha256": self.weights_sha256,
            "prompt_version": self.prompt_version,
            "input_sha256": self.input_sha256,
            "system_sha256": self.system_sha256,
            "priority": self.priority,
            "streamed": self.streamed,
            "choices": self.choices,
        }


@dataclass(frozen=True, slots=True)
class Answered:
    """How it ended: the hash and counts of what left, `code` the error's word where there was one.

    `output_sha256` is that of the answer's text in UTF-8; see `output_hash` for several choices.
    """

    outcome: End
    output_sha256: str
    finish_reasons: tuple[str | None, ...] = ()
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    code: str = ""
    text: bytes = field(default=b"", repr=False)
    at: float = field(default_factory=time.time)

    def details(self, asked: Asked) -> dict[str, Any]:
        """What the audit entry `ai-answer` holds of it."""
        return {
            "interaction": asked.id,
            "model": asked.model,
            "weights_sha256": asked.weights_sha256,
            "prompt_version": asked.prompt_version,
            "output_sha256": self.output_sha256,
            "finish_reasons": list(self.finish_reasons),
            "prompt_tokens": self.prompt_tokens,
            "cached_tokens": self.cached_tokens,
            "completion_tokens": self.completion_tokens,
            "code": self.code,
        }


def canonical(messages: Sequence[Mapping[str, Any]]) -> bytes:
    """The messages as the one JSON text that is hashed: sorted keys, UTF-8, no white space."""
    return orjson.dumps(list(messages), option=orjson.OPT_SORT_KEYS)


def output_hash(digests: Sequence[bytes]) -> str:
    """The hash of an answer from the SHA-256 digests of its choices, in their order.

    One choice: its own. Several: SHA-256 over their digests, so that none can be exchanged.
    """
    if len(digests) == 1:
        return digests[0].hex()
    return hashlib.sha256(b"".join(digests)).hexdigest()
