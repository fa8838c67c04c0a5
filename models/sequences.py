"""A call and its sequences: everything that one chat completion needs between arrival and end."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import EngineError, InvalidLogits
from models.generation import (
    ChatRequest,
    Delta,
    Done,
    Event,
    Finish,
    FinishReason,
    TokenLogprob,
    Usage,
    failure,
)
from models.grammar import Grammar
from models.row_sampler import INVALID, RowSampler
from models.text import AnswerText, ChatTokenizer

Sink = Callable[[Sequence[Event]], None]


@dataclass(frozen=True, slots=True)
class EngineStats:
    """A snapshot of the engine. Sequences and bytes are now; token counts are since the start."""

    waiting: int = 0
    running: int = 0
    batches: int = 0
    kv_promised_bytes: int = 0
    prefix_cache_bytes: int = 0
    prefilled_tokens: int = 0
    cached_tokens: int = 0
    decoded_tokens: int = 0
    preemptions: int = 0
    step_s: float = 0.0


@dataclass(eq=False, slots=True)
class GeneratedToken:
    """One sampled token, with log-probabilities where they were asked for."""

    token: int
    logprob: float | None = None
    top: Sequence[tuple[int, float]] = ()


@dataclass(eq=False)
class SequenceState:
    """One choice of a call; the `Row` of a decode batch.

    `tokens` are those whose key-values the next prefill must provide: the prompt, and after a
    preemption the answer so far. `arrival` orders sequences; `kv_bytes` is what was promised to it.
    """

    call: Call
    index: int
    tokens: NDArray[np.int32]
    sampler: RowSampler
    text: AnswerText
    grammar: Grammar | None
    arrival: int
    kv_bytes: int
    generated: list[int] = field(default_factory=list)
    cached_tokens: int | None = None
    done: bool = False
    batch: Any = None
    caches: Any = None
    position: int = 0
    marks: list[int] = field(default_factory=list)
    failure: Exception | None = None

    @property
    def needs_host(self) -> bool:
        return self.grammar is not None or self.sampler.is_penalised

    def allowed(self, vocabulary: int) -> NDArray[np.bool_] | None:
        """The tokens that its grammar allows next, or None; a failure is raised by the next `take`."""
        if self.grammar is None or self.done:
            return None
        try:
            return self.grammar.allowed(vocabulary)
        except Exception as error:
            self.failure = error
            return None

    def history(self) -> NDArray[np.int32]:
        """Prompt and answer so far."""
        return np.concatenate([self.call.prompt, np.array(self.generated, np.int32)])

    def take(self, generated: GeneratedToken) -> FinishReason | None:
        """Add a token to the answer and emit its text; return why the answer ends here, or None."""
        token = generated.token
        if self.failure is not None:
            raise self.failure
        if token == INVALID:
            raise InvalidLogits("The model's logits were not numbers.")
        self.generated.append(token)
        self.sampler.count(token)
        if token in self.call.tokenizer.stop_tokens:
            return "stop"
        complete = self.grammar is not None and self.grammar.accept(token)
        text = self.text.add(token)
        entry = self._logprob(generated)
        if text or entry:
            self.call.emit(Delta(self.index, text, 1, entry))
        if complete or self.text.stopped:
            return "stop"
        return "length" if len(self.generated) >= self.call.max_tokens else None

    def _logprob(self, generated: GeneratedToken) -> tuple[TokenLogprob, ...]:
        if generated.logprob is None:
            return ()
        name = self.call.tokenizer.token_bytes
        top = tuple(
            (name(token).decode("utf-8", "replace"), name(token), logprob)
            for token, logprob in sorted(generated.top, key=lambda pair: -pair[1])
        )
        raw = name(generated.token)
        return (TokenLogprob(raw.decode("utf-8", "replace"), raw, generated.logprob, top),)


@dataclass(eq=False)
class Call:
    """One chat completion: its prompt, its choices, and where its events go."""

    request: ChatRequest
    prompt: NDArray[np.int32]
    boundary: int
    max_tokens: int
    tokenizer: ChatTokenizer
    sink: Sink
    deadline: float
    sequences: list[SequenceState] = field(default_factory=list)
    ended: bool = False
    _outbox: list[Event] = field(default_factory=list)

    @property
    def user(self) -> str:
        """Whom the work is charged to; without a user every call stands for itself."""
        return self.request.user or f"request:{self.request.id}"

    def emit(self, event: Event) -> None:
        """Keep an event for the next `flush`."""
        self._outbox.append(event)

    def flush(self) -> None:
        """Hand the kept events to the sink."""
        if self._outbox:
            events, self._outbox = self._outbox, []
            self.sink(events)

    def finish(self, sequence: SequenceState, reason: FinishReason) -> None:
        """End one choice; the last one ends the call with its usage."""
        sequence.done = True
        rest = "" if sequence.text.stopped else sequence.text.finish()
        if rest:
            self.emit(Delta(sequence.index, rest, 0))
        self.emit(Finish(sequence.index, reason))
        if all(s.done for s in self.sequences):
            self.ended = True
            self.emit(Done(self.usage()))

    def fail(self, error: EngineError) -> None:
        """End every choice with an error event."""
        for sequence in self.sequences:
            sequence.done = True
        self.ended = True
        self.emit(failure(error))

    def usage(self) -> Usage:
        """Token counts so far."""
        return Usage(
            prompt_tokens=len(self.prompt),
            cached_tokens=self.sequences[0].cached_tokens or 0,
            completion_tokens=sum(len(s.generated) for s in self.sequences),
        )


def sequences_of(call: Call, kv_bytes: int, arrival: int) -> list[SequenceState]:
    """The sequences of a call's `n` choices; raises InvalidRequest for a schema that won't do."""
    request = call.request
    sampling = request.sampling
    if sampling.seed is None:
        sampling = replace(sampling, seed=random.getrandbits(63))
    found = []
    for index in range(request.n):
        grammar = None
        if request.response_format is not None and request.response_format["type"] != "text":
            grammar = Grammar(call.tokenizer.grammar_tokenizer, request.response_format)
        found.append(
            SequenceState(
                call=call,
                index=index,
                tokens=call.prompt,
                sampler=RowSampler(sampling, index),
                text=AnswerText(call.tokenizer, request.stop),
                grammar=grammar,
                arrival=arrival + index,
                kv_bytes=kv_bytes,
            )
        )
    return found


def deadline_of(request: ChatRequest) -> float:
    """The monotonic clock's time at which the request's deadline passes."""
    return time.monotonic() + request.timeout_s
