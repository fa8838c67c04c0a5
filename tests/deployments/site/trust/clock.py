"""A clock that tests put forward."""

from __future__ import annotations

from datetime import datetime, timedelta

from deployments.site.trust.authority import utc_now


class Clock:
    """Tells `now`, which moves only when it is told to."""

    def __init__(self) -> None:
        self.now = utc_now()

    def __call__(self) -> datetime:
        return self.now

    def pass_days(self, days: float) -> None:
        self.now += timedelta(days=days)
