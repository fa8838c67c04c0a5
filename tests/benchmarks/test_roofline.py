from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import capacity
from benchmarks.roofline import (
    M3_ULTRA,
    bytes_per_weight,
    decode_tokens_per_s,
    kv_bytes,
    kv_bytes_per_token,
    kv_fixed_bytes,
    prefill_tokens_per_s,
    token_flops,
    users_that_fit,
    weights_bytes,
)
from benchmarks.shapes import MEDGEMMA_4B, MEDGEMMA_27B, shape

DEMO = Path(__file__).resolve().parents[2] / "models" / "weights" / "gemma3-demo"


def test_the_4b_models_cache_grows_by_20_kib_a_token_over_122_mb() -> None:
    assert kv_bytes_per_token(MEDGEMMA_4B) == 20 * 1024
    assert kv_fixed_bytes(MEDGEMMA_4B, 8192) / 1e6 == pytest.approx(122, abs=0.5)


def test_200_users_at_8k_need_58_gb() -> None:
    assert 200 * kv_bytes(MEDGEMMA_4B, 8192) / 1e9 == pytest.approx(58, abs=0.5)


@pytest.mark.parametrize(("bits", "ceiling"), [(4, 375), (8, 199), (16, 106)])
def test_one_stream_on_the_4b_model_is_bound_by_the_bandwidth(bits: int, ceiling: int) -> None:
    assert decode_tokens_per_s(MEDGEMMA_4B, bits, 0, 1, M3_ULTRA) == pytest.approx(ceiling, abs=0.6)


def test_the_27b_model_holds_54_gb_of_weights_at_16_bit() -> None:
    assert weights_bytes(MEDGEMMA_27B, 16) / 1e9 == pytest.approx(54, abs=0.5)


def test_quantised_weights_carry_a_scale_and_a_bias_for_each_64() -> None:
    assert [bytes_per_weight(bits) * 8 for bits in (4, 8, 16, 32)] == [4.5, 8.5, 16, 32]
    with pytest.raises(ValueError, match="not 5"):
        bytes_per_weight(5)


def test_below_the_window_the_sliding_layers_hold_only_the_context() -> None:
    assert kv_fixed_bytes(MEDGEMMA_4B, 512) * 2 == kv_fixed_bytes(MEDGEMMA_4B, 1024)
    assert kv_fixed_bytes(MEDGEMMA_4B, 1024) == kv_fixed_bytes(MEDGEMMA_4B, 131_072)


def test_one_user_more_than_fits_would_pass_the_budget() -> None:
    most = users_that_fit(MEDGEMMA_27B, 4, 131_072, M3_ULTRA)
    budget = M3_ULTRA.budget_gb * 1e9
    weights, each = weights_bytes(MEDGEMMA_27B, 4), kv_bytes(MEDGEMMA_27B, 131_072)
    assert weights + most * each <= budget < weights + (most + 1) * each


def test_no_user_fits_where_the_weights_do_not() -> None:
    assert users_that_fit(MEDGEMMA_27B, 16, 8192, replace(M3_ULTRA, budget_gb=40)) == 0


def test_many_users_gain_until_arithmetic_binds() -> None:
    speeds = [decode_tokens_per_s(MEDGEMMA_27B, 4, 128, n, M3_ULTRA) for n in (1, 8, 512, 1024)]
    assert speeds[0] < speeds[1] < speeds[2]
    arithmetic = M3_ULTRA.tflops * 1e12 / token_flops(MEDGEMMA_27B, 128)
    assert speeds[2] == speeds[3] == pytest.approx(arithmetic)


def test_longer_prompts_prefill_slower_and_others_measurement_stays_below_the_ceiling() -> None:
    short, long = (prefill_tokens_per_s(MEDGEMMA_4B, n, M3_ULTRA) for n in (1024, 65_536))
    assert long < short
    assert short > 2034


def test_a_folders_shape_is_read_from_its_config() -> None:
    found = shape(str(DEMO))
    assert (found.layers, found.global_layers, found.window) == (6, 1, 256)
    stored = (DEMO / "model.safetensors").stat().st_size
    assert weights_bytes(found, 32) == pytest.approx(stored, rel=0.01)


def test_a_config_without_a_key_is_refused_by_the_keys_name(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"num_hidden_layers": 2}')
    with pytest.raises(ValueError, match="lacks 'num_attention_heads'"):
        shape(str(tmp_path))


def test_the_report_has_a_row_for_each_model_and_precision() -> None:
    report = capacity.run(capacity.CapacityOptions(bits=(4, 16), context=4096, users=50))
    seen = [(row["model"], row["bits"]) for row in report.rows]
    assert seen == [(m, b) for m in ("medgemma-4b", "medgemma-27b") for b in (4, 16)]
    row = report.rows[0]
    assert row["kv_gb"] == pytest.approx(50 * kv_bytes(MEDGEMMA_4B, 4096) / 1e9)
    assert row["prefill_all_s"] == pytest.approx(50 * 4096 / float(str(row["prefill"])))


def test_a_context_over_the_models_is_refused() -> None:
    with pytest.raises(ValueError, match="131072"):
        capacity.run(capacity.CapacityOptions(context=131_073))
