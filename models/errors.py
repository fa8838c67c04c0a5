"""The whole error tree of the engines; each class says who is at fault.

`status` is the HTTP status that a surface answers with, `code` the word it puts beside it. No message
ever holds a prompt, an answer or a name: these texts reach logs.
"""

from __future__ import annotations


class EngineError(Exception):
    """Any failure of an engine. The engine's own fault unless a subclass says otherwise."""

    status = 500
    type = "server_error"
    code = "engine_error"

    def __init__(
        self, message: str, *, param: str | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s


class InvalidRequest(EngineError):
    """The caller's fault: a value that cannot be honoured; `param` names it."""

    status = 400
    type = "invalid_request_error"
    code = "invalid_value"


class ContextLengthExceeded(InvalidRequest):
    """The caller's fault: prompt and answer do not fit into the model's context or the KV budget."""

    code = "context_length_exceeded"


class ModelNotFound(InvalidRequest):
    """The caller's fault: no model of that name is served here."""

    status = 404
    code = "model_not_found"


class Overloaded(EngineError):
    """Nobody's fault: too much work at once; try again after `retry_after_s` seconds."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"


class QueueFull(Overloaded):
    """The engine's bounded queue is full."""

    code = "queue_full"


class MemoryPressure(Overloaded):
    """The memory guard of the cell has stopped admitting."""

    code = "memory_pressure"


class DeadlineExceeded(EngineError):
    """The request's own deadline passed before its answer was complete."""

    status = 504
    type = "timeout_error"
    code = "deadline_exceeded"


class InvalidLogits(EngineError):
    """The model's fault: NaN came out of a forward pass for this request."""

    code = "invalid_logits"


class EngineStopped(EngineError):
    """The engine is stopping or has died; the request is safe to repeat elsewhere."""

    status = 503
    code = "engine_unavailable"


class ModelLoadError(EngineError):
    """The operator's fault: a model folder is missing, incomplete or corrupt."""

    status = 503
    code = "model_load_failed"
