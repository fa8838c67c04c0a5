"""The name of a conversation: all its turns go to the replica that holds its prefix cache."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any


def session_key(model: str, user: str, messages: Iterable[Mapping[str, Any]]) -> str:
    """32 hexadecimal digits from the model, the user, and the first system and first user message.

    Those are what stays the same from turn to turn; `messages` hold role and text. The key is a
    one-way hash, so that it may be told to routers; it is still not written to logs.
    """
    digest = hashlib.blake2b(digest_size=16)
    first: dict[str, str] = {}
    for message in messages:
        role = "system" if message["role"] == "developer" else message["role"]
        first.setdefault(role, message["content"])
        if "user" in first:
            break
    for part in (model, user, first.get("system", ""), first.get("user", "")):
        encoded = part.encode()
        # The length keeps ("ab", "c") and ("a", "bc") apart.
        digest.update(len(encoded).to_bytes(8, "big"))
        digest.update(encoded)
    return digest.hexdigest()
