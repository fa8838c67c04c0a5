"""Rings and prompt caches hold exactly the tokens that attention may see."""

from __future__ import annotations

import random

import mlx.core as mx
import numpy as np
import pytest

from models.kv import KVShape, LayerShape, PromptKV, RingClock, RingKV, StackedKV, layer_windows
from models.loading import LoadedModel

Pair = tuple[mx.array, mx.array]


def pair(values: list[float]) -> Pair:
    """Keys [1, 1, T, 1] of `values`, and values of their negatives."""
    keys = mx.array(values, mx.float32)[None, None, :, None]
    return keys, -keys


def plain(array: mx.array) -> list[float]:
    """The numbers of an array."""
    return [float(x) for x in np.array(array).ravel()]


@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("seed", range(3))
def test_a_prompt_cache_returns_and_masks_as_attention_needs(window: int | None, seed: int) -> None:
    rng = random.Random(seed)
    cache = PromptKV(window, 4)
    at = 0
    while at < 40:
        tokens = rng.choice([1, 1, 2, 6, 11])
        mask = cache.make_mask(tokens, return_array=True)
        keys, values = cache.update_and_fetch(*pair([float(i) for i in range(at, at + tokens)]))
        columns = plain(keys)
        assert plain(values) == [-x for x in columns]
        allowed = np.ones((tokens, len(columns)), bool) if mask is None else np.array(mask)
        for query in range(tokens):
            seen = [x for x, ok in zip(columns, allowed[query], strict=True) if ok]
            last = at + query
            first = 0 if window is None else max(0, last - window + 1)
            assert seen == [float(i) for i in range(first, last + 1)]
        at += tokens
        assert cache.offset == at
        newest = cache.tokens(max(0, at - 3), at)[0]
        assert plain(newest) == [float(i) for i in range(max(0, at - 3), at)]


@pytest.mark.parametrize("window", [None, 6])
def test_stacked_prompts_are_each_what_they_are_alone(window: int | None) -> None:
    alone = [PromptKV(window, 30) for _ in range(3)]
    together = [PromptKV(window, 30) for _ in range(3)]
    for row in range(3):
        for cache in (alone[row], together[row]):
            cache.update_and_fetch(*pair([100.0 * row + i for i in range(9)]))
    lengths = [4, 2, 1]
    new = mx.array([[100.0 * row + 9 + i for i in range(4)] for row in range(3)])[:, None, :, None]
    stack = StackedKV(together, lengths, {})
    keys, _ = stack.update_and_fetch(new, -new)
    assert stack.make_mask(4) is not None
    for row, n in enumerate(lengths):
        expected, _ = alone[row].update_and_fetch(
            new[row : row + 1, :, :n], -new[row : row + 1, :, :n]
        )
        assert together[row].offset == 9 + n
        assert plain(together[row].tokens(9 - 5, 9 + n)[0]) == plain(
            alone[row].tokens(9 - 5, 9 + n)[0]
        )
        assert plain(keys[row])[: expected.shape[2]] == plain(expected)


def seen(ring: RingKV, rows: int) -> list[list[float]]:
    """What each row may attend to, in no order."""
    assert ring.keys is not None
    keys = np.array(ring.keys)[:, 0, :, 0]
    mask = ring.clock.mask
    allowed = (
        np.ones((rows, ring.clock.capacity), bool) if mask is None else np.array(mask)[:, 0, 0]
    )
    return [sorted(float(x) for x in keys[row][allowed[row]]) for row in range(rows)]


@pytest.mark.parametrize("window", [None, 6])
@pytest.mark.parametrize("seed", range(4))
def test_a_ring_shows_every_row_its_own_latest_tokens(window: int | None, seed: int) -> None:
    rng = random.Random(seed)
    capacity = 12 if window is None else window
    ring = RingKV(LayerShape(window, 1, 1, 1, mx.float32), RingClock(window, capacity))
    ring.allocate(3)
    held: list[list[float]] = [[], [], []]
    for step in range(80):
        clock = ring.clock
        row = rng.randrange(3)
        if rng.random() < 0.2:
            tokens = [1000.0 * step + i for i in range(rng.randrange(0, 5))]
            held[row] = tokens
            if tokens:
                ring.insert(row, *pair(tokens))
        elif rng.random() < 0.1:
            held[row] = []
        if window is None and max(map(len, held)) + 1 > clock.capacity:
            ring.grow(clock.capacity + 8)
            clock.capacity, clock.column = clock.capacity + 8, 0
        clock.set_mask([len(h) for h in held])
        new = [1000.0 * step + 500 + r for r in range(3)]
        keys = mx.array(new)[:, None, None, None]
        ring.update_and_fetch(keys, -keys)
        shown = seen(ring, 3)
        for r in range(3):
            assert shown[r] == sorted([*held[r], new[r]][-clock.capacity :])
            if held[r]:
                held[r].append(new[r])
        clock.column = (clock.column + 1) % clock.capacity
        kept = min(len(held[row]), clock.capacity)
        if kept:
            assert plain(ring.extract(row, 0, kept)[0]) == held[row][-kept:]
        if kept > 2:
            assert plain(ring.extract(row, 2, kept - 2)[1]) == [-x for x in held[row][-kept:-2]]


def test_what_a_row_held_before_does_not_reach_its_next_sequence() -> None:
    ring = RingKV(LayerShape(None, 1, 1, 1, mx.float32), RingClock(None, 8))
    ring.allocate(2)
    ring.insert(1, *pair([float("nan")] * 5))
    ring.insert(1, *pair([1.0, 2.0]))
    assert ring.keys is not None
    assert not bool(mx.any(mx.isnan(ring.keys)))


def test_rows_are_kept_in_order_when_a_ring_is_resized() -> None:
    ring = RingKV(LayerShape(None, 1, 1, 1, mx.float32), RingClock(None, 4))
    ring.allocate(3)
    ring.clock.column = 1
    for row in range(3):
        ring.insert(row, *pair([float(row)]))
    ring.take_rows([2, 0], extra=1)
    assert [plain(ring.extract(row, 0, 1)[0]) for row in range(2)] == [[2.0], [0.0]]
    assert ring.keys is not None
    assert ring.keys.shape[0] == 3


def test_bytes_count_windows_once_they_are_full(model: LoadedModel) -> None:
    shape = KVShape(
        (LayerShape(10, 2, 4, 4, mx.float16), LayerShape(None, 1, 8, 4, mx.float32)),
    )
    assert shape.bytes_for(4) == 4 * (2 * 8 * 2) + 4 * 12 * 4
    assert shape.bytes_for(100) == 10 * (2 * 8 * 2) + 100 * 12 * 4
    assert shape.growing_token_bytes == 48
    assert model.kv is not None
    assert model.kv.windows == (24, 24, 24, 24, 24, None)


def test_caches_that_hold_more_than_key_values_have_no_windows() -> None:
    from mlx_lm.models.cache import ArraysCache, KVCache, RotatingKVCache

    assert layer_windows([KVCache(), RotatingKVCache(max_size=9)]) == (None, 9)
    assert layer_windows([RotatingKVCache(max_size=9), RotatingKVCache(max_size=4)]) is None
    assert layer_windows([KVCache(), ArraysCache(2)]) is None
    assert layer_windows([RotatingKVCache(max_size=9, keep=4)]) is None
