"""Writes trained weights as the folder that mlx-lm and Hugging Face read as Gemma 3."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

from models.demo.language.network import Shape, Weights
from models.demo.language.tokenizer import BOS, END_OF_TURN, EOS, PAD, write_tokenizer


def export(folder: Path, weights: Weights, tokenizer: Tokenizer, shape: Shape) -> int:
    """Write every file of the model into `folder`; each is replaced whole. Returns its bytes.

    A reader of the folder sees an old or a new file, never half of one.
    """
    fresh = folder.with_name(folder.name + ".new")
    fresh.mkdir(parents=True, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    whole = {name: value.detach().to(torch.float32).contiguous() for name, value in weights.items()}
    save_file(whole, str(fresh / "model.safetensors"), metadata={"format": "pt"})
    (fresh / "model.safetensors").chmod(0o644)
    write_tokenizer(tokenizer, fresh)
    _write_json(fresh / "config.json", config_of(shape))
    _write_json(fresh / "generation_config.json", _GENERATION)
    for path in sorted(fresh.iterdir()):
        path.replace(folder / path.name)
    fresh.rmdir()
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())


def config_of(shape: Shape) -> dict[str, object]:
    """config.json as Gemma 3's text model has it."""
    return asdict(shape) | {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "torch_dtype": "float32",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "attn_logit_softcapping": None,
        "final_logit_softcapping": None,
        "bos_token_id": BOS,
        "eos_token_id": [EOS, END_OF_TURN],
        "pad_token_id": PAD,
        "hidden_activation": "gelu_pytorch_tanh",
        "initializer_range": 0.02,
        "query_pre_attn_scalar": shape.head_dim,
        "layer_types": [
            "full_attention" if shape.is_global(layer) else "sliding_attention"
            for layer in range(shape.num_hidden_layers)
        ],
        "rope_scaling": None,
        "tie_word_embeddings": True,
        "use_cache": True,
    }


_GENERATION: dict[str, object] = {
    "bos_token_id": BOS,
    "eos_token_id": [EOS, END_OF_TURN],
    "pad_token_id": PAD,
    "do_sample": False,
    "max_new_tokens": 256,
}


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
