"""The demo language model: an honest held-out set, a strict grader, and weights in Gemma's format."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from models import blas
from models.demo.language import NearestNeighbour, grade, held_out_items
from models.demo.language.analytes import ANALYTES
from models.demo.language.card import parameters
from models.demo.language.corpus import training_items
from models.demo.language.items import LANGUAGES, TASKS, is_held_out
from models.demo.language.talk import WORDINGS

WEIGHTS = Path(__file__).parents[3] / "models" / "weights" / "gemma3-demo"
HELD_OUT = held_out_items()
TRAINED = list(islice(training_items(11), 6000))


def test_the_held_out_set_spans_tasks_and_languages_and_repeats_itself_by_seed() -> None:
    assert len(HELD_OUT) >= 500
    for task in TASKS:
        for language in LANGUAGES:
            assert sum(i.task == task and i.language == language for i in HELD_OUT) >= 50
    assert held_out_items() == HELD_OUT
    assert held_out_items(1) != HELD_OUT


def _could_read(pattern: str, other: str) -> bool:
    """Whether some reading of `pattern` is word for word `other`."""
    parts = re.split(r"\[([^\[\]]*)\]", pattern)
    regex = "".join(
        re.escape(part) if at % 2 == 0 else "(" + "|".join(map(re.escape, part.split("|"))) + ")"
        for at, part in enumerate(parts)
    )
    return re.fullmatch(regex, other, re.IGNORECASE) is not None


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_held_out_phrasing_can_come_out_of_a_trained_one(language: Any) -> None:
    words = WORDINGS[language]
    assert words.train.keys() == words.held_out.keys()
    for kind, held_out in words.held_out.items():
        assert len(words.train[kind]) >= (10 if kind == "note_ask" else 15)
        for pattern in held_out:
            assert "[" not in pattern
            assert not any(_could_read(trained, pattern) for trained in words.train[kind])


def test_no_trained_template_or_question_is_held_out() -> None:
    assert not {i.template for i in TRAINED} & {i.template for i in HELD_OUT}
    assert not {i.question for i in TRAINED if i.kind == "verdict"} & {i.question for i in HELD_OUT}


@pytest.mark.parametrize("kind", ["verdict", "then_verdict", "interaction", "then_interaction"])
def test_values_and_drug_pairs_are_asked_on_one_side_only(kind: str) -> None:
    assert all(is_held_out(i.key) for i in HELD_OUT if i.kind == kind)
    assert not any(is_held_out(i.key) for i in TRAINED if i.kind == kind)


def test_finding_sets_and_dictated_values_are_asked_on_one_side_only() -> None:
    for kind in ("triage", "then_action"):
        assert all("+" in i.key and is_held_out(i.key) for i in HELD_OUT if i.kind == kind)
        assert not any(is_held_out(i.key) for i in TRAINED if i.kind == kind and "+" in i.key)
    for kind in ("note", "then_vital"):
        for part in (0, 1):
            assert all(is_held_out(i.key.split(";")[part]) for i in HELD_OUT if i.kind == kind)
            assert not any(is_held_out(i.key.split(";")[part]) for i in TRAINED if i.kind == kind)


def test_the_grader_accepts_every_reference_answer() -> None:
    refused = [(i.question, grade(i, i.answer)) for i in HELD_OUT if not grade(i, i.answer).passed]
    assert not refused
    assert all(grade(item, item.answer.upper()).passed for item in HELD_OUT)


_OPPOSITES = (
    ("above", "below"),
    ("acima", "abaixo"),
    ("within", "above"),
    ("dentro", "acima"),
    ("Yes, they interact", "No clinically important interaction is known"),
    ("Sim, interagem", "Não se conhece interação clinicamente importante"),
    ("Emergency", "Urgent"),
    ("Emergência", "Urgente"),
    ("Urgent", "Routine"),
    ("Rotina", "Urgente"),
    ("high", "low"),
    ("alto", "baixo"),
    ("alta", "baixa"),
    ("normal)", "high)"),
)


def test_the_grader_rejects_turned_verdicts() -> None:
    turned = 0
    for item in HELD_OUT:
        for one, other in _OPPOSITES:
            for old, new in ((one, other), (other, one)):
                answer = re.sub(rf"(?<!\w){re.escape(old)}(?!\w)", new, item.answer)
                if answer != item.answer:
                    assert not grade(item, answer).passed, answer
                    turned += 1
    assert turned > 400


def test_the_grader_rejects_any_other_digit() -> None:
    for item in HELD_OUT:
        if item.task in ("ranges", "notes"):
            for found in re.finditer(r"\d", item.answer):
                other = str((int(found.group()) + 1) % 10)
                answer = item.answer[: found.start()] + other + item.answer[found.end() :]
                assert not grade(item, answer).passed, answer


@pytest.mark.parametrize("answer", ["", "I do not know.", "high low normal", "Sim. Não.", "S:\nO:"])
def test_the_grader_rejects_empty_and_evasive_answers(answer: str) -> None:
    assert not any(grade(item, answer).passed for item in HELD_OUT)


def test_the_grader_says_why() -> None:
    item = next(item for item in HELD_OUT if item.kind == "class_of")
    assert grade(item, "").reason.startswith("missing: ")
    assert (
        grade(item, item.answer + f" {item.forbidden[0]}").reason == f"wrong: {item.forbidden[0]}"
    )


def test_the_look_up_finds_what_was_trained() -> None:
    nearest = NearestNeighbour(size=300, seed=5)
    for item in islice(training_items(5), 300):
        if item.kind == "note":
            assert grade(item, nearest.answer(item)).passed


def test_verdicts_count_bounds_as_normal() -> None:
    for analyte in ANALYTES:
        for bounds in analyte.ranges.values():
            for bound in (bounds.low, bounds.high):
                if bound is not None:
                    assert bounds.verdict(bound) == "normal"
                    step = 10.0**-analyte.decimals
                    beyond = bound - step if bound == bounds.low else bound + step
                    assert bounds.verdict(beyond) != "normal"


@pytest.fixture(scope="module")
def loaded() -> tuple[Any, Any]:
    blas.preload()
    mlx_lm = pytest.importorskip("mlx_lm")
    model, tokenizer = mlx_lm.load(str(WEIGHTS))[:2]
    return model, tokenizer


def test_the_weights_are_small_and_in_gemmas_format() -> None:
    assert sum(path.stat().st_size for path in WEIGHTS.iterdir()) < 16_000_000
    config = json.loads((WEIGHTS / "config.json").read_text(encoding="utf-8"))
    assert parameters(config) <= 4_000_000
    assert config["model_type"] == "gemma3_text"
    assert config["architectures"] == ["Gemma3ForCausalLM"]
    generation = json.loads((WEIGHTS / "generation_config.json").read_text(encoding="utf-8"))
    assert generation["eos_token_id"] == config["eos_token_id"] == [1, 5]
    assert "Not for care" in (WEIGHTS / "README.md").read_text(encoding="utf-8")


def test_the_parameters_in_the_file_are_those_of_the_config(loaded: tuple[Any, Any]) -> None:
    from mlx.utils import tree_flatten

    config = json.loads((WEIGHTS / "config.json").read_text(encoding="utf-8"))
    assert sum(value.size for _, value in tree_flatten(loaded[0].parameters())) == parameters(
        config
    )


def test_the_chat_template_renders_as_gemmas(loaded: tuple[Any, Any]) -> None:
    render = loaded[1].apply_chat_template
    system = {"role": "system", "content": "Be brief."}
    user = {"role": "user", "content": [{"type": "text", "text": " Hi "}]}
    model = {"role": "assistant", "content": "Hello."}
    rendered = render([system, user, model, user], tokenize=False, add_generation_prompt=True)
    assert rendered == (
        "<bos><start_of_turn>user\nBe brief.\n\nHi<end_of_turn>\n<start_of_turn>model\nHello."
        "<end_of_turn>\n<start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n"
    )
    tokens = render([user], add_generation_prompt=True)
    assert tokens[:2] == [2, 4]
    with pytest.raises(Exception, match="alternate"):
        render([user, user], tokenize=False)


@pytest.mark.parametrize(
    "text", ["Pressão 120/80 à noite; coração são.", "febre 😀 38,5 °C\n\nΩ ≥ 3", "a  b", "1234567"]
)
def test_the_tokenizer_gives_back_what_it_was_given(loaded: tuple[Any, Any], text: str) -> None:
    tokens = loaded[1].encode(text)
    assert tokens[0] == 2
    assert loaded[1].decode(tokens[1:]) == text


def test_digits_are_tokens_of_their_own(loaded: tuple[Any, Any]) -> None:
    assert len(loaded[1].encode("128")) == len(loaded[1].encode("1")) + 2
    assert not [
        token
        for token in loaded[1].get_vocab()
        if re.search(r"\d.|.\d", token) and not token.startswith("<")
    ]


def test_the_model_answers_held_out_questions(loaded: tuple[Any, Any]) -> None:
    from models.demo.language.evaluate import greedy_answers

    asked = HELD_OUT[::64]
    passed = [
        grade(i, a).passed for i, a in zip(asked, greedy_answers(WEIGHTS, asked), strict=True)
    ]
    assert sum(passed) >= 0.5 * len(asked)


def test_batched_greedy_answers_are_those_of_mlx_lm(loaded: tuple[Any, Any]) -> None:
    from mlx_lm import generate

    from models.demo.language.evaluate import greedy_answers

    asked = [replace(item, max_tokens=24) for item in HELD_OUT[5::300]]
    alone = [
        generate(
            *loaded,
            loaded[1].apply_chat_template(list(i.messages), add_generation_prompt=True),
            max_tokens=24,
        )
        for i in asked
    ]
    assert greedy_answers(WEIGHTS, asked) == alone


def test_training_reads_chats_as_the_chat_template_writes_them(loaded: tuple[Any, Any]) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    from models.demo.language.batches import example

    tokenizer = tokenizers.Tokenizer.from_file(str(WEIGHTS / "tokenizer.json"))
    line_break = tokenizer.token_to_id("\n")
    for item in TRAINED[:200]:
        answered = [*item.messages, {"role": "assistant", "content": item.answer}]
        tokens = [*example(item, tokenizer).tokens, line_break]
        assert tokens == loaded[1].apply_chat_template(answered)


def test_the_network_in_torch_is_the_one_in_mlx(loaded: tuple[Any, Any]) -> None:
    torch = pytest.importorskip("torch")
    import mlx.core as mx
    from safetensors.torch import load_file

    from models.demo.language.network import Shape, hidden_states, logits

    weights = load_file(str(WEIGHTS / "model.safetensors"))
    shape = Shape(vocab_size=weights["model.embed_tokens.weight"].shape[0])
    tokens = [2, *(300 + 7 * at % 3000 for at in range(299))]
    ours = logits(weights, hidden_states(weights, torch.tensor([tokens]), shape))[0]
    theirs = torch.tensor(loaded[0](mx.array([tokens]))[0].tolist())
    assert (ours - theirs).abs().max() < 1e-3
