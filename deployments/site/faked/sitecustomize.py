"""Loaded by every Python under libfaketime, whose absolute `clock_nanosleep` the library refuses.

Sleeping by a semaphore's deadline does not go through it.
"""

from __future__ import annotations

import threading
import time
from typing import SupportsIndex


def _sleep(seconds: float | SupportsIndex) -> None:
    if (length := float(seconds)) < 0:
        raise ValueError("sleep length must be non-negative")
    threading.Event().wait(length)


time.sleep = _sleep
