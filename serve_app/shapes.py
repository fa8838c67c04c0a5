"""The answers of the surface as schemas, for `/openapi.json`; tests hold real answers to them."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict


class Shape(BaseModel):
    """A block of an answer: exactly these fields."""

    model_config = ConfigDict(extra="forbid")


class ErrorObject(Shape):
    """What went wrong; `param` names the parameter at fault, `code` is for programs."""

    message: str
    type: str
    param: str | None
    code: str


class ErrorBody(Shape):
    """Every answer with a status of 400 or above."""

    error: ErrorObject


class TopLogprob(Shape):
    """A token that could have come instead."""

    token: str
    bytes: list[int]
    logprob: float


class TokenLogprobs(TopLogprob):
    """A token of the answer with its natural-log probability."""

    top_logprobs: list[TopLogprob]


class ChoiceLogprobs(Shape):
    """Log probabilities of a choice."""

    content: list[TokenLogprobs]
    refusal: None


class AssistantText(Shape):
    """The answer."""

    role: Literal["assistant"]
    content: str
    refusal: None
    annotations: list[None]


class CompletionChoice(Shape):
    """One of the `n` alternatives."""

    index: int
    message: AssistantText
    logprobs: ChoiceLogprobs | None
    finish_reason: Literal["stop", "length"]


class PromptDetails(Shape):
    """Of the prompt's tokens, those that the prefix cache held."""

    cached_tokens: int
    audio_tokens: int


class CompletionDetails(Shape):
    """Always zero here; present because OpenAI's clients read it."""

    reasoning_tokens: int
    audio_tokens: int
    accepted_prediction_tokens: int
    rejected_prediction_tokens: int


class UsageCounts(Shape):
    """Token counts, all choices together."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens_details: CompletionDetails


class ChatCompletion(Shape):
    """A whole answer. `created` is Unix time in seconds."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: UsageCounts
    service_tier: Literal["default"]
    system_fingerprint: str


class ChunkDelta(Shape):
    """What a choice gained: the role first, then text, then nothing."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    refusal: None = None


class ChunkChoice(Shape):
    """A choice within a chunk."""

    index: int
    delta: ChunkDelta
    logprobs: ChoiceLogprobs | None
    finish_reason: Literal["stop", "length"] | None


class ChatCompletionChunk(Shape):
    """One event of a stream; with `include_usage` the last has no choices and the usage."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: UsageCounts | None = None
    service_tier: Literal["default"]
    system_fingerprint: str


class ModelObject(Shape):
    """A model that is served here."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelList(Shape):
    """The models that are served here."""

    object: Literal["list"]
    data: list[ModelObject]


class Health(Shape):
    """The state of one API replica."""

    status: Literal["ok", "ready"]
