"""Gemma 3 in torch, as functions over a dict of weights that carry Hugging Face's names."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Shape:
    """The sizes of the network, in config.json's words."""

    vocab_size: int = 4096
    hidden_size: int = 192
    num_hidden_layers: int = 6
    num_attention_heads: int = 4
    num_key_value_heads: int = 1
    head_dim: int = 64
    intermediate_size: int = 640
    sliding_window: int = 256
    sliding_window_pattern: int = 6
    rope_theta: float = 1_000_000.0
    rope_local_base_freq: float = 10_000.0
    rms_norm_eps: float = 1e-6
    max_position_embeddings: int = 131_072

    def is_global(self, layer: int) -> bool:
        """Whether the layer sees the whole context, and not the last `sliding_window` tokens."""
        return (layer + 1) % self.sliding_window_pattern == 0


Weights = dict[str, Tensor]


def new_weights(shape: Shape, seed: int) -> Weights:
    """Untrained weights: normal matrices scaled by fan-in, norms at 0, which means times one."""
    generator = torch.Generator().manual_seed(seed)

    def matrix(rows: int, columns: int) -> Tensor:
        return torch.randn(rows, columns, generator=generator) * columns**-0.5

    width, heads = shape.hidden_size, shape.num_attention_heads * shape.head_dim
    keys = shape.num_key_value_heads * shape.head_dim
    weights = {"model.embed_tokens.weight": matrix(shape.vocab_size, width)}
    for layer in range(shape.num_hidden_layers):
        at = f"model.layers.{layer}."
        weights[at + "self_attn.q_proj.weight"] = matrix(heads, width)
        weights[at + "self_attn.k_proj.weight"] = matrix(keys, width)
        weights[at + "self_attn.v_proj.weight"] = matrix(keys, width)
        weights[at + "self_attn.o_proj.weight"] = matrix(width, heads)
        weights[at + "self_attn.q_norm.weight"] = torch.zeros(shape.head_dim)
        weights[at + "self_attn.k_norm.weight"] = torch.zeros(shape.head_dim)
        weights[at + "mlp.gate_proj.weight"] = matrix(shape.intermediate_size, width)
        weights[at + "mlp.up_proj.weight"] = matrix(shape.intermediate_size, width)
        weights[at + "mlp.down_proj.weight"] = matrix(width, shape.intermediate_size)
        for norm in ("input", "post_attention", "pre_feedforward", "post_feedforward"):
            weights[f"{at}{norm}_layernorm.weight"] = torch.zeros(width)
    weights["model.norm.weight"] = torch.zeros(width)
    return weights


def hidden_states(weights: Weights, tokens: Tensor, shape: Shape) -> Tensor:
    """Final normed states (batch, length, hidden_size) of `tokens` (batch, length), bos first."""
    length = tokens.shape[1]
    # mlx and Hugging Face round this factor to bfloat16.
    scale = torch.tensor(shape.hidden_size**0.5).bfloat16().float().item()
    state = functional.embedding(tokens, weights["model.embed_tokens.weight"]) * scale
    turns = {
        True: _rotations(length, shape.head_dim, shape.rope_theta),
        False: _rotations(length, shape.head_dim, shape.rope_local_base_freq),
    }
    masks = {
        True: _mask(length, length),
        False: _mask(length, shape.sliding_window),
    }
    for layer in range(shape.num_hidden_layers):
        everywhere = shape.is_global(layer)
        at = f"model.layers.{layer}."
        state = _block(weights, at, state, turns[everywhere], masks[everywhere], shape)
    return _rms_norm(state, weights["model.norm.weight"], shape.rms_norm_eps)


def logits(weights: Weights, states: Tensor) -> Tensor:
    """Next-token logits (..., vocab_size) of `states` (..., hidden_size); the head is tied."""
    return functional.linear(states, weights["model.embed_tokens.weight"])


def _block(
    weights: Weights,
    at: str,
    state: Tensor,
    turn: tuple[Tensor, Tensor],
    mask: Tensor,
    shape: Shape,
) -> Tensor:
    def norm(name: str, value: Tensor) -> Tensor:
        return _rms_norm(value, weights[f"{at}{name}.weight"], shape.rms_norm_eps)

    def linear(name: str, value: Tensor) -> Tensor:
        return functional.linear(value, weights[f"{at}{name}.weight"])

    batch, length, _ = state.shape
    inside = norm("input_layernorm", state)
    query = linear("self_attn.q_proj", inside).view(batch, length, -1, shape.head_dim)
    key = linear("self_attn.k_proj", inside).view(batch, length, -1, shape.head_dim)
    value = linear("self_attn.v_proj", inside).view(batch, length, -1, shape.head_dim)
    query = _rotate(norm("self_attn.q_norm", query).transpose(1, 2), turn)
    key = _rotate(norm("self_attn.k_norm", key).transpose(1, 2), turn)
    mixed = _attention(query, key, value.transpose(1, 2), mask, shape)
    mixed = linear("self_attn.o_proj", mixed.transpose(1, 2).reshape(batch, length, -1))
    state = state + norm("post_attention_layernorm", mixed)
    inside = norm("pre_feedforward_layernorm", state)
    gate = functional.gelu(linear("mlp.gate_proj", inside), approximate="tanh")
    out = linear("mlp.down_proj", gate * linear("mlp.up_proj", inside))
    return state + norm("post_feedforward_layernorm", out)


def _rms_norm(value: Tensor, weight: Tensor, eps: float) -> Tensor:
    return functional.rms_norm(value.float(), (value.shape[-1],), 1.0 + weight, eps)


def _rotations(length: int, head_dim: int, base: float) -> tuple[Tensor, Tensor]:
    rates = base ** (-torch.arange(0, head_dim, 2).float() / head_dim)
    angles = torch.outer(torch.arange(length).float(), rates).repeat(1, 2)
    return angles.cos(), angles.sin()


def _rotate(value: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    left, right = value.chunk(2, dim=-1)
    return value * turn[0] + torch.cat((-right, left), dim=-1) * turn[1]


def _attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, shape: Shape) -> Tensor:
    """Heads (batch, heads, length, head_dim) that share their keys and values by groups.

    Written out, because for short rows on a CPU torch's fused attention takes ten times as long.
    """
    batch, heads, length, size = query.shape
    groups = shape.num_key_value_heads
    together = (query * size**-0.5).reshape(batch, groups, -1, size)
    scores = (together @ key.transpose(-1, -2)).float().view(batch, heads, length, length)
    shares = (scores + mask).softmax(-1).reshape(batch, groups, -1, length)
    return (shares @ value.to(shares.dtype)).view(batch, heads, length, size)


def _mask(length: int, window: int) -> Tensor:
    """0 where a token may look, itself and the `window` - 1 before it, else minus infinity."""
    place = torch.arange(length)
    distance = place[:, None] - place[None, :]
    return torch.zeros(length, length).masked_fill(
        (distance < 0) | (distance >= window), -torch.inf
    )
