"""The CPU's attention and MLP give mlx-lm's results to float32 rounding."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx_lm
import numpy as np
import pytest
from mlx_lm.models.cache import make_prompt_cache

from models import gemma3_cpu
from models.kv import PromptKV
from models.loading import LoadedModel, load
from tests.models.gemma import make_other
from tests.models.test_architectures import LLAMA

TOLERANCE = 2e-4


@pytest.fixture(scope="module")
def plain(folder: Path) -> Any:
    """The tiny model with mlx-lm's own layers."""
    return mlx_lm.load(str(folder))[0]


def caches_of(model: LoadedModel) -> list[PromptKV]:
    """The engine's caches, sharing their angles as the engine's do."""
    assert model.kv is not None
    return [PromptKV(window, 300) for window in model.kv.windows]


@pytest.mark.parametrize("scores_bytes", [32 * 1024**2, 4 * 4 * 100 * 7])
@pytest.mark.parametrize("chunks", [(90,), (1,) * 40, (30, 1, 40, 2, 24)])
def test_logits_are_mlx_lms_whatever_the_chunks_and_blocks(
    model: LoadedModel,
    plain: Any,
    chunks: tuple[int, ...],
    scores_bytes: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gemma3_cpu, "_SCORES_BYTES", scores_bytes)
    tokens = mx.random.randint(6, 4096, (1, sum(chunks)), key=mx.random.key(3))
    theirs = plain(tokens, cache=make_prompt_cache(plain))
    caches, at, parts = caches_of(model), 0, []
    for n in chunks:
        for cache in caches:
            cache.angles = {}
        parts.append(model.network(tokens[:, at : at + n], cache=caches))
        at += n
    ours = mx.concatenate(parts, axis=1)
    scale = float(np.abs(np.array(theirs)).max())
    assert float(np.abs(np.array(ours - theirs)).max()) < TOLERANCE * scale


def test_the_exponential_is_within_its_stated_error() -> None:
    x = np.linspace(-40, 0, 100_001, dtype=np.float32)
    ours, exact = np.array(gemma3_cpu._exp(mx.array(x))), np.exp(x.astype(np.float64))
    near = x >= -5
    assert np.max(np.abs(ours[near] / exact[near] - 1)) < 2e-6
    assert np.max(np.abs(ours[~near] - exact[~near])) < 2e-8


def test_the_gated_product_is_gelus() -> None:
    gate = mx.linspace(-12, 12, 4001)
    up = mx.random.normal((4001,), key=mx.random.key(0))
    g = np.array(gate, np.float64)
    z = np.sqrt(2 / np.pi) * (g + 0.044715 * g**3)
    exact = 0.5 * g * (1 + np.tanh(z)) * np.array(up, np.float64)
    assert np.allclose(np.array(gemma3_cpu._gelu_product(gate, up)), exact, atol=3e-5)


def test_masked_scores_weigh_nothing_even_where_all_are_low() -> None:
    scores = mx.array([[-80.0, -90.0, gemma3_cpu._EXCLUDED]])
    weights = np.array(gemma3_cpu._weights(scores, mx.max(scores, axis=-1, keepdims=True)))
    assert weights[0, 0] == pytest.approx(1.0)
    assert weights[0, 2] == 0.0


def test_other_caches_and_other_numbers_take_mlx_lms_way(
    folder: Path, plain: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = mx.random.randint(6, 4096, (1, 50), key=mx.random.key(4))
    ours = load(str(folder))
    theirs = plain(tokens, cache=make_prompt_cache(plain))
    assert (
        float(mx.max(mx.abs(ours.network(tokens, cache=make_prompt_cache(plain)) - theirs))) < 0.05
    )
    calls: list[Any] = []
    attend = gemma3_cpu.CpuAttention._attend

    def counted(self: gemma3_cpu.CpuAttention, *arguments: Any) -> mx.array:
        calls.append(arguments)
        return attend(self, *arguments)

    monkeypatch.setattr(gemma3_cpu.CpuAttention, "_attend", counted)
    half = load(str(folder), dtype="bfloat16")
    half.network(tokens, cache=caches_of(half))
    ours.network(tokens, cache=make_prompt_cache(plain))
    assert calls == []
    ours.network(tokens, cache=caches_of(ours))
    assert len(calls) == 6


def test_only_gemma_3_is_changed(folder: Path, tmp_path: Path, plain: Any) -> None:
    other = load(str(make_other(tmp_path / "llama", "llama", **LLAMA)))
    assert not gemma3_cpu.install(other.network)
    network = copy.copy(plain)
    assert type(network.layers[0].self_attn) is not gemma3_cpu.CpuAttention
    assert type(load(str(folder)).network.layers[0].self_attn) is gemma3_cpu.CpuAttention
