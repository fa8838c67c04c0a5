"""Gemma 3's attention and MLP rewritten for CPUs, where MLX's own spend their time in `exp`.

MLX's CPU back end takes 10 ns for every `exp` and `tanh`; on small models that is half of a decode step.
Here the exponential is a polynomial that `mx.compile` fuses into one vectorised loop, rotary angles are
computed once a step for all layers, and query heads that share keys are multiplied as one matrix. The
results agree with mlx-lm's to float32 rounding. On a GPU none of this is used.
"""

from __future__ import annotations

import math
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx_lm.models import gemma3_text

from models.kv import PromptKV, RingKV

_SCORES_BYTES = 32 * 1024**2  # attention scores held at once, whatever the context
_EXCLUDED = -1e9
_SQUARINGS = 4
_LOWEST = -30.0  # e**x is not told from e**-30, a ten-trillionth, below this


def install(network: Any) -> bool:
    """Swap the classes of a Gemma 3's attention and MLP layers in place; False for other models."""
    text = getattr(network, "language_model", network)
    if mx.default_device().type != mx.DeviceType.cpu or type(text) is not gemma3_text.Model:
        return False
    if any(type(layer.self_attn.rope) is not nn.RoPE for layer in text.layers):
        return False
    for layer in text.layers:
        layer.self_attn.__class__ = CpuAttention
        layer.mlp.__class__ = CpuMLP
    return True


def _exp(x: mx.array) -> mx.array:
    """e**x for x <= 0: Taylor's polynomial of x / 16, squared four times. Within 2e-6 down to -5;
    below that the error stays under 2e-8 of the largest value, 1."""
    f = mx.maximum(x, _LOWEST) * (1.0 / (1 << _SQUARINGS))
    p = f * (1 / 40320) + 1 / 5040
    for factor in (1 / 720, 1 / 120, 1 / 24, 1 / 6, 0.5, 1.0, 1.0):
        p = f * p + factor
    for _ in range(_SQUARINGS):
        p = p * p
    return p


def _gelu_product(gate: mx.array, up: mx.array) -> mx.array:
    """gelu_approx(gate) * up, with tanh written as a logistic function."""
    z = gate * (1.5957691216057308 + 0.07135481282 * (gate * gate))
    e = _exp(-mx.abs(z))
    logistic = 1 / (1 + e)
    return gate * mx.where(z > 0, logistic, e * logistic) * up


def _masked(scores: mx.array, mask: mx.array) -> mx.array:
    return mx.where(mask, scores, _EXCLUDED)


def _weights(scores: mx.array, largest: mx.array) -> mx.array:
    return mx.where(scores > 0.5 * _EXCLUDED, _exp(scores - largest), 0.0)


def _rotated(x: mx.array, cos: mx.array, sin: mx.array) -> mx.array:
    first, second = mx.split(x, 2, axis=-1)
    return mx.concatenate([first * cos - second * sin, first * sin + second * cos], axis=-1)


_gelu_product = mx.compile(_gelu_product, shapeless=True)
_masked = mx.compile(_masked, shapeless=True)
_weights = mx.compile(_weights, shapeless=True)


class CpuMLP(gemma3_text.MLP):  # type: ignore[misc]
    """The gated MLP with one fused loop between its two matrix products."""

    def __call__(self, x: mx.array) -> mx.array:
        """[batch, tokens, hidden] to the same."""
        out: mx.array = self.down_proj(_gelu_product(self.gate_proj(x), self.up_proj(x)))
        return out


class CpuAttention(gemma3_text.Attention):  # type: ignore[misc]
    """Attention over `PromptKV` and `RingKV`; other caches take mlx-lm's way."""

    def __call__(
        self, x: mx.array, mask: mx.array | str | None = None, cache: Any = None
    ) -> mx.array:
        """[batch, tokens, hidden] to the same."""
        if x.dtype != mx.float32 or not isinstance(cache, PromptKV | RingKV):
            plain: mx.array = super().__call__(x, mask, cache)
            return plain
        batch, tokens, _ = x.shape
        cos, sin = self._angles(cache, tokens)
        q = self._heads(self.q_norm, self.q_proj(x), self.n_heads, cos, sin)
        k = self._heads(self.k_norm, self.k_proj(x), self.n_kv_heads, cos, sin)
        v = self.v_proj(x).reshape(batch, tokens, self.n_kv_heads, -1).transpose(0, 2, 1, 3)
        keys, values = cache.update_and_fetch(k, v)
        if isinstance(mask, str):
            mask = _causal(tokens, keys.shape[2])
        out = self._attend(q * self.scale, keys, values, mask)
        projected: mx.array = self.o_proj(out.transpose(0, 2, 1, 3).reshape(batch, tokens, -1))
        return projected

    def _heads(self, norm: Any, x: mx.array, heads: int, cos: mx.array, sin: mx.array) -> mx.array:
        x = norm(x.reshape(*x.shape[:2], heads, -1)).transpose(0, 2, 1, 3)
        return _rotated(x, cos, sin)

    def _angles(self, cache: PromptKV | RingKV, tokens: int) -> tuple[mx.array, mx.array]:
        """cos and sin [batch or 1, 1, tokens, size / 2]; kept for the other layers of this step."""
        rope = self.rope
        key = (rope.base, rope.dims)
        kept = cache.angles.get(key)
        if kept is not None:
            return kept
        half = rope.dims // 2
        # The same operations in the same order as mx.fast.rope's, so that rounding is the same.
        frequencies = mx.exp(mx.arange(0, -half, -1, mx.float32) * (math.log(rope.base) / half))
        offset = cache.offset
        if isinstance(offset, mx.array):
            positions = offset[:, None] + mx.arange(tokens)[None, :]
        else:
            assert offset is not None
            positions = mx.arange(offset, offset + tokens)[None, :]
        theta = (positions.astype(mx.float32) * rope.scale)[..., None] * frequencies
        theta = theta[:, None]
        found = (mx.cos(theta), mx.sin(theta))
        cache.angles[key] = found
        return found

    def _attend(
        self, q: mx.array, keys: mx.array, values: mx.array, mask: mx.array | None
    ) -> mx.array:
        """Softmax attention for q [batch, heads, tokens, size], in blocks of queries."""
        tokens = q.shape[2]
        row_bytes = q.shape[0] * q.shape[1] * keys.shape[2] * 4
        block = max(1, min(tokens, _SCORES_BYTES // row_bytes))
        if block == tokens:
            return self._attend_block(q, keys, values, mask)
        parts = []
        for start in range(0, tokens, block):
            rows = None if mask is None else mask[..., start : start + block, :]
            parts.append(self._attend_block(q[:, :, start : start + block], keys, values, rows))
            # Evaluated here, or every block's scores would be alive at once.
            mx.eval(parts[-1])
        return mx.concatenate(parts, axis=2)

    def _attend_block(
        self, q: mx.array, keys: mx.array, values: mx.array, mask: mx.array | None
    ) -> mx.array:
        batch, heads, tokens, size = q.shape
        shared = self.n_kv_heads
        scores = q.reshape(batch, shared, -1, size) @ keys.swapaxes(-1, -2)
        if mask is not None:
            scores = scores.reshape(batch, heads, tokens, -1)
            scores = _masked(scores, mask).reshape(batch, shared, heads // shared * tokens, -1)
        weights = _weights(scores, mx.max(scores, axis=-1, keepdims=True))
        out = (weights @ values) / mx.sum(weights, axis=-1, keepdims=True)
        return out.reshape(batch, heads, tokens, size)


def _causal(tokens: int, keys: int) -> mx.array:
    """The mask of the last `tokens` of `keys` positions, [tokens, keys]."""
    return mx.arange(keys - tokens, keys)[:, None] >= mx.arange(keys)[None, :]
