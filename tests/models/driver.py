"""Drives an `EngineLoop` turn by turn in the test's own thread, with prompts given as tokens."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from configs.engine import EngineConfig
from models.engine_loop import EngineLoop
from models.generation import ChatRequest, Delta, Done, Event, Failure, Finish, Sampling
from models.loading import LoadedModel
from models.sequences import Call, deadline_of, sequences_of

GREEDY = Sampling(temperature=0.0)
_ids = itertools.count()


@dataclass
class Answer:
    """A call and the events that it has sent."""

    call: Call
    events: list[Event] = field(default_factory=list)

    def tokens(self, index: int = 0) -> list[int]:
        """The generated tokens of a choice, a stop token included."""
        return self.call.sequences[index].generated

    def text(self, index: int = 0) -> str:
        """The text of a choice so far."""
        return "".join(e.text for e in self.events if isinstance(e, Delta) and e.index == index)

    def reason(self, index: int = 0) -> str:
        """Why a choice ended."""
        return next(e.reason for e in self.events if isinstance(e, Finish) and e.index == index)

    @property
    def is_done(self) -> bool:
        """Whether it ended well."""
        return bool(self.events) and isinstance(self.events[-1], Done)

    @property
    def done(self) -> Done:
        """The last event of a call that went well."""
        assert isinstance(self.events[-1], Done), self.events[-1:]
        return self.events[-1]

    @property
    def failure(self) -> Failure:
        """The last event of a call that did not."""
        assert isinstance(self.events[-1], Failure), self.events[-1:]
        return self.events[-1]


class Driver:
    """An engine loop without its thread: what happens depends on the test's turns alone."""

    def __init__(self, model: LoadedModel, **config: Any) -> None:
        self.model = model
        self.loop = EngineLoop(model, EngineConfig(**config))
        self.answers: list[Answer] = []
        self._arrivals = 0

    def ask(
        self,
        prompt: Sequence[int],
        max_tokens: int = 8,
        sampling: Sampling = GREEDY,
        *,
        boundary: int = 0,
        **request: Any,
    ) -> Answer:
        """Add a call; keyword arguments are those of `ChatRequest`."""
        made = ChatRequest(
            id=f"call-{next(_ids)}",
            messages=[],
            sampling=sampling,
            max_tokens=max_tokens,
            **request,
        )
        events: list[Event] = []
        tokens = np.array(prompt, np.int32)
        call = Call(
            made,
            tokens,
            boundary,
            max_tokens,
            self.model.tokenizer,
            events.extend,
            deadline_of(made),
        )
        kv = self.model.kv
        kv_bytes = 0 if kv is None else kv.bytes_for(len(tokens) + max_tokens)
        call.sequences = sequences_of(call, kv_bytes, self._arrivals)
        self._arrivals += made.n
        answer = Answer(call, events)
        self.answers.append(answer)
        self.loop.add(call)
        return answer

    def turn(self) -> None:
        """One turn of the engine, and its events."""
        self.loop.turn()
        for call in self.loop.touched():
            call.flush()

    def until(self, condition: Callable[[], bool], turns: int = 2000) -> None:
        """Turn until `condition` holds; fails when the engine is idle or stuck before that."""
        idle = 0
        for _ in range(turns):
            if condition():
                return
            assert self.loop.is_busy, "the engine has nothing to do"
            before = self.progress()
            self.turn()
            idle = idle + 1 if self.progress() == before else 0
            assert idle < 4, "the engine is stuck: nothing moved in four turns"
        raise AssertionError("too many turns")

    def run(self) -> None:
        """Turn until nothing is left to do, and insist that nothing is."""
        self.until(lambda: not self.loop.is_busy, turns=100_000)
        for call in self.loop.touched():
            call.flush()
        self.insist_empty()

    def progress(self) -> tuple[int, ...]:
        """Changes with every turn in which anything at all happened."""
        s = self.loop.stats()
        return (s.prefilled_tokens, s.cached_tokens, s.decoded_tokens, s.running, s.waiting)

    def insist_empty(self) -> None:
        """Nothing is held for calls that have ended."""
        stats = self.loop.stats()
        assert (stats.running, stats.waiting, stats.batches) == (0, 0, 0), stats
        assert stats.kv_promised_bytes == 0
        assert self.loop._prompts.fairness.active == {}
        assert self.loop._prompts.fairness.served == {}
        assert not self.loop._touched
        for answer in self.answers:
            for sequence in answer.call.sequences:
                assert sequence.done
                assert sequence.caches is None
                assert sequence.batch is None
