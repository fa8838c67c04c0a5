"""What became of one request, as its client saw it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise

OVERLOADED = "429"
DEFAULT_RETRY_AFTER_S = 1.0


@dataclass(slots=True)
class Outcome:
    """Times are of `time.perf_counter`, in seconds; token counts are the server's own `usage`.

    `due` is when the request should have left: in open loop the schedule's time. A generator
    that falls behind so makes latencies worse. `failure` is empty for a complete answer.
    """

    due: float
    failure: str = ""
    first: float = math.nan
    ended: float = math.nan
    arrivals: list[float] = field(default_factory=list)
    finish_reason: str = ""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    retry_after_s: float = DEFAULT_RETRY_AFTER_S
    reconnected: bool = False

    @property
    def is_complete(self) -> bool:
        return not self.failure

    @property
    def is_rejected(self) -> bool:
        """Turned away in good order, which is not a failure."""
        return self.failure == OVERLOADED

    @property
    def first_token_s(self) -> float:
        return self.first - self.due

    @property
    def whole_s(self) -> float:
        return self.ended - self.due

    @property
    def per_token_s(self) -> float:
        """Mean time from one token to the next after the first; nan below two tokens."""
        if self.completion_tokens < 2 or not self.arrivals:
            return math.nan
        return (self.arrivals[-1] - self.first) / (self.completion_tokens - 1)

    def gaps(self) -> list[float]:
        """Silences between pieces of text, as a reader sees them."""
        return [later - sooner for sooner, later in pairwise(self.arrivals)]
