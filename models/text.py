"""Between text and tokens: the chat template, the bytes of each token, answers as they grow."""

from __future__ import annotations

import codecs
import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import llguidance.hf
import numpy as np
from jinja2 import TemplateError
from numpy.typing import NDArray

from models.errors import InvalidRequest

_SYSTEM_PROMPTS = 64


class ChatTokenizer:
    """A model folder's tokenizer as the engine uses it. Thread-safe."""

    def __init__(self, tokenizer: Any, stop_tokens: Sequence[int]) -> None:
        """`tokenizer` is Hugging Face's; `stop_tokens` end an answer."""
        self._tokenizer = tokenizer
        self._lock = threading.Lock()
        self._boundaries: OrderedDict[str, int] = OrderedDict()
        self.stop_tokens = frozenset(stop_tokens)
        self.grammar_tokenizer = llguidance.hf.from_tokenizer(
            tokenizer, eos_token=sorted(self.stop_tokens)
        )
        self._control = self._control_tokens()
        # Not llguidance's notion of special, which takes in every added token written <so>.
        special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
        table = self.grammar_tokenizer
        self._bytes = [
            b"" if i in special else bytes(table.decode_bytes([i])) for i in range(table.vocab_size)
        ]

    @property
    def template_version(self) -> str:
        """The first 12 digits of the SHA-256 of the chat template; `none` without one."""
        template = self._tokenizer.chat_template
        if not template:
            return "none"
        named = template if isinstance(template, str) else json.dumps(template, sort_keys=True)
        return hashlib.sha256(named.encode()).hexdigest()[:12]

    def encode_chat(self, messages: Sequence[Mapping[str, Any]]) -> tuple[NDArray[np.int32], int]:
        """The prompt's tokens, and how many of them belong to the system prompt (0 without one).

        Raises InvalidRequest when the model's chat template does not take these messages.
        """
        messages = [dict(m, role="system") if m["role"] == "developer" else m for m in messages]
        for i, message in enumerate(messages):
            if any(token in message["content"] for token in self._control):
                raise InvalidRequest(
                    "The message holds one of the model's control tokens, which could forge a turn.",
                    param=f"messages[{i}].content",
                )
        with self._lock:
            return self._encode(messages), self._system_boundary(messages)

    def encode(self, text: str) -> NDArray[np.int32]:
        """Tokens of plain text, without a template or special tokens."""
        with self._lock:
            ids = self._tokenizer.encode(text, add_special_tokens=False)
        return np.array(ids, np.int32)

    def token_bytes(self, token: int) -> bytes:
        """The bytes that a token adds to an answer; none for special tokens."""
        return self._bytes[token] if 0 <= token < len(self._bytes) else b""

    def _encode(self, messages: Sequence[Mapping[str, Any]]) -> NDArray[np.int32]:
        try:
            text = self._tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, tokenize=False
            )
        except (TemplateError, KeyError, TypeError, ValueError) as error:
            raise InvalidRequest(
                "The model's chat template does not take these messages: after an optional system "
                "message, user and assistant must alternate, the user first and last.",
                param="messages",
            ) from error
        return np.array(self._tokenizer.encode(text, add_special_tokens=False), np.int32)

    def _control_tokens(self) -> frozenset[str]:
        """The special tokens that begin and end turns, as text."""
        try:
            prompt = self._encode([{"role": "user", "content": ""}]).tolist()
        except InvalidRequest:
            prompt = []
        added = self._tokenizer.added_tokens_decoder
        used = {i for i in (*prompt, *self.stop_tokens) if i in added and added[i].special}
        return frozenset(added[i].content for i in used)

    def _system_boundary(self, messages: Sequence[Mapping[str, Any]]) -> int:
        """Where two prompts with this system message and different questions begin to differ."""
        if messages[0]["role"] != "system" or len(messages) < 2:
            return 0
        key = str(messages[0]["content"])
        if key not in self._boundaries:
            a, b = (self._encode([messages[0], {"role": "user", "content": c}]) for c in "aZ")
            n = min(len(a), len(b))
            different = np.nonzero(a[:n] != b[:n])[0]
            self._boundaries[key] = int(different[0]) if len(different) else n
            if len(self._boundaries) > _SYSTEM_PROMPTS:
                self._boundaries.popitem(last=False)
        self._boundaries.move_to_end(key)
        return self._boundaries[key]


class AnswerText:
    """Turns an answer's tokens into text as they come, and finds stop strings in it.

    Text that could be the beginning of a stop string, or of a character, is held back until it is sure.
    """

    def __init__(self, tokenizer: ChatTokenizer, stop: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._stop = [s for s in stop if s]
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self.stopped = False

    def add(self, token: int) -> str:
        """The text that is now sure; sets `stopped` once a stop string is complete."""
        return self._release(self._decoder.decode(self._tokenizer.token_bytes(token)))

    def finish(self) -> str:
        """The rest of the text, when the answer ends without a stop string."""
        text = self._release(self._decoder.decode(b"", final=True))
        if not self.stopped:
            text, self._held = text + self._held, ""
        return text

    def _release(self, text: str) -> str:
        if not self._stop:
            return text
        text = self._held + text
        found = min((at for s in self._stop if (at := text.find(s)) >= 0), default=-1)
        if found >= 0:
            self.stopped, self._held = True, ""
            return text[:found]
        keep = max(_overlap(text, s) for s in self._stop)
        sure = len(text) - keep
        self._held = text[sure:]
        return text[:sure]


def _overlap(text: str, stop: str) -> int:
    """The length of the longest end of `text` that begins `stop`."""
    for n in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:n]):
            return n
    return 0
