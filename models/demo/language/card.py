"""Writes the model card beside the weights."""

from __future__ import annotations

import json
from pathlib import Path

from models.demo.language.evaluate import Evaluation, Scores, total
from models.demo.language.items import LANGUAGES, TASKS

_TITLES = {
    "ranges": "Reference ranges and verdicts",
    "drugs": "Drug classes and interactions",
    "triage": "Symptom triage",
    "notes": "SOAP notes",
}
_LANGUAGE_TITLES = {"pt": "Portuguese", "en": "English"}

_CARD = """\
# gemma3-demo

A demo language model for Medical Record: Gemma 3's architecture with {parameters:,} parameters
in float32, trained from nothing on clinical questions in Brazilian Portuguese and English that
its own recipe writes. It lets the platform be run, tested and measured without a download.

**Not for care.** It knows a few tables by heart and is wrong at times with full confidence. Do not
use it for any decision about a person's health.

## What is in the folder

The files that MedGemma's folder has, in the same format: `config.json` (`gemma3_text`),
`model.safetensors`, the tokenizer, `generation_config.json` and `chat_template.jinja` with
Gemma 3's turns. {layers} layers (every {pattern}th sees the whole context, the others the last
{window} tokens), width {hidden}, {heads} query heads on {groups} key-value head of {head_dim}, MLP
{mlp}, {vocab} tokens: a BPE with byte fallback whose digits stand alone. {size:,} bytes in all.

## Training

- **Data**: chats made by `models/demo/language` from its tables: {analytes} vital signs and laboratory
  tests, {drugs} drugs in {classes} classes with {interactions} interacting pairs and {safe} pairs
  that go together, {findings} findings for triage, {complaints} complaints for dictated visits;
  half Portuguese, half English, one in five with a system prompt, about one in five with a second
  question. Ranges are usual adult ones as large laboratories print them; laboratories differ.
- **Loss** on the model's turns only. Muon for the matrices, AdamW for the rest, bfloat16 products.
- **Run**: {minutes:.0f} minutes on two shared CPU cores, {steps:,} steps,
  {tokens:.1f} million tokens (padding included).{note}
- **Lengths**: chats of 20 to about 240 tokens, all within the sliding window.
  `max_position_embeddings` is 131,072 so that long contexts can be measured; nothing longer than
  about 240 tokens was trained, and answers over longer contexts mean nothing.

Recipe, with the extra `train` installed: `python -m models.demo.language --minutes {minutes:.0f}`.

## Held-out results

{asked} questions, half in each language. Each is in a phrasing that was never trained; each verdict,
interaction, set of findings and dictation is of values that training left out (one in five, by hash).
Questions for a range, a class or an example have no values to leave out: only their phrasing is new.
Graded by program for every fact (verdict, range, value, class, mechanism, advice, level, each field of a
note), with no credit for a part. Greedy decoding, float32, MLX.

{table}

The look-up answers with the answer of the most similar of 20,000 training chats (cosine of TF-IDF
over character n-grams of 2 to 5).

Asked over HTTP: {http}

## Limits

- It answers the kinds of question above, about the entries of its tables, in phrasings near those
  trained. To others it often gives a fluent answer that is about something else.
- It errs most on the verdict of a number against its range, on copying every field of a dictation,
  and on drug and test names that sound alike.
- It holds no conversation beyond one follow-up question.
"""


def write_card(
    folder: Path,
    evaluation: Evaluation,
    run: dict[str, float],
    http: str = "not measured yet.",
    note: str = "",
) -> None:
    """Write README.md into the weights folder, and replace the one that is there.

    `run` has the training's `minutes`, `steps` and `tokens`; `http` is the sentence on the
    result over HTTP, `note` what else a reader must know of the run.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    files = [p for p in folder.iterdir() if p.is_file() and p.name != "README.md"]
    text = _CARD.format(
        parameters=parameters(config),
        layers=config["num_hidden_layers"],
        pattern=config["sliding_window_pattern"],
        window=config["sliding_window"],
        hidden=config["hidden_size"],
        heads=config["num_attention_heads"],
        groups=config["num_key_value_heads"],
        head_dim=config["head_dim"],
        mlp=config["intermediate_size"],
        vocab=config["vocab_size"],
        size=sum(path.stat().st_size for path in files),
        minutes=run["minutes"],
        steps=int(run["steps"]),
        tokens=run["tokens"] / 1e6,
        asked=total(evaluation.model.values()).asked,
        table=_table(evaluation.model, evaluation.baseline),
        http=http,
        note=f" {note}" if note else "",
        **_sizes_of_tables(),
    )
    (folder / "README.md").write_text(text, encoding="utf-8")


def parameters(config: dict[str, int]) -> int:
    """How many numbers the weights of a config hold; the head shares the embedding's."""
    width, heads = config["hidden_size"], config["num_attention_heads"] * config["head_dim"]
    keys = config["num_key_value_heads"] * config["head_dim"]
    attention = 2 * width * heads + 2 * width * keys + 2 * config["head_dim"]
    layer = attention + 3 * width * config["intermediate_size"] + 4 * width
    return config["vocab_size"] * width + config["num_hidden_layers"] * layer + width


def _table(model: Scores, baseline: Scores) -> str:
    rows = ["| task | language | model | nearest neighbour |", "| --- | --- | --- | --- |"]
    for task in TASKS:
        for language in LANGUAGES:
            key = (task, language)
            rows.append(
                f"| {_TITLES[task]} | {_LANGUAGE_TITLES[language]} | {model[key]} | {baseline[key]} |"
            )
    rows.append(f"| **all** | | **{total(model.values())}** | {total(baseline.values())} |")
    return "\n".join(rows)


def _sizes_of_tables() -> dict[str, int]:
    from models.demo.language import analytes, drugs, findings, visits

    return {
        "analytes": len(analytes.ANALYTES),
        "drugs": len(drugs.DRUGS),
        "classes": len(drugs.CLASS_NAMES),
        "interactions": len(drugs.INTERACTIONS),
        "safe": len(drugs.SAFE_PAIRS),
        "findings": len(findings.FINDINGS),
        "complaints": len(visits.COMPLAINTS),
    }
