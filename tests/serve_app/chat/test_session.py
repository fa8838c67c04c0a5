from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.chat.session import session_key

SYSTEM = {"role": "system", "content": "You help nurses."}
FIRST = {"role": "user", "content": "Fever since Monday."}
TURNS = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": st.text()}),
    max_size=6,
)


@given(later=TURNS)
def test_all_turns_of_a_conversation_have_one_key(later: list[dict[str, str]]) -> None:
    first = session_key("m", "u", [SYSTEM, FIRST])
    assert session_key("m", "u", [SYSTEM, FIRST, *later]) == first


@pytest.mark.parametrize(
    ("model", "user", "messages"),
    [
        ("n", "u", [SYSTEM, FIRST]),
        ("m", "v", [SYSTEM, FIRST]),
        ("m", "u", [FIRST]),
        ("m", "u", [SYSTEM, {"role": "user", "content": "Fever since Tuesday."}]),
        ("m", "u", [SYSTEM]),
    ],
)
def test_another_model_user_or_beginning_is_another_conversation(
    model: str, user: str, messages: list[dict[str, str]]
) -> None:
    assert session_key(model, user, messages) != session_key("m", "u", [SYSTEM, FIRST])


def test_where_one_text_ends_and_the_next_begins_counts() -> None:
    assert session_key("ab", "c", [FIRST]) != session_key("a", "bc", [FIRST])


def test_a_developer_message_is_a_system_message() -> None:
    developer = {"role": "developer", "content": SYSTEM["content"]}
    assert session_key("m", "u", [developer, FIRST]) == session_key("m", "u", [SYSTEM, FIRST])


def test_the_key_holds_no_text() -> None:
    key = session_key("m", "u", [SYSTEM, FIRST])
    assert len(key) == 32
    int(key, 16)
