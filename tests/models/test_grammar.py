"""Constrained answers, token by token."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import pytest

from models.errors import EngineError, InvalidRequest
from models.grammar import MAX_SCHEMA_BYTES, Grammar
from models.loading import LoadedModel


def schema(value: Any) -> dict[str, Any]:
    """A response format of the schema."""
    return {"type": "json_schema", "schema": value}


def written(model: LoadedModel, response_format: dict[str, Any], seed: int) -> str:
    """A random walk through what the grammar allows, to the end."""
    grammar, rng = Grammar(model.tokenizer.grammar_tokenizer, response_format), random.Random(seed)
    answer = b""
    for _ in range(400):
        allowed = grammar.allowed(model.vocabulary)
        assert allowed.shape == (model.vocabulary,)
        assert allowed.any()
        token = rng.choice(np.nonzero(allowed)[0].tolist())
        if token in model.tokenizer.stop_tokens:
            break
        answer += model.tokenizer.token_bytes(token)
        if grammar.accept(token):
            break
    else:
        pytest.fail("the walk does not end")
    return answer.decode()


@pytest.mark.parametrize("seed", range(5))
def test_whatever_is_allowed_is_the_schemas_and_without_white_space(
    model: LoadedModel, seed: int
) -> None:
    text = written(
        model,
        schema(
            {
                "type": "object",
                "properties": {"a": {"type": "boolean"}, "b": {"enum": ["x", "ção", 3]}},
                "required": ["a", "b"],
                "additionalProperties": False,
            }
        ),
        seed,
    )
    value = json.loads(text)
    assert type(value["a"]) is bool
    assert value["b"] in ("x", "ção", 3)
    assert " " not in text
    assert "\n" not in text


def test_a_token_that_does_not_fit_is_an_engine_error(model: LoadedModel) -> None:
    grammar = Grammar(model.tokenizer.grammar_tokenizer, {"type": "json_object"})
    wrong = model.tokenizer.encode("no").tolist()[0]
    assert not grammar.allowed(model.vocabulary)[wrong]
    with pytest.raises(EngineError, match="left its grammar"):
        grammar.accept(wrong)


def test_an_object_begins_with_a_brace(model: LoadedModel) -> None:
    grammar = Grammar(model.tokenizer.grammar_tokenizer, {"type": "json_object"})
    allowed = np.nonzero(grammar.allowed(model.vocabulary))[0].tolist()
    assert all(model.tokenizer.token_bytes(token).startswith(b"{") for token in allowed)
    assert not set(allowed) & model.tokenizer.stop_tokens


def test_tokens_beyond_the_tokenizer_are_never_allowed(model: LoadedModel) -> None:
    grammar = Grammar(model.tokenizer.grammar_tokenizer, {"type": "json_object"})
    assert not grammar.allowed(model.vocabulary + 64)[model.vocabulary :].any()


@pytest.mark.parametrize("value", [{"type": "nonsense"}, {"$ref": "#/nowhere"}, {"type": 3}])
def test_a_schema_that_cannot_be_compiled_is_the_callers_fault(
    model: LoadedModel, value: Any
) -> None:
    with pytest.raises(InvalidRequest, match="not one that answers can be") as raised:
        Grammar(model.tokenizer.grammar_tokenizer, schema(value))
    assert raised.value.param == "response_format.json_schema.schema"
    assert "nonsense" not in raised.value.message


def test_a_schema_that_is_too_long_is_refused(model: LoadedModel) -> None:
    value = {"enum": ["x" * MAX_SCHEMA_BYTES]}
    with pytest.raises(InvalidRequest, match="longer than 65536 bytes"):
        Grammar(model.tokenizer.grammar_tokenizer, schema(value))
