"""`medrec down`: ask the cell's own `up` to end, then end what is left."""

from __future__ import annotations

import time

from rich.console import Console

from deployments.cell import processes, state, store
from deployments.cell.state import CellError

OWNER_TIMEOUT_S = 40.0
_POLL_S = 0.2


def run() -> None:
    """Stop the cell of this home. Raises `CellError` if a process outlives it."""
    console = Console(highlight=False, soft_wrap=True)
    home = state.home()
    found = state.read(home)
    if found is None:
        console.print(f"no cell runs in {home.path}")
        return
    owner = found.owner.process() if found.owner else None
    if owner is not None:
        console.print(f"stopping the cell of pid {owner.pid}")
        owner.terminate()
        deadline = time.monotonic() + OWNER_TIMEOUT_S
        while found.owner and found.owner.process() and time.monotonic() < deadline:
            time.sleep(_POLL_S)
    stuck = [found.owner] if found.owner else []
    left = state.end_all(state.read(home) or found) + processes.end(stuck, grace_s=0)
    left += store.stop(home)
    if left:
        raise CellError(f"processes outlived SIGKILL: {', '.join(map(str, left))}")
    state.forget(home)
    console.print("stopped")
