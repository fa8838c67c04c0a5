"""Decode batches: sequences that get one token a step together, in a ring of key-values.

A step is launched before the last one's tokens are read, so that the host's work hides behind the
device's. Rows whose next step depends on the host (a grammar, penalties) read first, sample after.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from models.kv import Angles, KVShape, PromptKV, RingClock, RingKV
from models.prefix import Pair
from models.row_sampler import RowSampler
from models.sampling import BatchSampler, Sampled
from models.scheduling import BatchLoad, columns_for, row_count


class Row(Protocol):
    """What a batch knows of a sequence."""

    sampler: RowSampler
    done: bool

    @property
    def needs_host(self) -> bool:
        """Whether its next token's distribution depends on the last token's value."""

    def allowed(self, vocabulary: int) -> NDArray[np.bool_] | None:
        """The tokens that its grammar allows next, or None."""


@dataclass(frozen=True, slots=True)
class Step:
    """The tokens of one step on the host; row i belongs to `rows[i]`."""

    rows: tuple[Row | None, ...]
    tokens: list[int]
    logprobs: list[float] | None
    top_tokens: list[list[int]] | None
    top_logprobs: list[list[float]] | None


Deliver = Callable[[Step], None]


class DecodeBatch:
    """Rows of one ring. `lengths[i]` counts the tokens of row i whose key-values are in it."""

    def __init__(self, network: Any, shape: KVShape, vocabulary: int, columns: int) -> None:
        self._network = network
        self._shape = shape
        self._vocabulary = vocabulary
        self.rows: list[Row | None] = []
        self.lengths: list[int] = []
        self._clocks = {
            window: RingClock(window, columns if window is None else min(window, columns))
            for window in dict.fromkeys(shape.windows)
        }
        self._layers = [RingKV(layer, self._clocks[layer.window]) for layer in shape.layers]
        self._inputs: mx.array | None = None
        self._sampler: BatchSampler | None = None
        self._pending: tuple[tuple[Row | None, ...], Sampled] | None = None
        self._columns = columns

    def load(self) -> BatchLoad:
        """The batch as placement sees it."""
        return BatchLoad(self._columns, tuple(self.lengths[i] for i, _ in self._present()))

    def __len__(self) -> int:
        return sum(1 for _ in self._present())

    def join(self, row: Row, token: int, caches: Sequence[PromptKV]) -> None:
        """Add `row`, whose `caches` hold all its tokens but the last, `token`."""
        tokens = caches[0].offset
        self._ensure_columns(tokens + 1)
        at = self._free_row()
        for layer, cache in zip(self._layers, caches, strict=True):
            kept = min(tokens, layer.clock.capacity)
            if kept:
                layer.insert(at, *cache.tokens(tokens - kept, tokens))
        self._set_input(at, token)
        self.rows[at], self.lengths[at] = row, tokens
        self._sampler = None

    def leave(self, row: Row) -> None:
        """Free the place of `row`; what it still has in flight is thrown away when it is read."""
        at = self.rows.index(row)
        self.rows[at], self.lengths[at] = None, 0
        self._sampler = None

    def source(self, row: Row) -> tuple[int, Callable[[int, int, int], Pair]]:
        """How many tokens of `row` the ring holds, and a reader (layer, start, stop) of copies."""
        at = self.rows.index(row)
        length = self.lengths[at]

        def read(layer: int, start: int, stop: int) -> Pair:
            return self._layers[layer].extract(at, length - stop, stop - start)

        return length, read

    def move_out(self, row: Row) -> tuple[int, list[PromptKV]]:
        """Take `row` out to join another batch: its next input token, and its caches."""
        at = self.rows.index(row)
        length, read = self.source(row)
        assert self._inputs is not None
        token = int(np.array(self._inputs)[at])
        caches = []
        for i, window in enumerate(self._shape.windows):
            cache = PromptKV(window, length)
            cache.load([read(i, 0 if window is None else max(0, length - window), length)], length)
            mx.eval(cache.arrays())
            caches.append(cache)
        self.leave(row)
        return token, caches

    def step(self, deliver: Deliver) -> None:
        """Launch the next step, and deliver the tokens of the one before it."""
        self._compact()
        if not self.rows:
            self.flush(deliver)
            return
        self._ensure_columns(max(self.lengths) + 1)
        logits = self._forward()
        allowed = None
        if any(row.needs_host for _, row in self._present()):
            mx.async_eval(logits)
            self.flush(deliver)
            allowed = self._allowed()
        previous, self._pending = self._pending, None
        if self._sampler is None:
            rows = [None if row is None else row.sampler for row in self.rows]
            self._sampler = BatchSampler(rows, self._vocabulary)
        sampled = self._sampler(logits, allowed)
        mx.async_eval(sampled.arrays())
        self._inputs = sampled.tokens
        self._pending = (tuple(self.rows), sampled)
        if previous is not None:
            deliver(_read(*previous))

    def flush(self, deliver: Deliver) -> None:
        """Wait for the step in flight, if any, and deliver it."""
        if self._pending is not None:
            previous, self._pending = self._pending, None
            deliver(_read(*previous))

    def outgrown_rows(self, choose: Callable[[BatchLoad], list[int]]) -> list[Row]:
        """When the next step needs more columns: the rows that `choose` sends to other batches."""
        if not self.rows or max(self.lengths) + 1 <= self._columns:
            return []
        present = list(self._present())
        return [present[i][1] for i in choose(self.load())]

    def _present(self) -> Iterator[tuple[int, Row]]:
        return ((i, row) for i, row in enumerate(self.rows) if row is not None)

    def _forward(self) -> mx.array:
        assert self._inputs is not None
        offsets = mx.array(self.lengths)
        for clock in self._clocks.values():
            clock.set_mask(self.lengths)
        angles: Angles = {}
        for layer in self._layers:
            layer.offset, layer.angles = offsets, angles
        logits: mx.array = self._network(self._inputs[:, None], cache=self._layers)[:, -1, :]
        for clock in self._clocks.values():
            clock.column = (clock.column + 1) % clock.capacity
        for i, _ in self._present():
            self.lengths[i] += 1
        return logits

    def _allowed(self) -> NDArray[np.bool_] | None:
        masks = [(i, row.allowed(self._vocabulary)) for i, row in self._present() if not row.done]
        if all(mask is None for _, mask in masks):
            return None
        table = np.ones((len(self.rows), self._vocabulary), np.bool_)
        for i, mask in masks:
            if mask is not None:
                table[i] = mask
        return table

    def _ensure_columns(self, tokens: int) -> None:
        if tokens > self._columns:
            self._columns = columns_for(tokens)
        for window, clock in self._clocks.items():
            capacity = self._columns if window is None else min(window, self._columns)
            if capacity > clock.capacity:
                if self.rows:
                    for layer in self._layers:
                        if layer.clock is clock:
                            layer.grow(capacity)
                clock.capacity, clock.column = capacity, 0

    def _free_row(self) -> int:
        if None in self.rows:
            return self.rows.index(None)
        at = len(self.rows)
        self._resize(list(range(at)), row_count(at + 1))
        return at

    def _compact(self) -> None:
        """Give back rows when fewer than the ladder's next smaller size are in use."""
        kept = [i for i, _ in self._present()]
        size = row_count(len(kept)) if kept else 0
        if size < len(self.rows):
            self._resize(kept, size)

    def _resize(self, kept: list[int], size: int) -> None:
        extra = size - len(kept)
        for layer in self._layers:
            if kept:
                layer.take_rows(kept, extra)
            else:
                layer.allocate(size)
        if self._inputs is not None and kept:
            self._inputs = mx.take(self._inputs, mx.array([*kept, *([0] * extra)]))
        else:
            self._inputs = mx.zeros(size, mx.int32)
        self.rows = [self.rows[i] for i in kept] + [None] * extra
        self.lengths = [self.lengths[i] for i in kept] + [0] * extra
        self._sampler = None

    def _set_input(self, at: int, token: int) -> None:
        # Not by item assignment: that would change the array that the step in flight still reads.
        assert self._inputs is not None
        self._inputs = mx.slice_update(
            self._inputs, mx.array([token], mx.int32), mx.array([at]), axes=[0]
        )


class SoloDecode:
    """One sequence of an architecture whose caches cannot be batched, with mlx-lm's own caches."""

    def __init__(
        self, network: Any, vocabulary: int, row: Row, token: int, caches: Sequence[Any]
    ) -> None:
        self._network = network
        self._vocabulary = vocabulary
        self._row: Row | None = row
        self._caches = caches
        self._inputs = mx.array([token], mx.int32)
        self._sampler = BatchSampler([row.sampler], vocabulary)
        self._pending: tuple[tuple[Row | None, ...], Sampled] | None = None

    def __len__(self) -> int:
        return 0 if self._row is None else 1

    def leave(self, row: Row) -> None:
        """Stop decoding."""
        self._row = None

    def step(self, deliver: Deliver) -> None:
        """As `DecodeBatch.step`, for one row."""
        row = self._row
        if row is None or row.needs_host:
            self.flush(deliver)
        if row is None or row.done:
            return
        logits = self._network(self._inputs[:, None], cache=self._caches)[:, -1, :]
        mask = row.allowed(self._vocabulary)
        sampled = self._sampler(logits, None if mask is None else mask[None])
        mx.async_eval(sampled.arrays())
        previous, self._pending = self._pending, ((row,), sampled)
        self._inputs = sampled.tokens
        if previous is not None:
            deliver(_read(*previous))

    def flush(self, deliver: Deliver) -> None:
        """As `DecodeBatch.flush`."""
        if self._pending is not None:
            previous, self._pending = self._pending, None
            deliver(_read(*previous))


def _read(rows: tuple[Row | None, ...], sampled: Sampled) -> Step:
    def host(array: mx.array | None) -> Any:
        return None if array is None else array.tolist()

    return Step(
        rows,
        host(sampled.tokens),
        host(sampled.logprobs),
        host(sampled.top_tokens),
        host(sampled.top_logprobs),
    )
