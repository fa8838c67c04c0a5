"""One turn of the engine: a decode step for every batch, then a slice of prefill."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from configs.engine import EngineConfig
from models.decoding import DecodeBatch, Row, SoloDecode, Step
from models.errors import EngineError, InvalidLogits
from models.generation import Priority
from models.kv import Angles, PromptKV, StackedKV
from models.loading import LoadedModel, make_caches
from models.prefix import PrefixCache, common_prefix
from models.scheduling import (
    DECODE_WEIGHT,
    Fairness,
    PrefillPace,
    admission,
    columns_for,
    outgrown,
    place,
)
from models.sequences import Call, EngineStats, GeneratedToken, SequenceState

logger = logging.getLogger(__name__)

_GIB = 1024**3
_WORTH_KEEPING = 16  # tokens; shorter prefixes are cheaper to compute than to look after
_MOST_IN_A_PASS = 32  # sequences looked at for one prefill pass
_CACHE_LIMIT_BYTES = 512 * 1024**2


class EngineLoop:
    """The state of the engine's thread. Only that thread touches it."""

    def __init__(self, model: LoadedModel, config: EngineConfig) -> None:
        self._model = model
        self._config = config
        self._batches: list[DecodeBatch | SoloDecode] = []
        self._waiting: list[SequenceState] = []
        self._running: set[SequenceState] = set()
        self._touched: dict[Call, None] = {}
        self._fairness = Fairness()
        self._pace = PrefillPace(config.prefill_chunk)
        self._step_s = 0.0
        self._counts = dict.fromkeys(("prefilled", "cached", "decoded", "preempted"), 0)
        self._prefix: PrefixCache | None = None
        self._token_bytes = 0
        if model.kv is not None:
            self._prefix = PrefixCache(model.kv, int(config.prefix_cache_gb * _GIB))
            self._token_bytes = model.kv.growing_token_bytes
        padding_mb = config.padding_budget_mb
        # A batch more reads the weights once more: padding up to their size costs no more than that.
        self._padding_bytes = int(padding_mb * 1e6) if padding_mb else model.weights_bytes
        mx.set_cache_limit(_CACHE_LIMIT_BYTES)

    @property
    def is_busy(self) -> bool:
        """Whether there is anything to compute."""
        return bool(self._waiting or self._batches)

    def touched(self) -> list[Call]:
        """The calls that have new events since the last time this was asked."""
        touched = list(self._touched)
        self._touched.clear()
        return touched

    def stats(self) -> EngineStats:
        """A snapshot."""
        return EngineStats(
            waiting=sum(1 for s in self._waiting if s not in self._running),
            running=len(self._running),
            batches=len(self._batches),
            kv_promised_bytes=sum(s.kv_bytes for s in self._running),
            prefix_cache_bytes=self._prefix.nbytes if self._prefix else 0,
            prefilled_tokens=self._counts["prefilled"],
            cached_tokens=self._counts["cached"],
            decoded_tokens=self._counts["decoded"],
            preemptions=self._counts["preempted"],
            step_s=self._step_s,
        )

    def add(self, call: Call) -> None:
        """Put a call's sequences into the queue."""
        for sequence in call.sequences:
            self._fairness.arrive(call.user)
            self._waiting.append(sequence)

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
            self._prefill(None)
            return
        took = time.perf_counter() - started
        self._step_s = took if not self._step_s else 0.8 * self._step_s + 0.2 * took
        if self._waiting:
            self._prefill(self._config.prefill_gap_factor * self._step_s)

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
            for sequence in [s for s in self._running if s.batch is batch]:
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
            if isinstance(error, InvalidLogits) and self._prefix is not None:
                # They may have come from key-values that others would resume from.
                self._prefix.clear()
            self.fail(call, _as_engine_error(error))
            return
        self._touched[call] = None
        self._counts["decoded"] += 1
        self._fairness.charge(call.user, DECODE_WEIGHT)
        if reason is not None:
            self._remember(sequence)
            call.finish(sequence, reason)
            self._release(sequence)

    def _remember(self, sequence: SequenceState) -> None:
        """Keep a decoding sequence's key-values for the conversation's next turn."""
        if self._prefix is None or not isinstance(sequence.batch, DecodeBatch):
            return
        length, read = sequence.batch.source(sequence)
        self._prefix.insert(sequence.history()[:length], read)

    def _release(self, sequence: SequenceState) -> None:
        if sequence.batch is not None:
            sequence.batch.leave(sequence)
            sequence.batch = None
        elif sequence in self._waiting:
            self._waiting.remove(sequence)
        sequence.caches = None
        self._running.discard(sequence)
        self._fairness.leave(sequence.call.user)

    def _prefill(self, budget_s: float | None) -> None:
        """Prefill for `budget_s` seconds, or one pass without a budget."""
        if budget_s is not None:
            for batch in self._batches:
                self._flush(batch)
        started, passes = time.perf_counter(), 0
        while self._waiting:
            left = None if budget_s is None else budget_s - (time.perf_counter() - started)
            # A pass that would not fit waits for the next turn, unless none has run in this one.
            if left is not None and passes and left < self._pace.fixed_s:
                return
            picked = self._pick(self._pace.tokens(left))
            if not picked:
                return
            passes += 1
            try:
                self._advance_prompts(picked)
            except Exception as error:
                logger.exception("a prefill pass failed")
                for sequence, _ in picked:
                    self.fail(sequence.call, _as_engine_error(error))
            if budget_s is None:
                return

    def _pick(self, tokens: int) -> list[tuple[SequenceState, int]]:
        """Who gets prefilled in the next pass, and up to where: about `tokens` tokens in all.

        The first is the fairest choice. Others that stand at the same position share its pass, but
        not those that begin as it does: they wait, and resume from what it leaves in the prefix cache.
        """
        picked: list[tuple[SequenceState, int]] = []
        reach = looked = 0
        for sequence in self._in_order():
            if sequence.caches is None and not self._restore(sequence, [s for s, _ in picked]):
                continue
            looked += 1
            todo = sequence.marks[0] - sequence.position
            if not picked:
                reach = min(todo, tokens)
            elif sequence.position != picked[0][0].position or not self._shares_a_pass(todo, reach):
                continue
            picked.append((sequence, sequence.position + min(todo, reach)))
            full = reach * (len(picked) + 1) > max(tokens, reach)
            if full or looked >= _MOST_IN_A_PASS or self._prefix is None:
                break
        # Whoever began to wait for one of these has put a mark before its stop.
        return [(s, min(stop, s.marks[0])) for s, stop in picked if not s.done]

    @staticmethod
    def _shares_a_pass(todo: int, reach: int) -> bool:
        return todo > 0 and 2 * todo >= reach

    def _in_order(self) -> Iterator[SequenceState]:
        """Sequences in prefill or newly admitted, the fairest choice first."""
        order = sorted(
            self._waiting,
            key=lambda s: self._fairness.key(s.call.request.priority, s.call.user, s.arrival),
        )
        blocked = False
        for sequence in order:
            # Making room for one may have ended another.
            if sequence.done:
                continue
            if sequence in self._running or (not blocked and self._admit(sequence)):
                yield sequence
            else:
                # Nobody overtakes one that waits for room, or a large one would wait for ever.
                blocked = True

    def _admit(self, sequence: SequenceState) -> bool:
        used = sum(s.kv_bytes for s in self._running)
        budget = int(self._config.kv_cache_gb * _GIB)
        running, most = len(self._running), self._config.max_running
        decision = admission(sequence.kv_bytes, used, budget, running, most)
        while decision.action == "wait" and self._preempt(sequence.call.request.priority):
            used = sum(s.kv_bytes for s in self._running)
            running = len(self._running)
            decision = admission(sequence.kv_bytes, used, budget, running, most)
        if decision.action != "admit":
            return False
        self._running.add(sequence)
        return True

    def _preempt(self, priority: Priority) -> bool:
        """For an emergency, send the latest batch-priority sequence back to the queue."""
        if priority is not Priority.EMERGENCY:
            return False
        candidates = [
            s
            for s in self._running
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
        sequence.tokens = sequence.history()
        self._running.discard(sequence)
        self._waiting.append(sequence)
        self._counts["preempted"] += 1
        return True

    def _restore(self, sequence: SequenceState, ahead: Sequence[SequenceState]) -> bool:
        """Give a sequence its caches, filled from the prefix cache as far as that reaches.

        False when it had better wait for one of `ahead`, or of those in prefill, to leave more there.
        """
        last = len(sequence.tokens) - 1
        known = sequence.tokens[:last]
        resumable = shared = 0
        if self._prefix is not None and self._model.kv is not None:
            resumable, shared = self._prefix.match(known)
            if self._waits_for_prefix(sequence, resumable, ahead):
                return False
            sequence.caches = [PromptKV(window, last) for window in self._model.kv.windows]
            if resumable:
                self._prefix.restore(known, resumable, sequence.caches)
        else:
            sequence.caches = make_caches(self._model.network)
        sequence.position = resumable
        self._counts["cached"] += resumable
        if sequence.cached_tokens is None:
            sequence.cached_tokens = resumable
        least = resumable + _WORTH_KEEPING
        marks = {mark for mark in (sequence.call.boundary, shared) if least <= mark < last}
        sequence.marks = sorted({*marks, last})
        return True

    def _waits_for_prefix(
        self, sequence: SequenceState, resumable: int, ahead: Sequence[SequenceState]
    ) -> bool:
        known, urgency = sequence.tokens[:-1], sequence.call.request.priority
        for other in {*ahead, *(s for s in self._waiting if s.caches is not None)}:
            # Waiting for somebody less urgent would make this one as slow.
            if other.call.request.priority > urgency:
                continue
            shared = min(common_prefix(known, other.tokens), len(other.tokens) - 1)
            if shared >= max(resumable, other.position) + _WORTH_KEEPING:
                if shared not in other.marks:
                    other.marks = sorted({*other.marks, shared})
                return True
        return False

    def _advance_prompts(self, picked: Sequence[tuple[SequenceState, int]]) -> None:
        """Prefill each picked sequence up to its stop; those that are through join a decode batch."""
        lengths = [stop - sequence.position for sequence, stop in picked]
        if max(lengths):
            started = time.perf_counter()
            if len(picked) == 1:
                sequence, stop = picked[0]
                self._compute(sequence.tokens[sequence.position : stop][None], sequence.caches)
            else:
                self._compute_stacked(picked, lengths)
            self._pace.observe(max(lengths) * len(picked), time.perf_counter() - started)
        for (sequence, stop), length in zip(picked, lengths, strict=True):
            sequence.position = stop
            self._counts["prefilled"] += length
            self._fairness.charge(sequence.call.user, length)
            if stop == sequence.marks[0]:
                sequence.marks.pop(0)
                self._keep_prefix(sequence, stop)
                if not sequence.marks:
                    self._join(sequence)

    def _compute_stacked(
        self, picked: Sequence[tuple[SequenceState, int]], lengths: Sequence[int]
    ) -> None:
        tokens = np.zeros((len(picked), max(lengths)), np.int32)
        for row, (sequence, stop), length in zip(tokens, picked, lengths, strict=True):
            row[:length] = sequence.tokens[sequence.position : stop]
        angles: Angles = {}
        layers = zip(*(sequence.caches for sequence, _ in picked), strict=True)
        stacked = [StackedKV(rows, lengths, angles) for rows in layers]
        self._model.network(mx.array(tokens), cache=stacked)
        mx.eval([cache.arrays() for sequence, _ in picked for cache in sequence.caches])

    def _compute(self, tokens: NDArray[np.int32], caches: Any) -> None:
        """Run the network for the key-values of `tokens` [1, n] alone; no logits are computed."""
        if self._prefix is not None:
            angles: Angles = {}
            for cache in caches:
                cache.angles = angles
        self._model.network(mx.array(tokens), cache=caches)
        plain = self._prefix is not None
        mx.eval([cache.arrays() if plain else cache.state for cache in caches])

    def _keep_prefix(self, sequence: SequenceState, mark: int) -> None:
        if self._prefix is not None and mark >= _WORTH_KEEPING:
            caches = sequence.caches
            self._prefix.insert(
                sequence.tokens[:mark],
                lambda layer, start, stop: caches[layer].tokens(start, stop),
            )

    def _join(self, sequence: SequenceState) -> None:
        self._waiting.remove(sequence)
        token, caches = int(sequence.tokens[-1]), sequence.caches
        sequence.caches = None
        self._place(sequence, token, caches)

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
