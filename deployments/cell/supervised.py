"""A child process of the cell that is started again when it ends, after a pause that grows."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field

from deployments.cell.state import CellError

BACKOFF_S = (0.0, 0.5, 1.0, 2.0, 5.0)
STEADY_S = 60.0


@dataclass
class Supervised:
    """One child and how to start it. Times are those of the monotonic clock."""

    name: str
    start: Callable[[], subprocess.Popen[bytes]]
    process: subprocess.Popen[bytes] | None = None
    _failures: int = field(default=0, init=False)
    _up_since: float = field(default=0.0, init=False)
    _due: float | None = field(default=None, init=False)

    def begin(self, now: float) -> subprocess.Popen[bytes]:
        """Start it."""
        self.process = self.start()
        self._up_since, self._due = now, None
        return self.process

    def look(self, now: float, tell: Callable[[str], None]) -> bool:
        """Start it again if it has ended and its pause is over. Whether it was started."""
        if self.process is None or self.process.poll() is None:
            return False
        if self._due is None:
            self._plan(now, f"{self.name} ended ({self.process.returncode})", tell)
        assert self._due is not None
        if now < self._due:
            return False
        try:
            self.begin(now)
        except CellError as error:
            # One part that cannot start is no reason to end the others.
            self._plan(now, f"{self.name} cannot start: {error}", tell)
            return False
        return True

    def _plan(self, now: float, what: str, tell: Callable[[str], None]) -> None:
        if now - self._up_since > STEADY_S:
            self._failures = 0
        pause_s = BACKOFF_S[min(self._failures, len(BACKOFF_S) - 1)]
        self._failures, self._up_since, self._due = self._failures + 1, now, now + pause_s
        tell(f"{what}; restarting in {pause_s:g} s")
