"""Chooses the next token for every row of a batch at once, each row with its own parameters.

A row's randomness is one number per token from its own seeded generator, turned into a token by the
inverse of the cumulative distribution: the same seed gives the same answer in any batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from models.row_sampler import INVALID, RowSampler

_FORBIDDEN = -1e30


@dataclass(frozen=True, slots=True)
class Sampled:
    """Lazy arrays of one step: `tokens` [rows] (`INVALID` where the logits hold NaN), and where a row
    asked for log-probabilities `logprobs` [rows], `top_tokens` and `top_logprobs` [rows, k]."""

    tokens: mx.array
    logprobs: mx.array | None = None
    top_tokens: mx.array | None = None
    top_logprobs: mx.array | None = None

    def arrays(self) -> list[mx.array]:
        """Everything to evaluate."""
        found = (self.tokens, self.logprobs, self.top_tokens, self.top_logprobs)
        return [array for array in found if array is not None]


_Value = Callable[[RowSampler], float]


class BatchSampler:
    """The parameters of a batch's rows as arrays; rebuilt when a row joins or leaves."""

    def __init__(self, rows: Sequence[RowSampler | None], vocabulary: int) -> None:
        self.rows = rows
        self.vocabulary = vocabulary
        present = [row for row in rows if row is not None]
        self.needs_counts = any(row.is_penalised for row in present)
        self._draws = any(not row.is_greedy for row in present)
        self._filters = any(row.is_filtered for row in present)
        self._mixes = any(not (row.is_filtered or row.is_greedy) for row in present)
        self._top = max(
            (row.sampling.top_logprobs for row in present if row.sampling.logprobs), default=-1
        )
        self._bias = self._bias_array()
        if self._draws:
            self._greedy = self._column(lambda row: row.is_greedy, True)
            self._temperature = self._column(
                lambda row: 1.0 if row.is_greedy else row.sampling.temperature, 1.0
            )
        if self._filters:
            self._top_k = self._column(lambda row: row.sampling.top_k or vocabulary, vocabulary)
            self._top_p = self._column(lambda row: row.sampling.top_p, 1.0)
            self._min_p = self._column(lambda row: row.sampling.min_p, 0.0)
            self._filtered = self._column(lambda row: row.is_filtered, False)

    def __call__(self, logits: mx.array, allowed: NDArray[np.bool_] | None = None) -> Sampled:
        """Sample from `logits` [rows, vocabulary]; `allowed` masks tokens that a grammar excludes."""
        logits = logits.astype(mx.float32)
        invalid = mx.isnan(mx.sum(logits, axis=-1))
        raw = logits
        if self._bias is not None:
            logits = logits + self._bias
        if self.needs_counts:
            logits = logits - self._penalties()
        if allowed is not None:
            logits = mx.where(mx.array(allowed), logits, _FORBIDDEN)
        tokens = mx.argmax(logits, axis=-1).astype(mx.int32)
        if self._draws:
            tokens = mx.where(self._greedy[:, 0], tokens, self._drawn(logits / self._temperature))
        tokens = mx.where(invalid, INVALID, tokens)
        return Sampled(tokens) if self._top < 0 else self._with_logprobs(tokens, raw)

    def _drawn(self, logits: mx.array) -> mx.array:
        number = mx.array([0.0 if row is None else row.draw() for row in self.rows])[:, None]
        if not self._filters:
            return _inverse(mx.softmax(logits, axis=-1), number)
        order = mx.argsort(-logits, axis=-1)
        p = mx.softmax(mx.take_along_axis(logits, order, axis=-1), axis=-1)
        rank = mx.arange(p.shape[-1])[None, :]
        p = mx.where(rank < self._top_k, p, 0.0)
        before = mx.cumsum(p, axis=-1) - p
        total = mx.sum(p, axis=-1, keepdims=True)
        keep = (rank == 0) | ((before < self._top_p * total) & (p >= self._min_p * p[:, :1]))
        chosen = _inverse(mx.where(keep, p, 0.0), number)
        tokens = mx.take_along_axis(order, chosen[:, None], axis=-1)[:, 0].astype(mx.int32)
        if not self._mixes:
            return tokens
        # The order of the tokens decides which one a number means: by index, as without company.
        plain = _inverse(mx.softmax(logits, axis=-1), number)
        return mx.where(self._filtered[:, 0], tokens, plain)

    def _with_logprobs(self, tokens: mx.array, logits: mx.array) -> Sampled:
        logprobs = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
        chosen = mx.take_along_axis(logprobs, mx.maximum(tokens, 0)[:, None], axis=-1)[:, 0]
        if self._top == 0:
            return Sampled(tokens, chosen)
        best = mx.argpartition(-logprobs, self._top - 1, axis=-1)[:, : self._top]
        return Sampled(tokens, chosen, best, mx.take_along_axis(logprobs, best, axis=-1))

    def _penalties(self) -> mx.array:
        array = np.zeros((len(self.rows), self.vocabulary), np.float32)
        for i, row in enumerate(self.rows):
            if row is not None and row.counts:
                tokens = np.fromiter(row.counts, np.int64, len(row.counts))
                counts = np.fromiter(row.counts.values(), np.float32, len(row.counts))
                s = row.sampling
                array[i, tokens] = s.presence_penalty + s.frequency_penalty * counts
        return mx.array(array)

    def _bias_array(self) -> mx.array | None:
        if not any(row is not None and row.sampling.logit_bias for row in self.rows):
            return None
        array = np.zeros((len(self.rows), self.vocabulary), np.float32)
        for i, row in enumerate(self.rows):
            for token, bias in (row.sampling.logit_bias if row is not None else {}).items():
                array[i, token] = bias
        return mx.array(array)

    def _column(self, value: _Value, empty: float) -> mx.array:
        return mx.array([empty if row is None else value(row) for row in self.rows])[:, None]


def _inverse(p: mx.array, number: mx.array) -> mx.array:
    """The first token whose cumulative share of `p` [rows, n] exceeds `number` [rows, 1]."""
    cumulative = mx.cumsum(p, axis=-1)
    total = cumulative[:, -1:]
    # Kept below the total: in float32 a number can round to 1, and what follows has no share at all.
    below = cumulative <= mx.minimum(number, 1 - 2**-23) * total
    return mx.minimum(mx.sum(below, axis=-1), p.shape[-1] - 1).astype(mx.int32)
