"""Key-value caches: `PromptKV` while one prompt is prefilled, `RingKV` while a batch decodes.

Both speak mlx-lm's cache protocol (`offset`, `update_and_fetch`, `make_mask`). Keys carry their rotary
position already, so attention does not care in which column a token lies. A `RingKV` uses that: all
rows write the same column at a step, columns are reused in a circle, and a mask by age says what a row
may see. A sequence joins by copying its own tokens behind the write column, and leaves for free;
nothing is padded, shifted or rebuilt for the others. A sliding window is a ring of the window's size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
from mlx_lm.models.base import create_causal_mask
from mlx_lm.models.cache import KVCache, RotatingKVCache

COLUMN_STEP = 64

# Rotary cosines and sines of one forward pass, by (base, size): the same for every layer of a kind.
Angles = dict[tuple[float, int], tuple[mx.array, mx.array]]


@dataclass(frozen=True, slots=True)
class LayerShape:
    """One layer's cache: `window` None where it attends to everything; sizes in elements."""

    window: int | None
    heads: int
    key_size: int
    value_size: int
    dtype: mx.Dtype

    @property
    def token_bytes(self) -> int:
        """Bytes that the keys and values of one token take."""
        return self.heads * (self.key_size + self.value_size) * self.dtype.size

    def empty(self, rows: int, tokens: int) -> tuple[mx.array, mx.array]:
        """Zeroed keys and values, [rows, heads, tokens, size]."""
        keys = mx.zeros((rows, self.heads, tokens, self.key_size), self.dtype)
        return keys, mx.zeros((rows, self.heads, tokens, self.value_size), self.dtype)


@dataclass(frozen=True, slots=True)
class KVShape:
    """What the caches of a model look like, layer by layer."""

    layers: tuple[LayerShape, ...]

    @property
    def windows(self) -> tuple[int | None, ...]:
        """Per layer its window in tokens, or None."""
        return tuple(layer.window for layer in self.layers)

    def bytes_for(self, tokens: int) -> int:
        """Bytes of key-value memory of one sequence of `tokens` tokens."""
        return sum(
            layer.token_bytes * (tokens if layer.window is None else min(layer.window, tokens))
            for layer in self.layers
        )

    @property
    def growing_token_bytes(self) -> int:
        """Bytes that one more token adds where every window is full."""
        return sum(layer.token_bytes for layer in self.layers if layer.window is None)


def layer_windows(caches: Sequence[Any]) -> tuple[int | None, ...] | None:
    """The windows of `model.make_cache()`'s caches, or None when they hold more than plain KV
    or windows of several sizes."""
    windows: list[int | None] = []
    for cache in caches:
        if type(cache) is KVCache:
            windows.append(None)
        elif type(cache) is RotatingKVCache and cache.keep == 0:
            windows.append(int(cache.max_size))
        else:
            return None
    # The prefix tree keeps one tail for all windowed layers of an edge.
    return tuple(windows) if len({w for w in windows if w is not None}) <= 1 else None


def round_up(n: int, step: int = COLUMN_STEP) -> int:
    """`n` rounded up to a multiple of `step`."""
    return -(-n // step) * step


class PromptKV:
    """One layer's keys and values of one sequence, in the order of its tokens; shape [1, H, T, D].

    Without a window every token is kept, in a buffer of `capacity` tokens made once. With a window
    the last `window` tokens before the newest chunk are kept besides the chunk itself.
    """

    def __init__(self, window: int | None, capacity: int) -> None:
        self.window = window
        self.capacity = capacity
        self.offset = 0
        self.keys: mx.array | None = None
        self.values: mx.array | None = None
        self.angles: Angles = {}

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Append a chunk [1, H, T, D]; return what its queries may attend to."""
        tokens = keys.shape[2]
        self.offset += tokens
        if self.window is None:
            self._write(keys, values, self.offset - tokens)
            assert self.keys is not None
            assert self.values is not None
            return self.keys[..., : self.offset, :], self.values[..., : self.offset, :]
        if self.keys is not None and self.values is not None:
            keep = min(self.keys.shape[2], self.window)
            keys = mx.concatenate([self.keys[..., -keep:, :], keys], axis=2)
            values = mx.concatenate([self.values[..., -keep:, :], values], axis=2)
        self.keys, self.values = keys, values
        return keys, values

    def _write(self, keys: mx.array, values: mx.array, at: int) -> None:
        end = at + keys.shape[2]
        if self.keys is None or self.values is None:
            _, heads, _, size = keys.shape
            self.capacity = max(self.capacity, round_up(end))
            self.keys = mx.zeros((1, heads, self.capacity, size), keys.dtype)
            self.values = mx.zeros((1, heads, self.capacity, values.shape[3]), values.dtype)
        self.keys[..., at:end, :] = keys
        self.values[..., at:end, :] = values

    def make_mask(
        self, tokens: int, return_array: bool = False, window_size: int | None = None
    ) -> mx.array | str | None:
        """mlx-lm's mask for a chunk of `tokens`: "causal" where the kernel can make it itself."""
        if self.window is None:
            before, window = self.offset, window_size
        else:
            before = min(self.offset, self.window)
            window = self.window
        if tokens > 1 and not return_array and (window is None or before + tokens <= window):
            return "causal"
        if tokens == 1 and (window is None or before < window):
            return None
        mask: mx.array = create_causal_mask(tokens, before, window_size=window)
        return mask

    def load(self, segments: Sequence[tuple[mx.array, mx.array]], offset: int) -> None:
        """Start from cached segments, in order, that end at token `offset`."""
        self.offset = offset
        if self.window is None:
            at = 0
            for keys, values in segments:
                self._write(keys, values, at)
                at += keys.shape[2]
        elif segments:
            self.keys = mx.concatenate([k for k, _ in segments], axis=2)
            self.values = mx.concatenate([v for _, v in segments], axis=2)

    def tokens(self, start: int, stop: int) -> tuple[mx.array, mx.array]:
        """Keys and values of tokens [start, stop); a window keeps only the latest of them."""
        assert self.keys is not None
        assert self.values is not None
        first = 0 if self.window is None else self.offset - self.keys.shape[2]
        return (
            self.keys[..., start - first : stop - first, :],
            self.values[..., start - first : stop - first, :],
        )

    def arrays(self) -> list[mx.array]:
        """What must be evaluated before the next chunk."""
        return [] if self.keys is None or self.values is None else [self.keys, self.values]


class StackedKV:
    """One layer's `PromptKV`s of several sequences at the same offset, prefilled as one batch.

    Row i brings `lengths[i]` tokens; shorter rows are padded on the right, where nothing that counts
    can see them, and the padding is not kept.
    """

    def __init__(self, rows: Sequence[PromptKV], lengths: Sequence[int], angles: Angles) -> None:
        self._rows = rows
        self._lengths = lengths
        self.angles = angles
        self.offset = rows[0].offset

    def make_mask(
        self, tokens: int, return_array: bool = False, window_size: int | None = None
    ) -> mx.array | str | None:
        """The rows' own mask; it is the same for all of them."""
        return self._rows[0].make_mask(tokens, return_array, window_size)

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Append [rows, H, T, D], each row to its own; return what the queries may attend to."""
        window, offset = self._rows[0].window, self.offset
        before = offset if window is None else min(offset, window)
        earlier = [row.tokens(offset - before, offset) for row in self._rows] if before else []
        for i, (row, n) in enumerate(zip(self._rows, self._lengths, strict=True)):
            row.update_and_fetch(keys[i : i + 1, :, :n], values[i : i + 1, :, :n])
        if earlier:
            keys = mx.concatenate([mx.concatenate([k for k, _ in earlier]), keys], axis=2)
            values = mx.concatenate([mx.concatenate([v for _, v in earlier]), values], axis=2)
        return keys, values


class RingClock:
    """The write column and the row ages that all layers of one kind (one window) share."""

    def __init__(self, window: int | None, capacity: int) -> None:
        self.window = window
        self.capacity = capacity
        self.column = 0
        self.mask: mx.array | None = None

    def set_mask(self, lengths: Sequence[int]) -> None:
        """For a step that writes one token to each row: row r sees its last `lengths[r] + 1` tokens."""
        if min(lengths) + 1 >= self.capacity:
            self.mask = None
            return
        columns = mx.arange(self.capacity)
        # Age 0 is the column of this step; no wrap-around of unsigned values, so plain modulo.
        ages = (self.column - columns + self.capacity) % self.capacity
        seen = mx.array(list(lengths)) + 1
        self.mask = (ages[None, :] < seen[:, None])[:, None, None, :]

    def columns_before(self, tokens: int) -> list[tuple[int, int]]:
        """The column ranges of the last `tokens` tokens, oldest first; two where the ring wraps."""
        start = self.column - tokens
        if start >= 0:
            return [(start, self.column)] if tokens else []
        ranges = [(start + self.capacity, self.capacity), (0, self.column)]
        return [(a, b) for a, b in ranges if b > a]


class RingKV:
    """One layer's keys and values of a decode batch; shape [rows, H, capacity, D]."""

    def __init__(self, shape: LayerShape, clock: RingClock) -> None:
        self.shape = shape
        self.clock = clock
        self.offset: mx.array | None = None
        self.angles: Angles = {}
        self.keys: mx.array | None = None
        self.values: mx.array | None = None

    def make_mask(
        self, tokens: int, return_array: bool = False, window_size: int | None = None
    ) -> mx.array | None:
        """The mask that `RingClock.set_mask` made for this step."""
        return self.clock.mask

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Write one token a row, [rows, H, 1, D], at the clock's column; return all columns."""
        assert self.keys is not None
        assert self.values is not None
        at = self.clock.column
        self.keys[..., at : at + 1, :] = keys
        self.values[..., at : at + 1, :] = values
        return self.keys, self.values

    def insert(self, row: int, keys: mx.array, values: mx.array) -> None:
        """Put a sequence's tokens [1, H, T, D], T <= capacity, behind the write column of `row`."""
        assert self.keys is not None
        assert self.values is not None
        # What another sequence left there may be NaN, and a weight of 0 does not make that a 0.
        self.keys[row : row + 1] = mx.zeros((), keys.dtype)
        self.values[row : row + 1] = mx.zeros((), values.dtype)
        at = 0
        for a, b in self.clock.columns_before(keys.shape[2]):
            self.keys[row : row + 1, :, a:b, :] = keys[..., at : at + b - a, :]
            self.values[row : row + 1, :, a:b, :] = values[..., at : at + b - a, :]
            at += b - a

    def extract(self, row: int, skip: int, tokens: int) -> tuple[mx.array, mx.array]:
        """A copy of `tokens` tokens of `row`, after leaving out the last `skip`; oldest first."""
        assert self.keys is not None
        assert self.values is not None
        ranges = self.clock.columns_before(tokens + skip)
        keys = mx.concatenate([self.keys[row : row + 1, :, a:b, :] for a, b in ranges], axis=2)
        values = mx.concatenate([self.values[row : row + 1, :, a:b, :] for a, b in ranges], axis=2)
        return mx.contiguous(keys[..., :tokens, :]), mx.contiguous(values[..., :tokens, :])

    def allocate(self, rows: int) -> None:
        """Make an empty ring for `rows` rows."""
        self.keys, self.values = self.shape.empty(rows, self.clock.capacity)

    def take_rows(self, rows: Sequence[int], extra: int) -> None:
        """Keep `rows`, in that order, and add `extra` empty ones."""
        assert self.keys is not None
        assert self.values is not None
        index = mx.array([*rows, *([0] * extra)])
        self.keys = mx.take(self.keys, index, axis=0)
        self.values = mx.take(self.values, index, axis=0)

    def grow(self, capacity: int) -> None:
        """Move to a ring of `capacity` columns, oldest first; the clock restarts at column 0."""
        assert self.keys is not None
        assert self.values is not None
        self.keys = _unrolled(self.keys, self.clock.column, capacity)
        self.values = _unrolled(self.values, self.clock.column, capacity)

    def arrays(self) -> list[mx.array]:
        """What must be evaluated before memory of an earlier step can be reused."""
        return [] if self.keys is None or self.values is None else [self.keys, self.values]


def _unrolled(ring: mx.array, column: int, capacity: int) -> mx.array:
    rows, heads, old, size = ring.shape
    empty = mx.zeros((rows, heads, capacity - old, size), ring.dtype)
    return mx.concatenate([empty, ring[..., column:, :], ring[..., :column, :]], axis=2)
