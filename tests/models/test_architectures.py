"""Other architectures than Gemma, other number formats than float32, and the longest contexts."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.models.cache import make_prompt_cache

from models.decoding import SoloDecode, Step
from models.generation import Sampling
from models.loading import load
from models.row_sampler import RowSampler
from models.sampling import BatchSampler, Sampled
from models.scheduling import PrefillPace
from tests.models.driver import Driver
from tests.models.gemma import make_gemma, make_other
from tests.models.reference import Reference
from tests.models.test_decoding import partings, words

LLAMA = {
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 2048,
}
MAMBA = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "state_size": 8,
    "num_hidden_layers": 2,
    "conv_kernel": 4,
    "use_bias": False,
    "use_conv_bias": True,
    "time_step_rank": 4,
}


@pytest.mark.parametrize(("kind", "config"), [("llama", LLAMA), ("mamba", MAMBA)])
def test_other_architectures_answer_as_mlx_lm_does(
    tmp_path: Path, kind: str, config: dict[str, Any]
) -> None:
    folder = make_other(tmp_path / kind, kind, **config)
    model, reference = load(str(folder)), Reference(folder)
    assert (model.kv is None) == (kind == "mamba")
    driver, rng = Driver(model, prefill_chunk=16, max_running=3), random.Random(2)
    answers = []
    for tokens in (1, 2, 40, 17, 70):
        answers.append(driver.ask(words(rng, tokens, model.vocabulary), max_tokens=10))
        driver.turn()
    gone = driver.ask(words(rng, 30, model.vocabulary), max_tokens=50)
    driver.until(lambda: len(gone.tokens()) > 2)
    if model.kv is None:
        assert all(isinstance(batch, SoloDecode) for batch in driver.loop._batches)
    driver.loop.drop(gone.call)
    constrained = driver.ask(
        words(rng, 9, model.vocabulary),
        30,
        Sampling(temperature=1.0, seed=1),
        response_format={"type": "json_schema", "schema": {"enum": ["left", "right"]}},
    )
    driver.run()
    assert constrained.text() in ('"left"', '"right"')
    compared, parted = partings(answers, reference)
    assert (compared > 30, parted) == (True, 0)


@pytest.mark.parametrize("count", [12, pytest.param(40, marks=pytest.mark.slow)])
def test_bfloat16_stays_within_rounding_of_mlx_lm(
    folder: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    model = load(str(folder), dtype="bfloat16")
    rows: list[np.ndarray[Any, Any]] = []
    sample = BatchSampler.__call__

    def recorded(self: BatchSampler, logits: mx.array, allowed: Any = None) -> Sampled:
        rows.append(np.array(logits.astype(mx.float32)))
        return sample(self, logits, allowed)

    monkeypatch.setattr(BatchSampler, "__call__", recorded)
    driver = Driver(model, prefill_chunk=32, max_running=1)
    forever = Sampling(temperature=0.0, logit_bias={1: -1e4, 5: -1e4})
    answer = driver.ask(words(random.Random(5), 70, model.vocabulary), count, forever)
    driver.run()
    tokens = answer.tokens()
    assert len(tokens) == count
    # mlx-lm, forced along the same tokens, one at a time after the same prompt.
    caches = make_prompt_cache(model.network)
    model.network(mx.array(answer.call.prompt[None, :-1]), cache=caches)
    worst = 0.0
    for i, token in enumerate([int(answer.call.prompt[-1]), *tokens[:-1]]):
        logits = model.network(mx.array([[token]]), cache=caches)[0, -1].astype(mx.float32)
        worst = max(worst, float(np.abs(np.array(logits) - rows[i][0]).max()))
    scale = float(np.abs(rows[0]).max())
    print(f"bfloat16: largest difference {worst:.3f} of logits up to {scale:.1f}")
    assert worst < 0.06 * scale


@pytest.mark.parametrize("length", [6_000, pytest.param(32_000, marks=pytest.mark.slow)])
def test_a_long_context_lets_others_decode_and_memory_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    folder = make_gemma(
        tmp_path / "small",
        layers=2,
        hidden_size=16,
        num_attention_heads=1,
        num_key_value_heads=1,
        intermediate_size=16,
        sliding_window_pattern=2,
    )
    model = load(str(folder))
    chunk = 1024
    # One pass of a whole chunk a turn, however long this machine takes for it.
    monkeypatch.setattr(PrefillPace, "tokens", lambda self, _: chunk)
    driver = Driver(model, prefill_chunk=chunk, prefill_gap_factor=0.001, max_running=4)
    rng = random.Random(1)
    never_stop = Sampling(temperature=0.0, logit_bias={1: -1e4, 5: -1e4})
    streams = [
        driver.ask(words(rng, 20, model.vocabulary), 20_000, never_stop, user=f"u{i}")
        for i in range(2)
    ]
    driver.until(lambda: all(stream.tokens() for stream in streams))
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    long = driver.ask(words(rng, length, model.vocabulary), max_tokens=4, user="long")
    passes = 0
    while not long.tokens():
        seen = [len(stream.tokens()) for stream in streams]
        prefilled = driver.loop.stats().prefilled_tokens
        driver.turn()
        passes += 1
        # Between two tokens of others comes no more of any prompt than a chunk.
        advanced = driver.loop.stats().prefilled_tokens - prefilled
        assert advanced <= chunk
        assert not advanced or all(len(s.tokens()) > n for s, n in zip(streams, seen, strict=True))
    driver.until(lambda: long.is_done)
    assert passes >= math.ceil(length / chunk)
    assert mx.get_peak_memory() - before < 400e6
    for stream in streams:
        driver.loop.drop(stream.call)
    driver.run()


def test_a_solo_rows_last_token_is_delivered_once() -> None:
    steps: list[Step] = []
    logits = mx.array([[[0.0, 3.0, 1.0]]])

    class Row:
        """A greedy row."""

        sampler: Any = None
        done = False
        needs_host = False

        def allowed(self, vocabulary: int) -> None:
            return None

    row = Row()
    row.sampler = RowSampler(Sampling(temperature=0.0))
    solo = SoloDecode(lambda inputs, cache: logits, 3, row, 0, [])
    solo.step(steps.append)
    assert steps == []
    solo.step(steps.append)
    solo.flush(steps.append)
    solo.flush(steps.append)
    assert [step.tokens for step in steps] == [[1], [1]]
    solo.leave(row)
    assert len(solo) == 0
