"""Loaded by every Python under libfaketime, whose absolute `clock_nanosleep` the library refuses.

Sleeping by a semaphore's deadline does not go through it.
"""

from __future__ import annotations

import threading
import time


def _sleep(seconds: float) -> None:
    if seconds < 0:
        raise ValueError("sleep length must be non-negative")
    threading.Event().wait(seconds)


time.sleep = _sleep
