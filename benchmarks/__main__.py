"""`python -m benchmarks NAME [options]`: one entry for every benchmark, one output format."""

from __future__ import annotations

import signal
import sys
from types import FrameType

from benchmarks.cli import app


def _ends(number: int, frame: FrameType | None) -> None:
    """Leave by every `finally`: what a benchmark has started, a whole site too, is ended by it."""
    sys.exit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _ends)
    app()
