"""The engine's decisions as pure functions: who is next, how much, and in which batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from models.generation import Priority
from models.kv import round_up

# A decode token costs about as much time as this many prefill tokens (VTC, OSDI '24, section 4.1).
DECODE_WEIGHT = 2.0

_ROW_LADDER = (1, 2, 3, 4, 6, 8, 12, 16)


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do, and why in a sentence."""

    action: Literal["admit", "wait", "refuse"]
    reason: str


@dataclass(slots=True)
class Fairness:
    """Service given to each user so far, in weighted tokens (virtual token counter).

    A user who comes back is lifted to the least-served active user: idling saves nothing up.
    """

    served: dict[str, float] = field(default_factory=dict)
    active: dict[str, int] = field(default_factory=dict)

    def arrive(self, user: str) -> None:
        """A sequence of `user` entered the engine."""
        if user not in self.active:
            floor = min((self.served[u] for u in self.active), default=0.0)
            self.served[user] = max(self.served.get(user, 0.0), floor)
        self.active[user] = self.active.get(user, 0) + 1

    def leave(self, user: str) -> None:
        """A sequence of `user` left the engine; a user without any is forgotten."""
        self.active[user] -= 1
        if not self.active[user]:
            del self.active[user]
            del self.served[user]

    def charge(self, user: str, tokens: float) -> None:
        """`user` was given `tokens` prefill tokens' worth of work."""
        if user in self.served:
            self.served[user] += tokens

    def key(self, priority: Priority, user: str, arrival: int) -> tuple[int, float, int]:
        """Sorts waiting prompts: by priority, then least served user, then arrival."""
        return (int(priority), self.served.get(user, 0.0), arrival)


def admission(
    need_bytes: int, used_bytes: int, budget_bytes: int, running: int, max_running: int
) -> Decision:
    """Whether a sequence whose key-values may reach `need_bytes` can start now."""
    if need_bytes > budget_bytes:
        return Decision("refuse", f"needs {need_bytes} KV bytes of a budget of {budget_bytes}")
    if running >= max_running:
        return Decision("wait", f"{running} sequences run, the most allowed")
    if used_bytes + need_bytes > budget_bytes:
        return Decision("wait", f"{used_bytes} of {budget_bytes} KV bytes are promised")
    return Decision("admit", f"{need_bytes} KV bytes fit beside {used_bytes} of {budget_bytes}")


@dataclass(slots=True)
class PrefillPace:
    """Learns how long a prefill pass takes, and sizes passes to a time budget.

    A pass of n tokens is taken to last `fixed_s + n * token_s`, fitted to recent passes with
    exponential forgetting: it follows a context that grows slower as it gets longer.
    """

    largest: int
    smallest: int = 8
    keep: float = 0.8
    _weight: float = 0.0
    _n: float = 0.0
    _s: float = 0.0
    _nn: float = 0.0
    _ns: float = 0.0

    def observe(self, tokens: int, seconds: float) -> None:
        """A pass of `tokens` tokens took `seconds`."""
        for name, value in (
            ("_weight", 1.0),
            ("_n", float(tokens)),
            ("_s", seconds),
            ("_nn", float(tokens) ** 2),
            ("_ns", tokens * seconds),
        ):
            setattr(self, name, self.keep * getattr(self, name) + value)

    @property
    def token_s(self) -> float:
        """Seconds that one more token adds."""
        if not self._weight:
            return 0.0
        spread = self._nn * self._weight - self._n**2
        # Passes of one size say nothing of the slope: then all time is counted to the tokens.
        if spread <= 0.01 * self._n**2:
            return self._s / self._n
        slope = (self._ns * self._weight - self._n * self._s) / spread
        return min(max(slope, 0.1 * self._s / self._n), self._s / self._n)

    @property
    def fixed_s(self) -> float:
        """Seconds that a pass takes whatever its size."""
        return (self._s - self.token_s * self._n) / self._weight if self._weight else 0.0

    def tokens(self, budget_s: float | None) -> int:
        """Tokens of a pass that should last `budget_s` seconds; the largest without a budget."""
        if budget_s is None:
            return self.largest
        if not self._weight:
            return min(self.smallest, self.largest)
        fitting = int((budget_s - self.fixed_s) / max(self.token_s, 1e-9))
        return min(self.largest, max(self.smallest, fitting))


@dataclass(frozen=True, slots=True)
class BatchLoad:
    """A decode batch as placement sees it: the columns of its ring, its rows' lengths in tokens."""

    columns: int
    lengths: tuple[int, ...]

    def padding(self, columns: int, joining: int = 0) -> int:
        """Padded tokens at `columns` columns, with one more row of `joining` tokens if not 0."""
        rows = (*self.lengths, joining) if joining else self.lengths
        return sum(columns - n for n in rows)


def place(tokens: int, batches: Sequence[BatchLoad], token_bytes: int, budget_bytes: int) -> int:
    """The batch that a sequence of `tokens` tokens should decode in; len(batches) for a new one.

    It is the batch with the least added padding, unless padding would pass `budget_bytes`: then the
    sequence reads less memory in a batch of its own than everybody would in a shared one.
    """
    best, least = len(batches), None
    for i, batch in enumerate(batches):
        columns = max(batch.columns, columns_for(tokens))
        padding = batch.padding(columns, tokens)
        added = padding - batch.padding(batch.columns)
        if padding * token_bytes <= budget_bytes and (least is None or added < least):
            best, least = i, added
    return best


def columns_for(tokens: int) -> int:
    """Ring columns for a sequence of `tokens` tokens, with room to grow by an eighth."""
    return round_up(tokens + max(32, tokens // 8))


def outgrown(batch: BatchLoad, token_bytes: int, budget_bytes: int) -> list[int]:
    """Rows that must leave so that a batch which has to grow stays inside its padding budget.

    The longest rows leave; a batch of one row never splits.
    """
    order = sorted(range(len(batch.lengths)), key=lambda i: -batch.lengths[i])
    leaving: list[int] = []
    while len(order) > 1:
        columns = columns_for(batch.lengths[order[0]])
        if sum(columns - batch.lengths[i] for i in order) * token_bytes <= budget_bytes:
            break
        leaving.append(order.pop(0))
    return leaving


def row_count(rows: int) -> int:
    """The rows to allocate for `rows` sequences: at most a quarter of them stay empty."""
    for step in _ROW_LADDER:
        if rows <= step:
            return step
    return round_up(rows, 4 if rows <= 32 else 8)
