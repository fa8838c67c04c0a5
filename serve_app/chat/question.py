"""What stands on record of a chat before it begins, and the headers that its answer bears."""

from __future__ import annotations

import hashlib

from deployments.ai.client import ModelCard
from deployments.data.interactions.interaction import Asked, canonical
from models.generation import ChatRequest
from serve_app.errors import Header


def question(
    completion_id: str,
    card: ModelCard,
    request: ChatRequest,
    patient: str | None,
    *,
    streamed: bool,
) -> Asked:
    """The question that `request` puts to the model of `card`, about `patient` if one is named."""
    text = canonical(request.messages)
    return Asked(
        id=completion_id,
        model=card.id,
        weights_sha256=card.weights_sha256,
        prompt_version=card.prompt_version,
        input_sha256=hashlib.sha256(text).hexdigest(),
        system_sha256=_system_sha256(request),
        priority=request.priority.name.lower(),
        streamed=streamed,
        choices=request.n,
        patient=patient,
        text=text if patient is not None else b"",
    )


def stamps_of(asked: Asked) -> tuple[Header, ...]:
    """Headers that say by what an answer was made, whole or streamed."""
    return (
        (b"x-model", asked.model.encode("ascii", "replace")),
        (b"x-weights-sha256", asked.weights_sha256.encode("ascii")),
        (b"x-prompt-version", asked.prompt_version.encode("ascii")),
        (b"x-interaction-id", asked.id.encode("ascii")),
    )


def _system_sha256(request: ChatRequest) -> str | None:
    """The hash of the caller's own system prompts, one after the other; None without any."""
    system = [m["content"] for m in request.messages if m["role"] == "system"]
    return hashlib.sha256("\n".join(system).encode()).hexdigest() if system else None
