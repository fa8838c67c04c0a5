"""Small model folders with random weights, made in a second: the engine's test subjects."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.models.gemma3_text import Model, ModelArgs

DEMO = Path(__file__).parents[2] / "models" / "weights" / "gemma3-demo"
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "generation_config.json",
)


def make_gemma(
    folder: Path, *, window: int = 24, layers: int = 6, seed: int = 0, **config: object
) -> Path:
    """Write a Gemma 3 of two kilobytes a token to `folder`, with the demo model's tokenizer."""
    values = json.loads((DEMO / "config.json").read_text()) | {
        "hidden_size": 64,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "query_pre_attn_scalar": 16,
        "intermediate_size": 96,
        "sliding_window": window,
        "layer_types": None,
        **config,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(values))
    for name in TOKENIZER_FILES:
        shutil.copy(DEMO / name, folder / name)
    mx.random.seed(seed)
    model = Model(ModelArgs.from_dict(values))
    # Larger than a fresh initialisation, so that the two best logits are seldom close.
    weights = {
        name: mx.random.normal(array.shape) * (0.25 if array.ndim > 1 else 0.1)
        for name, array in tree_flatten(model.parameters())
        if name != "lm_head.weight"
    }
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "pt"})
    return folder


def make_other(folder: Path, model_type: str, **config: object) -> Path:
    """Write a model of another architecture of mlx-lm to `folder`, with the demo's tokenizer."""
    values = {"model_type": model_type, "vocab_size": 4096, "eos_token_id": [1, 5], **config}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(values))
    for name in TOKENIZER_FILES:
        shutil.copy(DEMO / name, folder / name)
    mx.random.seed(1)
    module = importlib.import_module(f"mlx_lm.models.{model_type}")
    model = module.Model(module.ModelArgs.from_dict(values))
    weights = {
        name: array * 4 if name.endswith("embeddings.weight") or "proj" in name else array
        for name, array in tree_flatten(model.parameters())
    }
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "pt"})
    return folder
