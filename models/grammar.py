"""Constrained decoding: JSON, or JSON of a schema, token by token, by llguidance.

JSON is asked for compactly: with free white space a small model spends its answer on it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from llguidance import LLMatcher, LLTokenizer
from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask
from numpy.typing import NDArray

from models.errors import EngineError, InvalidRequest

MAX_SCHEMA_BYTES = 64 * 1024


@lru_cache(maxsize=128)
def _grammar(schema: str) -> str:
    defaults = {"whitespace_flexible": False, "item_separator": ",", "key_separator": ":"}
    return str(LLMatcher.grammar_from_json_schema(schema, defaults=defaults))


class Grammar:
    """The state of one constrained answer."""

    def __init__(self, tokenizer: LLTokenizer, response_format: Mapping[str, Any]) -> None:
        """Raise InvalidRequest for a schema that cannot be compiled; `param` names it."""
        is_schema = response_format["type"] == "json_schema"
        schema = json.dumps(response_format["schema"] if is_schema else {"type": "object"})
        if len(schema) > MAX_SCHEMA_BYTES:
            raise InvalidRequest(
                f"The schema is longer than {MAX_SCHEMA_BYTES} bytes.", param="response_format"
            )
        try:
            grammar = _grammar(schema)
            problem = LLMatcher.validate_grammar(grammar, tokenizer)
        except ValueError as error:
            problem = type(error).__name__
        if problem:
            raise InvalidRequest(
                "The JSON schema is not one that answers can be constrained to.",
                param="response_format.json_schema.schema",
            )
        self._matcher = LLMatcher(tokenizer, grammar)
        self._mask = allocate_token_bitmask(1, tokenizer.vocab_size)

    def allowed(self, vocabulary: int) -> NDArray[np.bool_]:
        """Which of `vocabulary` tokens may come next, shape [vocabulary]."""
        fill_next_token_bitmask(self._matcher, self._mask)
        bits = np.unpackbits(self._mask.view(np.uint8), bitorder="little")
        row = np.zeros(vocabulary, np.bool_)
        n = min(vocabulary, len(bits))
        row[:n] = bits[:n]
        return row

    def accept(self, token: int) -> bool:
        """Take `token`; return whether the answer is complete. Raise EngineError if it does not fit."""
        if not self._matcher.consume_token(token) or self._matcher.is_error():
            raise EngineError("The constrained answer left its grammar.")
        return bool(self._matcher.is_stopped())
