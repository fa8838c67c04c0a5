from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.credentials import demo_key
from benchmarks.targets import Target, TargetRefused, loopback
from benchmarks.wire import ChatClient


def test_the_key_is_that_of_the_homes_credentials(tmp_path: Path) -> None:
    (tmp_path / "credentials.json").write_text(json.dumps({"api_key": "mr_1", "users": []}))
    assert demo_key(tmp_path) == "mr_1"


@pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"api_key": 7}'])
def test_a_home_without_credentials_has_no_key(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "credentials.json").write_text(text)
    assert demo_key(tmp_path) == ""


def test_a_key_goes_with_every_chat_and_is_not_shown() -> None:
    target = loopback("http://127.0.0.1:8000", "mr_1")
    request = ChatClient(target, "m", 1.0).encode([{"role": "user", "content": "x"}], 1)
    assert b"\r\nauthorization: Bearer mr_1\r\n" in request
    assert "mr_1" not in repr(target)
    plain = ChatClient(Target("127.0.0.1", 1), "m", 1.0).encode([], 1)
    assert b"authorization" not in plain


@pytest.mark.parametrize("key", ["a b", "a\r\nhost: b", "é"])
def test_a_key_that_could_forge_a_header_is_refused(key: str) -> None:
    with pytest.raises(TargetRefused):
        loopback("http://127.0.0.1:8000", key)
