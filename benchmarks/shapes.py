"""Transformer shapes, as far as memory and arithmetic need them, read from a `config.json`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Shape:
    """A decoder with grouped attention, some layers of which see only a sliding window.

    Tied embeddings are counted once: the table is read whole at every decode step as the output
    layer, and looked up (not read) as the input layer. Norm weights are left out (below 0.01 %).
    """

    name: str
    hidden: int
    layers: int
    global_layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    window: int
    max_context: int
    tied: bool = True

    @property
    def sliding_layers(self) -> int:
        return self.layers - self.global_layers

    @property
    def layer_parameters(self) -> int:
        """Weights of one layer: q and o (hidden x heads x head_dim), k and v (hidden x kv_heads x
        head_dim), and three matrices of the gated MLP (hidden x intermediate)."""
        attention = 2 * self.hidden * self.head_dim * (self.heads + self.kv_heads)
        return attention + 3 * self.hidden * self.intermediate

    @property
    def matrix_parameters(self) -> int:
        """Weights that every prompt token is multiplied by: the layers, without the embedding."""
        return self.layers * self.layer_parameters

    @property
    def parameters(self) -> int:
        """All weights: the layers and the embedding, which untied models hold twice."""
        return self.matrix_parameters + self.vocabulary * self.hidden * (1 if self.tied else 2)


# google/gemma-3-4b-it and google/gemma-3-27b-it, `text_config` of their config.json, which
# google/medgemma-1.5-4b-it and google/medgemma-27b-text-it share.
MEDGEMMA_4B = Shape(
    name="medgemma-4b",
    hidden=2560,
    layers=34,
    global_layers=5,
    heads=8,
    kv_heads=4,
    head_dim=256,
    intermediate=10240,
    vocabulary=262_208,
    window=1024,
    max_context=131_072,
)
MEDGEMMA_27B = Shape(
    name="medgemma-27b",
    hidden=5376,
    layers=62,
    global_layers=10,
    heads=32,
    kv_heads=16,
    head_dim=128,
    intermediate=21504,
    vocabulary=262_208,
    window=1024,
    max_context=131_072,
)
BUILT_IN = {shape.name: shape for shape in (MEDGEMMA_4B, MEDGEMMA_27B)}


def shape(model: str) -> Shape:
    """A built-in shape by name, or the one of a folder with a `config.json`.

    Raises ValueError naming what the file lacks; FileNotFoundError without a file.
    """
    if model in BUILT_IN:
        return BUILT_IN[model]
    file = Path(model, "config.json")
    content: dict[str, Any] = json.loads(file.read_text())
    config = content.get("text_config", content)
    try:
        return _read(Path(model).name, config)
    except KeyError as error:
        raise ValueError(f"{file} lacks {error}") from error


def _read(name: str, config: dict[str, Any]) -> Shape:
    layers = int(config["num_hidden_layers"])
    heads = int(config["num_attention_heads"])
    window = config.get("sliding_window") or 0
    return Shape(
        name=name,
        hidden=int(config["hidden_size"]),
        layers=layers,
        global_layers=_global_layers(config, layers) if window else layers,
        heads=heads,
        kv_heads=int(config.get("num_key_value_heads") or heads),
        head_dim=int(config.get("head_dim") or config["hidden_size"] // heads),
        intermediate=int(config["intermediate_size"]),
        vocabulary=int(config["vocab_size"]),
        window=int(window),
        max_context=int(config["max_position_embeddings"]),
        tied=bool(config.get("tie_word_embeddings", True)),
    )


def _global_layers(config: dict[str, Any], layers: int) -> int:
    """Gemma 3 names each layer's kind, or says that every so many-th layer is global."""
    if kinds := config.get("layer_types"):
        return sum(kind == "full_attention" for kind in kinds)
    pattern = config.get("sliding_window_pattern") or config.get("_sliding_window_pattern")
    return layers // int(pattern) if pattern else layers
