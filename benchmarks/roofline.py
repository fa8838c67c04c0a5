"""What a machine can hold and serve at best: memory against capacity, bytes against bandwidth,
operations against arithmetic. Ceilings, not forecasts."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.shapes import Shape

GROUP = 64
SCALE_BITS = 32
KV_BYTES = 2


@dataclass(frozen=True, slots=True)
class Chip:
    """A machine's limits. `bandwidth_gb_s` is in 10^9 bytes a second, `tflops` at 16 bit, dense."""

    name: str
    bandwidth_gb_s: float
    tflops: float
    tflops_source: str
    budget_gb: float


M3_ULTRA = Chip(
    name="M3 Ultra, 80 GPU cores",
    bandwidth_gb_s=819.0,
    tflops=28.3,
    tflops_source=(
        "an assumption (Apple publishes none): 80 GPU cores x 128 lanes x 2 operations x 1.38 GHz"
    ),
    budget_gb=300.0,
)


def bytes_per_weight(bits: int) -> float:
    """16 bit: 2 bytes. 8 and 4 bit (MLX affine): and a 16-bit scale and bias for each 64 weights,
    so bits/8 x (1 + 32 / (64 x bits))."""
    if bits not in (4, 8, 16, 32):
        raise ValueError(f"precision is 4, 8, 16 or 32 bit, not {bits}")
    overhead = SCALE_BITS / GROUP if bits < 16 else 0.0
    return (bits + overhead) / 8


def weights_bytes(shape: Shape, bits: int) -> float:
    """parameters x bytes_per_weight."""
    return shape.parameters * bytes_per_weight(bits)


def kv_bytes_per_token(shape: Shape) -> int:
    """Bytes by which one more token of context grows the cache: global layers x 2 (key and value)
    x kv_heads x head_dim x 2 bytes."""
    return shape.global_layers * _kv_bytes_per_layer_token(shape)


def kv_fixed_bytes(shape: Shape, context: int) -> int:
    """Bytes of the sliding layers, which stop growing at the window: sliding layers x
    min(context, window) x 2 x kv_heads x head_dim x 2 bytes."""
    tokens = min(context, shape.window) if shape.window else 0
    return shape.sliding_layers * tokens * _kv_bytes_per_layer_token(shape)


def kv_bytes(shape: Shape, context: int) -> int:
    """KV bytes of one sequence of `context` tokens: what grows and what is fixed."""
    return context * kv_bytes_per_token(shape) + kv_fixed_bytes(shape, context)


def users_that_fit(shape: Shape, bits: int, context: int, chip: Chip) -> int:
    """(budget - weights) / KV of one user, rounded down; 0 when the weights alone do not fit."""
    left = chip.budget_gb * 1e9 - weights_bytes(shape, bits)
    return max(0, int(left // kv_bytes(shape, context)))


def decode_tokens_per_s(shape: Shape, bits: int, context: int, users: int, chip: Chip) -> float:
    """Ceiling of all users together. One step reads the weights once and each user's KV once, and
    multiplies each user's token: step = max((weights + users x KV) / bandwidth, users x operations
    / arithmetic), tokens/s = users / step."""
    read = weights_bytes(shape, bits) + users * kv_bytes(shape, context)
    by_bandwidth_s = read / (chip.bandwidth_gb_s * 1e9)
    by_arithmetic_s = users * token_flops(shape, context) / (chip.tflops * 1e12)
    return users / max(by_bandwidth_s, by_arithmetic_s)


def token_flops(shape: Shape, context: int) -> float:
    """Operations for one decoded token: 2 a weight (output layer included), and 4 x heads x
    head_dim for each position that its attention sees (scores and values)."""
    return 2.0 * shape.parameters + _attention_flops(shape, context, context)


def prefill_tokens_per_s(shape: Shape, context: int, chip: Chip) -> float:
    """Ceiling for a prompt of `context` tokens: arithmetic / (2 a layer weight, and attention over
    the positions before each token: context / 2 on average, at most the window when sliding)."""
    per_token = 2.0 * shape.matrix_parameters + _attention_flops(shape, context / 2, context)
    return chip.tflops * 1e12 / per_token


def _attention_flops(shape: Shape, seen: float, context: int) -> float:
    sliding_seen = min(context, shape.window) if shape.window else 0
    positions = shape.global_layers * seen + shape.sliding_layers * min(seen, sliding_seen)
    return 4.0 * shape.heads * shape.head_dim * positions


def _kv_bytes_per_layer_token(shape: Shape) -> int:
    return 2 * shape.kv_heads * shape.head_dim * KV_BYTES
