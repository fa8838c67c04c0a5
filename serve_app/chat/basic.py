"""The basic chat of an emergency: what goes beyond is refused, what does not say is bounded."""

from __future__ import annotations

from configs.args import EmergencyArgs
from deployments.edge.modes import CODE, ChatAsked, refuse_chat
from serve_app.chat.schema import ChatBody
from serve_app.errors import InvalidParameter


def bounded(body: ChatBody, limits: EmergencyArgs) -> ChatBody:
    """The body with its answer bounded. Raises `InvalidParameter` (`not_in_emergency`)."""
    asked = (
        body.max_completion_tokens if body.max_completion_tokens is not None else body.max_tokens
    )
    parts = [
        part
        for message in body.messages
        if not isinstance(message.content, str)
        for part in message.content
    ]
    texts = [message.content for message in body.messages if isinstance(message.content, str)]
    refusal = refuse_chat(
        ChatAsked(
            answer_tokens=asked,
            answers=body.n or 1,
            prompt_chars=sum(map(len, texts)) + sum(len(part.text) for part in parts),
            kinds=frozenset(part.type for part in parts),
        ),
        max_tokens=limits.chat_max_tokens,
        max_prompt_chars=limits.chat_max_prompt_chars,
    )
    if refusal is not None:
        raise InvalidParameter(refusal.reason, param=refusal.param, code=CODE)
    return (
        body
        if asked is not None
        else body.model_copy(update={"max_tokens": limits.chat_max_tokens})
    )
