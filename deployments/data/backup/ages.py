"""How old the backup is, from what `medrec backup schedule` says in the cell's condition."""

from __future__ import annotations

import time
from typing import Any

from ray.util.metrics import Gauge

_KEYS = {"base_at": "base", "wal_at": "wal"}


def ages(section: Any, now: float) -> dict[str, float]:
    """Seconds since the newest base backup and since the last moment that is safe, where known.

    They go on growing on a host that does not lead: the least of a site's hosts is the site's.
    """
    if not isinstance(section, dict):
        return {}
    return {
        name: max(0.0, now - section[key])
        for key, name in _KEYS.items()
        if isinstance(section.get(key), int | float)
    }


class BackupMeters:
    """Among the custodian's measurements; nothing is told where no schedule runs."""

    def __init__(self) -> None:
        self._ages = {
            "base": Gauge("medrec_backup_base_age_s", "Age of the newest base backup.", ()),
            "wal": Gauge("medrec_backup_wal_age_s", "Time whose changes may be unsaved yet.", ()),
        }
        self._ok = Gauge("medrec_backup_ok", "1 unless the last lap of the schedule failed.", ())

    def show(self, section: Any) -> None:
        """Bring the metrics up to the section `backup` of the cell's condition."""
        for name, age_s in ages(section, time.time()).items():
            self._ages[name].set(age_s)
        if isinstance(section, dict):
            self._ok.set(float(bool(section.get("ok"))))
