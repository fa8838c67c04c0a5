"""API keys: their shape is found by scanners, their checksum tells a mistyped one."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from deployments.data.accounts import keys

SCANNER = re.compile(r"\bmr_[0-9A-Za-z]{12}_[0-9A-Za-z]{49}\b")


def test_a_scanner_finds_a_key_in_a_file() -> None:
    key = keys.mint()
    assert SCANNER.findall(f'client = OpenAI(api_key="{key.text}")') == [key.text]
    assert key.text.startswith(f"mr_{key.id}_")
    assert keys.looks_like_key(key.text)
    assert keys.is_well_formed(key.text)


def test_keys_differ_and_do_not_show_themselves() -> None:
    first, second = keys.mint(), keys.mint()
    assert first.hash != second.hash
    assert first.text not in repr(first)


@given(st.integers(min_value=0, max_value=64), st.characters(codec="utf-8"))
def test_one_other_character_is_noticed_without_a_database(place: int, other: str) -> None:
    text = keys.mint().text
    changed = text[:place] + other + text[place + 1 :]
    assert keys.is_well_formed(changed) == (changed == text)


@given(st.text())
def test_any_text_is_judged_and_hashed(text: str) -> None:
    assert not keys.is_well_formed(text)
    assert len(keys.hash_of(text)) == 32
