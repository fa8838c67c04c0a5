"""The API's own measurements, made with Ray's metrics so that one exposition covers the whole cell.

Labels are model, route template and status: never a user, never text.
"""

from __future__ import annotations

from ray.util.metrics import Counter, Gauge, Histogram

from serve_app.trace import Trace

_SECONDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600]


class Meters:
    """Counters of one API replica; Ray adds the replica's worker id as a label of its own."""

    def __init__(self) -> None:
        labels = ("route", "model", "status")
        self._requests = Counter(
            "medrec_http_requests", "Requests answered, by route, model and status.", labels
        )
        self._duration = Histogram(
            "medrec_http_request_duration_s",
            "Seconds from a request's arrival to the end of its answer.",
            _SECONDS,
            labels,
        )
        self._first_token = Histogram(
            "medrec_chat_first_token_s",
            "Seconds from a chat's arrival to its first token.",
            _SECONDS,
            ("model",),
        )
        self._tokens = Counter("medrec_chat_tokens", "Tokens of chats, by kind.", ("model", "kind"))
        self._in_progress = Gauge("medrec_chat_in_progress", "Chats now in progress.", ())
        self._chats = 0

    @property
    def chats_in_progress(self) -> int:
        """Chats that this replica is working on now."""
        return self._chats

    def chat_began(self) -> None:
        """One more chat is in progress."""
        self._chats += 1
        self._in_progress.set(self._chats)

    def chat_ended(self) -> None:
        """One chat less is in progress."""
        self._chats -= 1
        self._in_progress.set(self._chats)

    def request_ended(self, trace: Trace, route: str, status: int, duration_s: float) -> None:
        """Count one request; `trace.model` is empty or the id of a served model."""
        labels = {"route": route, "model": trace.model, "status": str(status)}
        self._requests.inc(1, labels)
        self._duration.observe(duration_s, labels)
        if trace.first_token_s is not None:
            self._first_token.observe(trace.first_token_s - trace.began_s, {"model": trace.model})
        counts = {
            "prompt": trace.prompt_tokens - trace.cached_tokens,
            "cached": trace.cached_tokens,
            "completion": trace.completion_tokens,
        }
        for kind, count in counts.items():
            if count > 0:
                self._tokens.inc(count, {"model": trace.model, "kind": kind})
