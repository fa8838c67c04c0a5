"""The prefix tree against a plain list of everything that was ever stored."""

from __future__ import annotations

import random

import mlx.core as mx
import numpy as np
import pytest

from models.kv import KVShape, LayerShape, PromptKV
from models.prefix import Edge, PrefixCache, Tokens

SHAPE = KVShape(
    (
        LayerShape(7, 1, 2, 2, mx.float32),
        LayerShape(None, 2, 3, 2, mx.float32),
        LayerShape(7, 1, 2, 2, mx.float32),
    )
)


def truth(tokens: Tokens, layer: int, start: int, stop: int) -> tuple[mx.array, mx.array]:
    """Key-values that depend on the layer and on every token up to their own, as real ones do."""
    shape = SHAPE.layers[layer]
    hashes = np.array(
        [hash(tuple(tokens[: i + 1].tolist())) % 9973 + layer for i in range(start, stop)],
        np.float32,
    )
    keys = np.broadcast_to(hashes[None, None, :, None], (1, shape.heads, len(hashes), 1))
    keys = np.repeat(keys, shape.key_size, 3)
    return mx.array(keys), mx.array(-keys[..., : shape.value_size])


def insert(cache: PrefixCache, tokens: Tokens) -> None:
    """Store `tokens` from a sequence that holds, as all do, no more than a window where there is one."""

    def source(layer: int, start: int, stop: int) -> tuple[mx.array, mx.array]:
        window = SHAPE.windows[layer]
        assert 0 <= start <= stop <= len(tokens)
        assert window is None or start >= len(tokens) - window
        return truth(tokens, layer, start, stop)

    cache.insert(tokens, source)


def edges(cache: PrefixCache) -> list[Edge]:
    """Every edge of the tree."""
    found, stack = [], list(cache._root.children.values())
    while stack:
        edge = stack.pop()
        found.append(edge)
        stack += edge.children.values()
    return found


def restored_equals_truth(cache: PrefixCache, tokens: Tokens, stop: int) -> None:
    """Resume at `stop` and compare every array with what was stored."""
    caches = [PromptKV(window, len(tokens)) for window in SHAPE.windows]
    cache.restore(tokens, stop, caches)
    for layer, (got, window) in enumerate(zip(caches, SHAPE.windows, strict=True)):
        assert got.offset == stop
        first = 0 if window is None else max(0, stop - window)
        for ours, theirs in zip(
            got.tokens(first, stop), truth(tokens, layer, first, stop), strict=True
        ):
            assert mx.array_equal(ours, theirs)


def shared(a: Tokens, b: Tokens) -> int:
    """Leading tokens in common, one by one."""
    n = 0
    while n < min(len(a), len(b)) and a[n] == b[n]:
        n += 1
    return n


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("capacity", [10**9, 4000])
def test_what_is_restored_is_what_was_stored(seed: int, capacity: int) -> None:
    rng = random.Random(seed)
    cache = PrefixCache(SHAPE, capacity)
    stored: list[Tokens] = []
    for _ in range(60):
        base = rng.choice(stored) if stored and rng.random() < 0.7 else np.empty(0, np.int32)
        tail = [rng.randrange(3) for _ in range(rng.randrange(1, 20))]
        tokens = np.concatenate([base[: rng.randrange(len(base) + 1)], tail]).astype(np.int32)
        resumable, known = cache.match(tokens)
        longest = max((shared(tokens, other) for other in stored), default=0)
        assert resumable <= known <= longest
        if capacity == 10**9:
            assert known == longest
        if resumable:
            restored_equals_truth(cache, tokens, resumable)
        insert(cache, tokens)
        stored.append(tokens)
        if capacity == 10**9:
            assert cache.match(tokens) == (len(tokens), len(tokens))
        assert cache.nbytes == sum(edge.nbytes for edge in edges(cache)) <= capacity
        for edge in edges(cache):
            assert edge.parent is cache._root or edge.parent in edges(cache)


def test_the_least_recently_used_goes_first() -> None:
    a, b, c = (np.full(10, value, np.int32) for value in (1, 2, 3))
    probe = PrefixCache(SHAPE, 10**9)
    insert(probe, a)
    cache = PrefixCache(SHAPE, probe.nbytes * 2)
    insert(cache, a)
    insert(cache, b)
    cache.restore(a, 10, [PromptKV(window, 10) for window in SHAPE.windows])
    insert(cache, c)
    assert [cache.match(tokens)[0] for tokens in (a, b, c)] == [10, 0, 10]


def test_nothing_is_kept_without_room_or_of_nothing() -> None:
    for capacity, tokens in ((0, np.full(10, 1, np.int32)), (10**6, np.empty(0, np.int32))):
        cache = PrefixCache(SHAPE, capacity)
        insert(cache, tokens)
        assert cache.nbytes == 0
        assert cache.match(tokens) == (0, 0)


def test_clearing_forgets_everything() -> None:
    cache = PrefixCache(SHAPE, 10**6)
    insert(cache, np.arange(9, dtype=np.int32))
    cache.clear()
    assert (cache.nbytes, cache.match(np.arange(9, dtype=np.int32))) == (0, (0, 0))
    insert(cache, np.arange(9, dtype=np.int32))
    assert cache.match(np.arange(9, dtype=np.int32)) == (9, 9)
