"""What the deployment `cell` measures of its machine: memory guard, disks, ends of certificates."""

from __future__ import annotations

from collections.abc import Mapping

from ray.util.metrics import Gauge

from deployments.ai.guard import PoolState
from deployments.cell.disks import free_ratios
from deployments.cell.state import Home
from deployments.memory import PoolUse
from deployments.site.trust.renewal import certificate_ends


class CellMeters:
    """Among the cell's own measurements; labels name pools, mount points and files."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._closed = Gauge(
            "medrec_memory_closed",
            "1 while the memory guard admits nothing to the pool.",
            ("pool",),
        )
        self._used = Gauge(
            "medrec_memory_used_ratio", "Used part of a pool's memory budget.", ("pool",)
        )
        self._free = Gauge(
            "medrec_disk_free_ratio", "Free part of a file system, 0 to 1.", ("mount",)
        )
        self._ends = Gauge(
            "medrec_certificate_ends_s", "Unix time of a certificate's end.", ("certificate",)
        )

    def show_pools(self, uses: Mapping[str, PoolUse], states: Mapping[str, PoolState]) -> None:
        """After a look of the guard."""
        for pool, use in uses.items():
            closed = states.get(pool, PoolState()).closed is not None
            self._closed.set(float(closed), {"pool": pool})
            self._used.set(use.share, {"pool": pool})

    def show_machine(self) -> None:
        """Now and then: it asks the file systems and reads the certificates; blocks."""
        for mount, ratio in free_ratios([self._home.path]).items():
            self._free.set(ratio, {"mount": mount})
        for name, ends in certificate_ends(self._home.path / "site" / "tls").items():
            self._ends.set(ends, {"certificate": name})
