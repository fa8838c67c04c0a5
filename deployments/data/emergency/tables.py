"""What the copy consists of: each table here, what it is read from there, and what goes before."""

from __future__ import annotations

from dataclasses import dataclass

PARTITIONS = (
    *("patient", "allergyintolerance", "medicationrequest", "medicationstatement", "condition"),
    *("consent", "practitioner", "organization"),
)


@dataclass(frozen=True, slots=True)
class Copied:
    """A table of the copy. `source` is what `medrec_copy` may read of it on site.

    `is_shared`: this cell writes it too, so rows are added and brought up to date, and none is removed.
    """

    table: str
    source: str
    is_shared: bool = False


# Heartbeat last: its time is that of everything before it.
TABLES = (
    *(Copied(f"records.resource_{name}", f"records.resource_{name}") for name in PARTITIONS),
    Copied("emergency.vital", "emergency.vital"),
    Copied("records.care", "emergency.care"),
    Copied("interactions.switch", "emergency.switch"),
    Copied("accounts.account", "emergency.enrolled"),
    Copied("alerts.alert", "emergency.alert", is_shared=True),
    Copied("alerts.event", "emergency.event", is_shared=True),
    Copied("emergency.heartbeat", "emergency.heartbeat"),
)
