"""The prefix cache: key-values of earlier prompts and answers, in a tree over their tokens.

Every edge holds the key-values of its own tokens once, however many conversations pass through it. For
layers with a sliding window only the last `window` tokens of an edge are kept: a sequence can be resumed
at a position when the window before it can be read off the path. Least recently used leaves go first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from models.kv import KVShape, PromptKV

Tokens = NDArray[np.int32]
Pair = tuple[mx.array, mx.array]
# (layer, start, stop) -> keys and values of those tokens, shape [1, H, stop - start, D].
Source = Callable[[int, int, int], Pair]


@dataclass(eq=False, slots=True)
class Edge:
    """Tokens [start, stop) of a path, their key-values, and the edges that go on from there.

    `tail` says how many of the last tokens the windowed layers hold (all of them for `full` layers).
    """

    tokens: Tokens
    start: int
    parent: Edge | None
    layers: list[Pair] = field(default_factory=list)
    tail: int = 0
    children: dict[int, Edge] = field(default_factory=dict)
    used: int = 0

    @property
    def stop(self) -> int:
        return self.start + len(self.tokens)

    @property
    def nbytes(self) -> int:
        return sum(k.nbytes + v.nbytes for k, v in self.layers)

    def path(self) -> Iterator[Edge]:
        """This edge and its ancestors, nearest first, without the root."""
        edge: Edge | None = self
        while edge is not None and edge.parent is not None:
            yield edge
            edge = edge.parent


def common_prefix(a: Tokens, b: Tokens) -> int:
    """How many leading tokens `a` and `b` share."""
    n = min(len(a), len(b))
    different = np.nonzero(a[:n] != b[:n])[0]
    return int(different[0]) if len(different) else n


class PrefixCache:
    """Finds, stores and evicts prefixes for one model. Not thread-safe: the engine thread owns it."""

    def __init__(self, shape: KVShape, capacity_bytes: int) -> None:
        self.shape = shape
        self.window = max((w for w in shape.windows if w is not None), default=0)
        self.capacity_bytes = capacity_bytes
        self.nbytes = 0
        self._root = Edge(np.empty(0, np.int32), 0, None)
        self._tick = 0

    def can_keep(self, tokens: int) -> bool:
        """Whether a sequence of `tokens` tokens has room here at all."""
        return self.shape.bytes_for(tokens) <= self.capacity_bytes

    def match(self, tokens: Tokens) -> tuple[int, int]:
        """(resumable, shared): up to where a sequence can resume, and how much of it is known at all."""
        edge, shared = self._walk(tokens)
        return self._resumable(edge, shared), shared

    def restore(self, tokens: Tokens, stop: int, caches: Sequence[PromptKV]) -> None:
        """Load tokens [0, stop) into `caches`; `stop` is what `match` called resumable."""
        edge, _ = self._walk(tokens[:stop])
        self._touch(edge)
        for layer, (cache, window) in enumerate(zip(caches, self.shape.windows, strict=True)):
            first = 0 if window is None else max(0, stop - window)
            cache.load(self._segments(edge, layer, first, stop), stop)

    def insert(self, tokens: Tokens, source: Source) -> None:
        """Remember `tokens` whole; `source` reads key-values of any range (windowed: the last ones)."""
        if len(tokens) == 0 or not self.can_keep(len(tokens)):
            return
        edge, shared = self._walk(tokens)
        if shared < edge.stop:
            edge = self._split(edge, shared)
        if shared < len(tokens):
            edge = self._append(edge, tokens, shared, source)
        self._complete(edge, source)
        self._touch(edge)
        self._evict()

    def clear(self) -> None:
        """Forget everything."""
        self._root = Edge(np.empty(0, np.int32), 0, None)
        self.nbytes = 0

    def _walk(self, tokens: Tokens) -> tuple[Edge, int]:
        """The last edge on the path of `tokens` that shares a token with them, and the shared length."""
        edge, at = self._root, 0
        while at < len(tokens):
            child = edge.children.get(int(tokens[at]))
            if child is None:
                break
            shared = common_prefix(child.tokens, tokens[at:])
            edge, at = child, at + shared
            if shared < len(child.tokens):
                break
        return edge, at

    def _resumable(self, edge: Edge, position: int) -> int:
        for candidate in edge.path():
            at = min(position, candidate.stop)
            if self._covers(candidate, at):
                return at
        return 0

    def _covers(self, edge: Edge, position: int) -> bool:
        """Whether windowed key-values of the window before `position` lie on the path."""
        first = max(0, position - self.window)
        for part in edge.path():
            if self.window and max(part.start, first) < part.stop - part.tail:
                return False
            if part.start <= first:
                return True
        return True

    def _segments(self, edge: Edge, layer: int, first: int, stop: int) -> list[Pair]:
        pairs: list[Pair] = []
        for part in edge.path():
            if part.stop <= first:
                break
            keys, values = part.layers[layer]
            held = part.stop - keys.shape[2]
            a, b = max(first, part.start) - held, min(stop, part.stop) - held
            pairs.append((keys[..., a:b, :], values[..., a:b, :]))
        return pairs[::-1]

    def _append(self, parent: Edge, tokens: Tokens, at: int, source: Source) -> Edge:
        edge = Edge(tokens[at:].copy(), at, parent)
        edge.tail = min(len(edge.tokens), self.window)
        for layer, window in enumerate(self.shape.windows):
            kept = len(edge.tokens) if window is None else min(len(edge.tokens), self.window)
            edge.layers.append(_copied(source(layer, edge.stop - kept, edge.stop)))
        mx.async_eval(edge.layers)
        parent.children[int(edge.tokens[0])] = edge
        self.nbytes += edge.nbytes
        return edge

    def _complete(self, edge: Edge, source: Source) -> None:
        """Make `edge.stop` resumable: fill the tails that a split left short of the window."""
        first = max(0, edge.stop - self.window)
        for part in edge.path():
            tail = part.stop - max(part.start, first)
            if part.tail < tail:
                self.nbytes -= part.nbytes
                part.tail = tail
                for layer, window in enumerate(self.shape.windows):
                    if window is not None:
                        kept = min(tail, max(0, window - (edge.stop - part.stop)))
                        part.layers[layer] = _copied(source(layer, part.stop - kept, part.stop))
                mx.async_eval(part.layers)
                self.nbytes += part.nbytes
            if part.start <= first:
                break

    def _split(self, edge: Edge, position: int) -> Edge:
        """Cut `edge` at `position`; the upper part takes its place, the lower part hangs below."""
        assert edge.parent is not None
        self.nbytes -= edge.nbytes
        cut = position - edge.start
        upper = Edge(edge.tokens[:cut].copy(), edge.start, edge.parent, used=edge.used)
        lower_tail = min(edge.tail, len(edge.tokens) - cut)
        upper.tail = edge.tail - lower_tail
        for layer, (keys, values) in enumerate(edge.layers):
            kept = len(edge.tokens) - cut
            if self.shape.windows[layer] is not None:
                kept = lower_tail
            at = keys.shape[2] - kept
            upper.layers.append(_copied((keys[..., :at, :], values[..., :at, :])))
            edge.layers[layer] = _copied((keys[..., at:, :], values[..., at:, :]))
        mx.async_eval(upper.layers, edge.layers)
        edge.parent.children[int(upper.tokens[0])] = upper
        edge.tokens, edge.start, edge.tail = edge.tokens[cut:].copy(), position, lower_tail
        edge.parent = upper
        upper.children[int(edge.tokens[0])] = edge
        self.nbytes += upper.nbytes + edge.nbytes
        return upper

    def _touch(self, edge: Edge) -> None:
        self._tick += 1
        for part in edge.path():
            part.used = self._tick

    def _evict(self) -> None:
        while self.nbytes > self.capacity_bytes:
            leaf = min(self._leaves(), key=lambda edge: edge.used)
            assert leaf.parent is not None
            del leaf.parent.children[int(leaf.tokens[0])]
            self.nbytes -= leaf.nbytes

    def _leaves(self) -> Iterator[Edge]:
        stack = list(self._root.children.values())
        while stack:
            edge = stack.pop()
            if edge.children:
                stack.extend(edge.children.values())
            else:
                yield edge


def _copied(pair: Pair) -> Pair:
    """A copy of its own, so that a slice does not keep its whole source alive."""
    return mx.contiguous(pair[0], False), mx.contiguous(pair[1], False)
