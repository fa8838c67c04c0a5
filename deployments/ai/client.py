"""How the API process speaks to the AI virtual node: one protocol, and its Ray Serve implementation."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from models.generation import ChatRequest, Event


@dataclass(frozen=True, slots=True)
class ModelCard:
    """One served model as `/v1/models` lists it. `created` is Unix time in seconds."""

    id: str
    created: int
    context_length: int
    weights_sha256: str


@dataclass(frozen=True, slots=True)
class CellState:
    """What a cell serves, and which pools the memory guard has closed.

    `closed` maps a pool name (`ai`, `api`, `data`) to the guard's reason in a sentence.
    """

    models: tuple[ModelCard, ...]
    closed: dict[str, str]


class LanguageService(Protocol):
    """The language models of this cell."""

    def state(self) -> CellState:
        """The last known state (refreshed in the background about once a second); never waits."""

    def chat(
        self, model: str, request: ChatRequest, session: str
    ) -> AsyncIterator[Sequence[Event]]:
        """Events of one chat, in batches as they come; ends with `Done` or `Failure`.

        `session` names the conversation, so that its turns reach the same replica and its prefix
        cache. Closing the iterator early cancels the generation within one engine step. A replica
        that dies mid-stream yields a `Failure` (503) within 2 s. Raises `ModelNotFound`.
        """
