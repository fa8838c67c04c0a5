"""Benchmark `capacity`: what an M3 Ultra can hold and serve, by roofline."""

from __future__ import annotations

from dataclasses import dataclass, replace

from benchmarks.report import Cell, Chart, Column, Draft, Report
from benchmarks.roofline import (
    M3_ULTRA,
    Chip,
    decode_tokens_per_s,
    kv_bytes,
    kv_bytes_per_token,
    kv_fixed_bytes,
    prefill_tokens_per_s,
    users_that_fit,
    weights_bytes,
)
from benchmarks.shapes import Shape, shape

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 200)

COLUMNS = [
    Column(key="model", title="model", meaning="built-in shape or folder"),
    Column(key="bits", title="bits", meaning="bits a weight; keys and values stay at 16 bit"),
    Column(key="context", title="context", meaning="tokens of context that every user has"),
    Column(key="users", title="users", meaning="users at once, one sequence each"),
    Column(key="weights_gb", title="weights GB", meaning="weights in memory, 10^9 bytes"),
    Column(key="kv_per_token_kib", title="KV KiB/token", meaning="growth of one user's cache"),
    Column(key="kv_fixed_mb", title="KV fixed MB", meaning="sliding layers' cache of one user"),
    Column(key="kv_gb", title="KV GB", meaning="all users' keys and values, 10^9 bytes"),
    Column(key="fits", title="fits", meaning="whether weights and KV fit the AI budget"),
    Column(key="users_max", title="users max", meaning="users whose KV fits the AI budget"),
    Column(key="decode_one", title="decode x1", meaning="ceiling for one empty stream, tokens/s"),
    Column(key="decode_all", title="decode all", meaning="ceiling of all users, tokens/s"),
    Column(key="decode_user", title="per user", meaning="ceiling for each user, tokens/s"),
    Column(key="prefill", title="prefill", meaning="ceiling of prompt tokens/s, at that length"),
    Column(key="prefill_one_s", title="first s", meaning="least time for one cold prompt, s"),
    Column(key="prefill_all_s", title="all cold s", meaning="least time for every user's, s"),
]


@dataclass(frozen=True, slots=True)
class CapacityOptions:
    """Each model at each precision, for one context and number of users."""

    models: tuple[str, ...] = ("medgemma-4b", "medgemma-27b")
    bits: tuple[int, ...] = (4, 8, 16)
    context: int = 8192
    users: int = 200
    budget_gb: float = M3_ULTRA.budget_gb


def run(options: CapacityOptions) -> Report:
    """Computes; measures nothing on this machine."""
    chip = replace(M3_ULTRA, budget_gb=options.budget_gb)
    draft = Draft(
        "capacity",
        {
            "models": list(options.models),
            "bits": list(options.bits),
            "context": options.context,
            "users": options.users,
            "budget_gb": options.budget_gb,
            "chip": chip.name,
            "bandwidth_gb_s": chip.bandwidth_gb_s,
            "tflops": chip.tflops,
        },
        COLUMNS,
    )
    for name in options.models:
        subject = shape(name)
        if options.context > subject.max_context:
            raise ValueError(f"{name} has a context of {subject.max_context} tokens")
        for bits in options.bits:
            draft.row(**cells(subject, bits, options.context, options.users, chip))
        draft.charts.append(_chart(subject, options, chip))
    draft.notes += [
        f"Bandwidth {chip.bandwidth_gb_s:g} GB/s (Apple). Arithmetic {chip.tflops:g} TFLOPS is "
        f"{chip.tflops_source}.",
        "Ceilings: nothing reaches them. Others measured 141 tokens/s decode and 2,034 prefill on "
        "the 4B model at 4 bit.",
        "The table describes the modelled machine; the caption names the one that computed it.",
    ]
    return draft.close()


def cells(shape: Shape, bits: int, context: int, users: int, chip: Chip) -> dict[str, Cell]:
    """One row: bytes in decimal GB and MB, KV growth in KiB."""
    weights = weights_bytes(shape, bits)
    cache = users * kv_bytes(shape, context)
    together = decode_tokens_per_s(shape, bits, context, users, chip)
    prefill = prefill_tokens_per_s(shape, context, chip)
    return {
        "model": shape.name,
        "bits": bits,
        "context": context,
        "users": users,
        "weights_gb": weights / 1e9,
        "kv_per_token_kib": kv_bytes_per_token(shape) / 1024,
        "kv_fixed_mb": kv_fixed_bytes(shape, context) / 1e6,
        "kv_gb": cache / 1e9,
        "fits": "yes" if weights + cache <= chip.budget_gb * 1e9 else "no",
        "users_max": users_that_fit(shape, bits, context, chip),
        "decode_one": decode_tokens_per_s(shape, bits, 0, 1, chip),
        "decode_all": together,
        "decode_user": together / users,
        "prefill": prefill,
        "prefill_one_s": context / prefill,
        "prefill_all_s": users * context / prefill,
    }


def _chart(shape: Shape, options: CapacityOptions, chip: Chip) -> Chart:
    series = {
        f"{bits} bit": [
            (float(n), decode_tokens_per_s(shape, bits, options.context, n, chip)) for n in BATCHES
        ]
        for bits in options.bits
    }
    title = f"{shape.name}: decode ceiling at {options.context:,} tokens of context"
    return Chart(title=title, x="users", y="tokens/s", series=series)
