"""A clock that can jump: libfaketime before the programs of the cell that serves, steered by a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from deployments.cell.state import CellError
from deployments.site.plan import HostPlan, Plan

FILE = "faketime"
_PYTHON = Path(__file__).parent / "faked"
_FOLDERS = ("/usr/lib/x86_64-linux-gnu/faketime", "/usr/lib/aarch64-linux-gnu/faketime")


def fake_time_of(plan: Plan) -> dict[str, Mapping[str, str]]:
    """Environments by host under which clocks follow `<home>/site/faketime`. Raises `CellError`.

    The first cell's alone: each look at a clock costs a multiple there. Only the time of day jumps:
    monotonic clocks do not, on a real machine either.
    """
    library = next((p for f in _FOLDERS if (p := Path(f) / "libfaketimeMT.so.1").exists()), None)
    if library is None:
        raise CellError("libfaketime was not found: make system installs it")
    found: dict[str, Mapping[str, str]] = {}
    for host in plan.cells[:1]:
        host.folder.mkdir(parents=True, exist_ok=True, mode=0o755)
        set_offset(host, 0)
        found[host.name] = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(host.folder / FILE),
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_CACHE_DURATION": "1",
            "PYTHONPATH": f"{_PYTHON}:{host.project}",
        }
    return found


def set_offset(host: HostPlan, seconds: int) -> None:
    """Let the host's clocks jump to so many seconds from the true time, within a second.

    Without an effect on a host that `fake_time_of` does not name.
    """
    file = host.folder / FILE
    file.write_text(f"{seconds:+d}s\n", encoding="ascii")
    file.chmod(0o644)
