"""What a figure was measured on: machine, versions and commit, without names or paths."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict

PROJECT_ROOT = Path(__file__).resolve().parent.parent
VERSIONED = ("ray", "mlx", "mlx-lm", "scipy-openblas32", "numpy")


class Machine(BaseModel):
    """Enough to judge a figure by, nothing that says whose machine it is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    system: str
    architecture: str
    processor: str
    cores: int
    memory_gb: float


def this_machine() -> Machine:
    """`cores` are those this process may run on, which in a container can be fewer than all."""
    return Machine(
        system=f"{platform.system()} {platform.release()}",
        architecture=platform.machine(),
        processor=_processor(),
        cores=usable_cores(),
        memory_gb=round(psutil.virtual_memory().total / 1e9, 1),
    )


def usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _processor() -> str:
    if platform.system() == "Darwin":
        return _output(["sysctl", "-n", "machdep.cpu.brand_string"]) or platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def versions() -> dict[str, str]:
    """Python's, the engines' and this project's version; `commit` ends in `+` when files differ."""
    found = {"python": platform.python_version()}
    for name in VERSIONED:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    found["commit"] = commit()
    return found


def commit() -> str:
    """The checked-out commit, or `unknown` outside a checkout (an installed package)."""
    revision = _output(["git", "-C", str(PROJECT_ROOT), "rev-parse", "--short=12", "HEAD"])
    if not revision:
        return "unknown"
    status = ["git", "-C", str(PROJECT_ROOT), "status", "--porcelain", "--untracked-files=no"]
    return f"{revision}+" if _output(status) else revision


def _output(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
