"""Prompts on their way to a decode batch: admission, order, and prefill in passes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from configs.engine import EngineConfig
from models.generation import Priority
from models.kv import Angles, PromptKV, StackedKV
from models.loading import LoadedModel, make_caches
from models.prefix import PrefixCache, common_prefix
from models.scheduling import Fairness, PrefillPace, admission
from models.sequences import SequenceState

logger = logging.getLogger(__name__)

_GIB = 1024**3
_WORTH_KEEPING = 16  # tokens; shorter prefixes are cheaper to compute than to look after
_MOST_IN_A_PASS = 32  # sequences looked at for one prefill pass


class Prompts:
    """The sequences that wait or are in prefill, and how far each one is.

    `make_room` is asked to free a running sequence's place for a priority, and says whether it did;
    `ready` takes a sequence whose prompt is done but for its last token; `failed` ends one.
    """

    def __init__(
        self,
        model: LoadedModel,
        config: EngineConfig,
        *,
        make_room: Callable[[Priority], bool],
        ready: Callable[[SequenceState, int, Any], None],
        failed: Callable[[SequenceState, Exception], None],
    ) -> None:
        self.waiting: list[SequenceState] = []
        self.running: set[SequenceState] = set()
        self.fairness = Fairness()
        self.prefix: PrefixCache | None = None
        self.prefilled_tokens = 0
        self.cached_tokens = 0
        self._model = model
        self._config = config
        self._make_room = make_room
        self._ready = ready
        self._failed = failed
        self._pace = PrefillPace(config.prefill_chunk)
        if model.kv is not None:
            self.prefix = PrefixCache(model.kv, int(config.prefix_cache_gb * _GIB))

    @property
    def promised_bytes(self) -> int:
        """Key-value bytes promised to the sequences that run."""
        return sum(sequence.kv_bytes for sequence in self.running)

    def add(self, sequence: SequenceState) -> None:
        """Queue a new sequence."""
        self.fairness.arrive(sequence.call.user)
        self.waiting.append(sequence)

    def queue_again(self, sequence: SequenceState) -> None:
        """Queue a sequence that was decoding; its answer so far counts as prompt."""
        sequence.tokens = sequence.history()
        self.running.discard(sequence)
        self.waiting.append(sequence)

    def forget(self, sequence: SequenceState) -> None:
        """A sequence has ended, wherever it was."""
        if sequence in self.waiting:
            self.waiting.remove(sequence)
        sequence.caches = None
        self.running.discard(sequence)
        self.fairness.leave(sequence.call.user)

    def prefill(self, budget_s: float | None) -> None:
        """Prefill for `budget_s` seconds, or one pass without a budget."""
        started, passes = time.perf_counter(), 0
        while self.waiting:
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
                    self._failed(sequence, error)
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
            if full or looked >= _MOST_IN_A_PASS or self.prefix is None:
                break
        # Whoever began to wait for one of these has put a mark before its stop.
        return [(s, min(stop, s.marks[0])) for s, stop in picked if not s.done]

    @staticmethod
    def _shares_a_pass(todo: int, reach: int) -> bool:
        return todo > 0 and 2 * todo >= reach

    def _in_order(self) -> Iterator[SequenceState]:
        """Sequences in prefill or newly admitted, the fairest choice first."""
        order = sorted(
            self.waiting,
            key=lambda s: self.fairness.key(s.call.request.priority, s.call.user, s.arrival),
        )
        blocked = False
        for sequence in order:
            # Making room for one may have ended another.
            if sequence.done:
                continue
            if sequence in self.running or (not blocked and self._admit(sequence)):
                yield sequence
            else:
                # Nobody overtakes one that waits for room, or a large one would wait for ever.
                blocked = True

    def _admit(self, sequence: SequenceState) -> bool:
        budget, most = int(self._config.kv_cache_gb * _GIB), self._config.max_running
        while True:
            decision = admission(
                sequence.kv_bytes, self.promised_bytes, budget, len(self.running), most
            )
            if decision.action == "admit":
                self.running.add(sequence)
                return True
            if decision.action == "refuse" or not self._make_room(sequence.call.request.priority):
                return False

    def _restore(self, sequence: SequenceState, ahead: Sequence[SequenceState]) -> bool:
        """Give a sequence its caches, filled from the prefix cache as far as that reaches.

        False when it had better wait for one of `ahead`, or of those in prefill, to leave more there.
        """
        last = len(sequence.tokens) - 1
        known = sequence.tokens[:last]
        resumable = shared = 0
        if self.prefix is not None and self._model.kv is not None:
            resumable, shared = self.prefix.match(known)
            if self._waits_for_prefix(sequence, resumable, ahead):
                return False
            sequence.caches = [PromptKV(window, last) for window in self._model.kv.windows]
            if resumable:
                self.prefix.restore(known, resumable, sequence.caches)
        else:
            sequence.caches = make_caches(self._model.network)
        sequence.position = resumable
        self.cached_tokens += resumable
        if sequence.cached_tokens is None:
            sequence.cached_tokens = resumable
        least = resumable + _WORTH_KEEPING
        marks = {mark for mark in (sequence.call.boundary, shared) if least <= mark < last}
        sequence.marks = sorted({*marks, last})
        return True

    def _waits_for_prefix(
        self, sequence: SequenceState, resumable: int, ahead: Sequence[SequenceState]
    ) -> bool:
        assert self.prefix is not None
        known, urgency = sequence.tokens[:-1], sequence.call.request.priority
        for other in {*ahead, *(s for s in self.waiting if s.caches is not None)}:
            # Waiting for somebody less urgent would make this one as slow.
            if other.call.request.priority > urgency:
                continue
            shared = min(common_prefix(known, other.tokens), len(other.tokens) - 1)
            if not self.prefix.can_keep(shared):
                continue
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
            self.prefilled_tokens += length
            self.fairness.charge(sequence.call.user, length)
            if stop == sequence.marks[0]:
                sequence.marks.pop(0)
                self._keep_prefix(sequence, stop)
                if not sequence.marks:
                    self._hand_over(sequence)

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
        if self.prefix is not None:
            angles: Angles = {}
            for cache in caches:
                cache.angles = angles
        self._model.network(mx.array(tokens), cache=caches)
        plain = self.prefix is not None
        mx.eval([cache.arrays() if plain else cache.state for cache in caches])

    def _keep_prefix(self, sequence: SequenceState, mark: int) -> None:
        if self.prefix is not None and mark >= _WORTH_KEEPING:
            caches = sequence.caches
            self.prefix.insert(
                sequence.tokens[:mark],
                lambda layer, start, stop: caches[layer].tokens(start, stop),
            )

    def _hand_over(self, sequence: SequenceState) -> None:
        self.waiting.remove(sequence)
        caches, sequence.caches = sequence.caches, None
        self._ready(sequence, int(sequence.tokens[-1]), caches)
