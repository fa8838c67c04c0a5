"""Loads an mlx-lm model folder or a pinned hub repository, and says what it is."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx_lm.utils
from mlx.utils import tree_flatten, tree_map
from mlx_lm.models.cache import make_prompt_cache

from models import gemma3_cpu
from models.errors import ModelLoadError
from models.kv import KVShape, LayerShape, PromptKV, layer_windows
from models.text import ChatTokenizer

_DTYPES = {"float32": mx.float32, "float16": mx.float16, "bfloat16": mx.bfloat16}


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model ready to run on the thread that loaded it.

    `kv` is None where the architecture keeps more than plain key-values (its sequences then decode one
    by one, with their own caches). `weights_sha256` covers the safetensors files in name order.
    """

    network: Any
    tokenizer: ChatTokenizer
    kv: KVShape | None
    vocabulary: int
    context_length: int
    weights_bytes: int
    weights_sha256: str


def load(path: str, revision: str | None = None, dtype: str | None = None) -> LoadedModel:
    """Load from a folder, or from the hub repository `path` at the commit `revision`.

    Raises ModelLoadError naming the path when a file is missing, unreadable or does not fit.
    """
    if not Path(path).is_dir() and revision is None:
        raise ModelLoadError(f"{path}: no such folder, and no revision that would pin a repository")
    try:
        folder = Path(mlx_lm.utils._download(path, revision=revision))
        network, config = mlx_lm.utils.load_model(folder, lazy=True)
        wrapper = mlx_lm.utils.load_tokenizer(folder, eos_token_ids=config.get("eos_token_id"))
        if dtype is not None:
            network.update(tree_map(_caster(_DTYPES[dtype]), network.parameters()))
        mx.eval(network.parameters())
        gemma3_cpu.install(network)
        probed = _probe(network)
    except Exception as error:
        raise ModelLoadError(f"{path}: {type(error).__name__}: {error}") from error
    tokens = len(wrapper._tokenizer)
    # Without its file a tokenizer loads all the same, with nothing but its special tokens.
    if 2 * tokens < probed[1]:
        raise ModelLoadError(f"{path}: the tokenizer has {tokens} tokens, the network {probed[1]}")
    tokenizer = ChatTokenizer(wrapper._tokenizer, sorted(wrapper.eos_token_ids))
    return LoadedModel(
        network=network,
        tokenizer=tokenizer,
        kv=probed[0],
        vocabulary=probed[1],
        context_length=_context_length(config),
        weights_bytes=sum(array.nbytes for _, array in tree_flatten(network.parameters())),
        weights_sha256=weights_sha256(folder),
    )


def weights_sha256(folder: Path) -> str:
    """SHA-256 over the safetensors files of `folder`, in the order of their names."""
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def make_caches(network: Any) -> list[Any]:
    """The architecture's own caches, as mlx-lm makes them."""
    return list(make_prompt_cache(network))


def _caster(dtype: mx.Dtype) -> Any:
    return lambda array: array.astype(dtype) if mx.issubdtype(array.dtype, mx.floating) else array


def _probe(network: Any) -> tuple[KVShape | None, int]:
    """Run one token to learn the cache layout and the vocabulary from the arrays themselves."""
    caches = make_caches(network)
    windows = layer_windows(caches)
    probes: Sequence[Any] = caches if windows is None else [PromptKV(w, 1) for w in windows]
    logits = network(mx.array([[0]]), cache=probes)
    mx.eval(logits)
    if windows is None:
        return None, int(logits.shape[-1])
    pairs = [cache.tokens(0, 1) for cache in probes]
    layers = tuple(
        LayerShape(window, k.shape[1], k.shape[3], v.shape[3], k.dtype)
        for window, (k, v) in zip(windows, pairs, strict=True)
    )
    return KVShape(layers), int(logits.shape[-1])


def _context_length(config: dict[str, Any]) -> int:
    text = config.get("text_config", config)
    for key in ("max_position_embeddings", "model_max_length", "n_positions", "max_seq_len"):
        if isinstance(text.get(key), int):
            return int(text[key])
    return 8192
