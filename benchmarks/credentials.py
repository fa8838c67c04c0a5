"""The demo key that a cell of this machine has made at its first start."""

from __future__ import annotations

import json
from pathlib import Path

FILE = "credentials.json"


def demo_key(home: Path) -> str:
    """The `api_key` of the home's credentials; empty where there are none (yet)."""
    try:
        found = json.loads((home / FILE).read_text(encoding="utf-8"))["api_key"]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return found if isinstance(found, str) else ""
