"""What a cell knows of its own fitness, in one small file that its parts write and its API tells.

`<home>/run/condition.json`: one section a part (`models`, `blobs`, `copy`), each with `at`, the Unix
time of its writing. A reader goes by that time: what is old says nothing.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Mapping
from typing import Any

from deployments.cell.state import Home

FILE = "condition.json"


def put(home: Home, section: str, value: Mapping[str, Any]) -> None:
    """Replace one section, and say when; whoever reads meanwhile sees the old one or the new one.

    Raises `OSError` where the home cannot be written.
    """
    home.run.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle = os.open(home.run / f".{FILE}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        # Held for a few file operations only, by processes of this machine.
        fcntl.flock(handle, fcntl.LOCK_EX)
        found = {**read(home), section: {**value, "at": time.time()}}
        draft = home.run / f".{FILE}.{os.getpid()}"
        draft.write_text(json.dumps(found), encoding="utf-8")
        draft.chmod(0o600)
        draft.replace(home.run / FILE)
    finally:
        os.close(handle)


def read(home: Home) -> dict[str, Any]:
    """Every section; empty where nothing was written yet or what was written is damaged."""
    try:
        found = json.loads((home.run / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
