"""One turn of the engine: a decode step for every batch, then a slice of prefill."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import mlx.core as mx

from configs.engine import EngineConfig
from models.decoding import DecodeBatch, Row, SoloDecode, Step
from models.errors import EngineError, InvalidLogits
from models.generation import Priority
from models.loading import LoadedModel
from models.prompts import Prompts
from models.scheduling import DECODE_WEIGHT, columns_for, outgrown, place
from models.sequences import Call, EngineStats, GeneratedToken, SequenceState

logger = logging.getLogger(__name__)

_CACHE_LIMIT_BYTES = 512 * 1024**2


class EngineLoop:
    """The state of the engine's thread. Only that thread touches it."""

    def __init__(self, model: LoadedModel, config: EngineConfig) -> None:
        self._model = model
        self._config = config
        self._batches: list[DecodeBatch | SoloDecode] = []
        self._touched: dict[Call, None] = {}
        self._prompts = Prompts(
            model, config, make_room=self._preempt, ready=self._place, failed=self._fail_one
        )
        self._step_s = 0.0
        self._decoded_tokens = 0
        self._preemptions = 0
        self._token_bytes = 0 if model.kv is None else model.kv.growing_token_bytes
        padding_mb = config.padding_budget_mb
        # A batch more reads the weights once more: padding up to their size costs no more than that.
        self._padding_bytes = int(padding_mb * 1e6) if padding_mb else model.weights_bytes
        mx.set_cache_limit(_CACHE_LIMIT_BYTES)

    @property
    def is_busy(self) -> bool:
        """Whether there is anything to compute."""
        return bool(self._prompts.waiting or self._batches)

    def touched(self) -> list[Call]:
        """The calls that have new events since the last time this was asked."""
        touched = list(self._touched)
        self._touched.clear()
        return touched

    def stats(self) -> EngineStats:
        """A snapshot."""
        prompts = self._prompts
        return EngineStats(
            waiting=sum(1 for s in prompts.waiting if s not in prompts.running),
            running=len(prompts.running),
            batches=len(self._batches),
            kv_promised_bytes=prompts.promised_bytes,
            prefix_cache_bytes=prompts.prefix.nbytes if prompts.prefix else 0,
            prefilled_tokens=prompts.prefilled_tokens,
            cached_tokens=prompts.cached_tokens,
            decoded_tokens=self._decoded_tokens,
            preemptions=self._preemptions,
            step_s=self._step_s,
        )

    def add(self, call: Call) -> None:
        """Put a call's sequences into the queue."""
        for sequence in call.sequences:
            self._prompts.add(sequence)

    def drop(self, call: Call) -> None:
        """Forget a call without further events."""
        self._touched[call] = None
        call.ended = True
        for sequence in call.sequences:
            if not sequence.done:
                sequence.done = True
                self._release(sequence)

    def fail(self, call: Call, error: EngineError) -> None:
        """End a call with an error event."""
        if call.ended:
            return
        open_sequences = [s for s in call.sequences if not s.done]
        call.fail(error)
        self._touched[call] = None
        for sequence in open_sequences:
            self._release(sequence)

    def turn(self) -> None:
        """One decode step for every batch, then prefill for about as long as the budget says."""
        started = time.perf_counter()
        for batch in list(self._batches):
            self._step(batch)
        self._batches = [batch for batch in self._batches if len(batch)]
        if not self._batches:
            self._prompts.prefill(None)
            return
        took = time.perf_counter() - started
        self._step_s = took if not self._step_s else 0.8 * self._step_s + 0.2 * took
        if self._prompts.waiting:
            # Their tokens first, or they would wait for the prefill too.
            for batch in self._batches:
                self._flush(batch)
            self._prompts.prefill(self._config.prefill_gap_factor * self._step_s)

    def _step(self, batch: DecodeBatch | SoloDecode) -> None:
        with self._ends_its_calls(batch):
            if isinstance(batch, DecodeBatch):
                self._split(batch)
            batch.step(self._deliver)

    def _flush(self, batch: DecodeBatch | SoloDecode) -> None:
        with self._ends_its_calls(batch):
            batch.flush(self._deliver)

    @contextmanager
    def _ends_its_calls(self, batch: DecodeBatch | SoloDecode) -> Iterator[None]:
        """Whatever is raised inside ends the calls of `batch`, and no others."""
        try:
            yield
        except Exception as error:
            logger.exception("a decode step failed")
            for sequence in [s for s in self._prompts.running if s.batch is batch]:
                self.fail(sequence.call, _as_engine_error(error))

    def _deliver(self, step: Step) -> None:
        for i, row in enumerate(step.rows):
            if row is None or row.done:
                continue
            assert isinstance(row, SequenceState)
            token = GeneratedToken(step.tokens[i])
            if step.logprobs is not None and row.sampler.sampling.logprobs:
                token.logprob = step.logprobs[i]
                if step.top_tokens is not None and step.top_logprobs is not None:
                    pairs = zip(step.top_tokens[i], step.top_logprobs[i], strict=True)
                    best = sorted(pairs, key=lambda pair: -pair[1])
                    token.top = best[: row.sampler.sampling.top_logprobs]
            self._advance(row, token)

    def _advance(self, sequence: SequenceState, token: GeneratedToken) -> None:
        call = sequence.call
        try:
            reason = sequence.take(token)
        except Exception as error:
            if isinstance(error, InvalidLogits) and self._prompts.prefix is not None:
                # They may have come from key-values that others would resume from.
                self._prompts.prefix.clear()
            self.fail(call, _as_engine_error(error))
            return
        self._touched[call] = None
        self._decoded_tokens += 1
        self._prompts.fairness.charge(call.user, DECODE_WEIGHT)
        if reason is not None:
            self._remember(sequence)
            call.finish(sequence, reason)
            self._release(sequence)

    def _remember(self, sequence: SequenceState) -> None:
        """Keep a decoding sequence's key-values for the conversation's next turn."""
        if self._prompts.prefix is None or not isinstance(sequence.batch, DecodeBatch):
            return
        length, read = sequence.batch.source(sequence)
        self._prompts.prefix.insert(sequence.history()[:length], read)

    def _release(self, sequence: SequenceState) -> None:
        if sequence.batch is not None:
            sequence.batch.leave(sequence)
            sequence.batch = None
        self._prompts.forget(sequence)

    def _fail_one(self, sequence: SequenceState, error: Exception) -> None:
        self.fail(sequence.call, _as_engine_error(error))

    def _preempt(self, priority: Priority) -> bool:
        """For an emergency, send the latest batch-priority sequence back to the queue."""
        if priority is not Priority.EMERGENCY:
            return False
        candidates = [
            s
            for s in self._prompts.running
            if s.call.request.priority is Priority.BATCH and isinstance(s.batch, DecodeBatch)
        ]
        if not candidates:
            return False
        sequence = max(candidates, key=lambda s: s.arrival)
        self._flush(sequence.batch)
        if sequence.done:
            return True
        self._remember(sequence)
        sequence.batch.leave(sequence)
        sequence.batch = None
        self._prompts.queue_again(sequence)
        self._preemptions += 1
        return True

    def _place(self, sequence: SequenceState, token: int, caches: Any) -> None:
        model = self._model
        if model.kv is None:
            solo = SoloDecode(model.network, model.vocabulary, sequence, token, caches)
            sequence.batch = solo
            self._batches.append(solo)
            return
        tokens = caches[0].offset + 1
        batches = [batch for batch in self._batches if isinstance(batch, DecodeBatch)]
        at = place(tokens, [b.load() for b in batches], self._token_bytes, self._padding_bytes)
        if at < len(batches):
            batch = batches[at]
        else:
            batch = DecodeBatch(model.network, model.kv, model.vocabulary, columns_for(tokens))
            self._batches.append(batch)
        batch.join(sequence, token, caches)
        sequence.batch = batch

    def _split(self, batch: DecodeBatch) -> None:
        """Move rows whose growth would cost the others too much padding to other batches."""

        def choose(load: Any) -> list[int]:
            return outgrown(load, self._token_bytes, self._padding_bytes)

        for row in batch.outgrown_rows(choose):
            assert isinstance(row, SequenceState)
            self._move(row, batch)

    def _move(self, sequence: SequenceState, batch: DecodeBatch) -> None:
        row: Row = sequence
        token, caches = batch.move_out(row)
        self._place(sequence, token, caches)


def _as_engine_error(error: Exception) -> EngineError:
    """An error of the tree; anything unknown becomes the engine's own fault, named by its class."""
    if isinstance(error, EngineError):
        return error
    return EngineError(f"The request failed in the engine ({type(error).__name__}).")
