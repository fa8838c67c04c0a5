"""What the machine at hand has, less what a container withholds: memory, CPU, Apple's cores."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from functools import cache
from pathlib import Path

import psutil

from configs.budgets import Budget

_GB = 2**30
_PROBE_TIMEOUT_S = 10


@cache
def machine() -> Budget:
    """The resources of this machine. Apple cores are 0 where there are none."""
    apple = platform.system() == "Darwin" and platform.machine() == "arm64"
    return Budget(
        memory_gb=round(memory_bytes() / _GB, 4),
        metal_cores=metal_cores() if apple else 0,
        cpu=cpu_cores(),
        neural_cores=neural_cores(_probe("sysctl", "-n", "machdep.cpu.brand_string"))
        if apple
        else 0,
    )


def memory_bytes(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Physical memory, or the container's limit where that is lower."""
    limits = [psutil.virtual_memory().total]
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        text = _read(cgroup / name)
        if text.isdigit():
            limits.append(int(text))
    return min(limits)


def cpu_cores(cgroup: Path = Path("/sys/fs/cgroup")) -> float:
    """Cores that this process may use: its affinity, or the container's quota if lower."""
    cores = float(
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    quota, _, period = _read(cgroup / "cpu.max").partition(" ")
    if quota.isdigit() and period.isdigit():
        cores = min(cores, int(quota) / int(period))
    return cores


def metal_cores() -> int:
    """GPU cores as the I/O registry counts them; 0 if it does not say."""
    return parse_metal_cores(_probe("ioreg", "-rc", "AGXAccelerator", "-d1"))


def parse_metal_cores(registry: str) -> int:
    """The number in a line like `"gpu-core-count" = 80`."""
    found = re.search(r'"gpu-core-count"\s*=\s*(\d+)', registry)
    return int(found.group(1)) if found else 0


def neural_cores(chip: str) -> int:
    """Neural Engine cores of an Apple chip: 16, and 32 in an Ultra, which is two dies."""
    if not chip.startswith("Apple M"):
        return 0
    return 32 if "Ultra" in chip else 16


def _probe(*command: str) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_PROBE_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""
