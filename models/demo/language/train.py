"""Trains the network in torch on the training stream for a number of minutes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional

from models.demo.language.batches import Batch, batches
from models.demo.language.corpus import held_out_items, training_items
from models.demo.language.items import Item
from models.demo.language.network import Shape, Weights, hidden_states, logits, new_weights

_WARMUP_STEPS = 100
_VALIDATION_SEED = 7


@dataclass(frozen=True)
class Plan:
    """How to train. Learning rates are peaks: a short rise, then a straight fall to a hundredth."""

    minutes: float
    seed: int = 1
    threads: int = 2
    tokens_per_batch: int = 2048
    matrix_lr: float = 4e-3
    vector_lr: float = 3e-3
    weight_decay: float = 0.02
    checkpoint_minutes: float = 5.0


@dataclass
class Progress:
    """What a checkpoint holds."""

    weights: Weights
    optimizers: list[torch.optim.Optimizer]
    step: int = 0
    tokens: int = 0
    seconds: float = 0.0


def train(
    plan: Plan,
    shape: Shape,
    tokenizer: Tokenizer,
    checkpoint: Path,
    resume: bool,
    exported: Callable[[Weights], object],
    report: Callable[[str], object] = print,
) -> Progress:
    """Train until `plan.minutes` have passed, time before a resumed checkpoint included.

    Every `checkpoint_minutes` the state goes to `checkpoint` and the weights to `exported`.
    The items seen depend on the seed alone, how many of them on the machine's speed.
    """
    torch.set_num_threads(1)
    workers = ThreadPoolExecutor(plan.threads, initializer=torch.set_num_threads, initargs=(1,))
    progress = _begin(plan, shape)
    if resume and checkpoint.exists():
        _load(progress, checkpoint)
    validation = held_out_items(_VALIDATION_SEED)[::4]
    stream = training_items(plan.seed + 1_000_003 * progress.step)
    began, saved_at = time.monotonic() - progress.seconds, progress.seconds
    losses: list[float] = []
    cut = batches(stream, tokenizer, plan.tokens_per_batch // plan.threads, plan.seed)
    while parts := list(islice(cut, plan.threads)):
        losses.append(_step(progress, parts, plan, shape, workers))
        progress.step += 1
        progress.tokens += sum(batch.tokens.size for batch in parts)
        progress.seconds = time.monotonic() - began
        if progress.step % 50 == 0:
            mean = sum(losses[-50:]) / len(losses[-50:])
            report(
                f"step {progress.step} {progress.seconds / 60:.1f} min "
                f"{progress.tokens / 1e6:.2f}M tokens loss {mean:.4f}"
            )
        over = progress.seconds >= plan.minutes * 60
        if over or progress.seconds - saved_at >= plan.checkpoint_minutes * 60:
            saved_at = progress.seconds
            _save(progress, checkpoint)
            exported(progress.weights)
            exact = exactly_said(progress.weights, shape, tokenizer, validation)
            report(f"said exactly as the reference, {exact}")
        if over:
            break
    return progress


def exactly_said(
    weights: Weights, shape: Shape, tokenizer: Tokenizer, items: Iterable[Item]
) -> dict[str, float]:
    """By kind, the share of answers that greedy decoding would give as the reference has them.

    With the reference as context, every one of its tokens has to be the likeliest.
    """
    right: dict[str, list[bool]] = {}
    with torch.no_grad():
        for item in items:
            (batch,) = batches([item], tokenizer, 1, 0)
            tokens = torch.from_numpy(batch.tokens)
            last = len(tokenizer.encode(item.answer, add_special_tokens=False).ids) + 1
            states = hidden_states(weights, tokens[:, :-1], shape)[:, -last:]
            chosen = logits(weights, states).argmax(-1)
            right.setdefault(item.kind, []).append(bool((chosen == tokens[:, -last:]).all()))
    return {kind: round(sum(found) / len(found), 3) for kind, found in right.items()}


def _begin(plan: Plan, shape: Shape) -> Progress:
    weights = new_weights(shape, plan.seed)
    for value in weights.values():
        value.requires_grad_()
    matrices = [v for name, v in weights.items() if v.dim() == 2 and "embed" not in name]
    others = [v for name, v in weights.items() if v.dim() == 1 or "embed" in name]
    return Progress(
        weights,
        [
            torch.optim.Muon(
                matrices,
                lr=plan.matrix_lr,
                weight_decay=plan.weight_decay,
                adjust_lr_fn="match_rms_adamw",
            ),
            torch.optim.AdamW(others, lr=plan.vector_lr, betas=(0.9, 0.98), weight_decay=0.0),
        ],
    )


def _step(
    progress: Progress, parts: list[Batch], plan: Plan, shape: Shape, workers: ThreadPoolExecutor
) -> float:
    """One update on the mean loss of `parts`, each of which one thread works through alone.

    Threads that meet once a step lose less to a busy machine than threads that meet in every
    matrix product.
    """
    _set_rates(progress, plan)
    weights = list(progress.weights.values())
    said = sum(int(batch.said.sum()) for batch in parts)

    def part(batch: Batch) -> tuple[float, tuple[Tensor, ...]]:
        loss = _loss(progress.weights, batch, shape) / said
        return float(loss.detach()), torch.autograd.grad(loss, weights)

    done = list(workers.map(part, parts))
    for at, weight in enumerate(weights):
        weight.grad = torch.stack([gradients[at] for _, gradients in done]).sum(0)
    torch.nn.utils.clip_grad_norm_(weights, 1.0)
    for optimizer in progress.optimizers:
        optimizer.step()
    return sum(loss for loss, _ in done)


def _loss(weights: Weights, batch: Batch, shape: Shape) -> Tensor:
    """The cross-entropy of every token that is to be said, summed."""
    tokens, said = torch.from_numpy(batch.tokens), torch.from_numpy(batch.said)
    with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False):
        states = hidden_states(weights, tokens[:, :-1], shape)
        scores = logits(weights, states[said[:, 1:]])
    return functional.cross_entropy(scores.float(), tokens[:, 1:][said[:, 1:]], reduction="sum")


def _set_rates(progress: Progress, plan: Plan) -> None:
    done = min(1.0, progress.seconds / (plan.minutes * 60))
    share = min(1.0, (progress.step + 1) / _WARMUP_STEPS) * max(0.01, 1.0 - done)
    for optimizer, peak in zip(progress.optimizers, (plan.matrix_lr, plan.vector_lr), strict=True):
        for group in optimizer.param_groups:
            group["lr"] = peak * share


def _save(progress: Progress, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    state = {
        "weights": {name: value.detach() for name, value in progress.weights.items()},
        "optimizers": [optimizer.state_dict() for optimizer in progress.optimizers],
        "counts": (progress.step, progress.tokens, progress.seconds),
    }
    torch.save(state, fresh)
    fresh.replace(path)


def _load(progress: Progress, path: Path) -> None:
    state = torch.load(path, weights_only=True)
    with torch.no_grad():
        for name, value in state["weights"].items():
            progress.weights[name].copy_(value)
    for optimizer, saved in zip(progress.optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    progress.step, progress.tokens, progress.seconds = state["counts"]
