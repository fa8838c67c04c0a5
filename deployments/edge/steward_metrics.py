"""A steward's measurements for Prometheus; configs/prometheus/rules.yaml goes by these names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from deployments.cell.disks import free_ratios
from deployments.edge.primary import LEADS, MAY_LEAD
from deployments.edge.steward import Steward
from deployments.site.trust.renewal import certificate_ends

MODES = ("normal", "emergency")


class StewardCollector(Collector):
    """Reads the steward's sight at each scrape; asks nobody."""

    def __init__(self, steward: Steward) -> None:
        self._steward = steward

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        """Every measurement, as it is now."""
        steward = self._steward
        sight, standing = steward.sight, steward.standing
        seen = sight.seen()
        up = {cell.name: float(cell.is_up) for cell in seen.cells}
        yield _gauge("medrec_site_cell_up", "1 while the edge finds the cell well.", "cell", up)
        yield _gauge(
            "medrec_site_serving",
            "1 for the cells that serve.",
            "cell",
            {cell.name: float(cell.name in standing.serving) for cell in seen.cells},
        )
        yield _gauge(
            "medrec_site_aside",
            "1 for cells that were lost once or drained, and take over from nobody.",
            "cell",
            {cell.name: float(cell.name in standing.aside) for cell in seen.cells},
        )
        yield _gauge(
            "medrec_site_mode",
            "1 for the present mode.",
            "mode",
            {mode: float(mode == standing.mode) for mode in MODES},
        )
        yield from self._database(up)
        if seen.cloud is not None:
            yield _gauge(
                "medrec_site_emergency_up",
                "1 while the edge finds the emergency cell well.",
                "cell",
                {seen.cloud.name: float(seen.cloud.is_up)},
            )
            if seen.cloud.copy_age_s is not None:
                yield _single(
                    "medrec_site_copy_age_s",
                    "Age of the emergency copy in seconds.",
                    seen.cloud.copy_age_s,
                )
        yield _gauge(
            "medrec_site_etcd_up",
            "1 while the member of etcd is well.",
            "host",
            {host: float(well) for host, well in sight.etcd.items()},
        )
        yield _gauge(
            "medrec_site_edge_active",
            "1 while this edge has the clients' address.",
            "edge",
            {steward.own.name: float(seen.is_active)},
        )
        decisions = CounterMetricFamily(
            "medrec_site_decision",
            "Decisions that changed something, by action.",
            labels=["action"],
        )
        for action, count in sorted(steward.counts.items()):
            decisions.add_metric([action], count)
        yield decisions
        yield _disks(steward.own.name)
        yield _gauge(
            "medrec_certificate_ends_s",
            "Unix time at which the certificate or revocation list ends.",
            "certificate",
            certificate_ends(steward.own.tls),
        )

    def _database(self, cells: Mapping[str, float]) -> Iterator[GaugeMetricFamily]:
        members = self._steward.sight.members()
        roles = {name: str(member.get("role")) for name, member in members.items()}
        leads = {name: float(roles.get(name) in LEADS) for name in cells}
        yield _gauge(
            "medrec_site_database_primary", "1 for the cell of PostgreSQL's primary.", "cell", leads
        )
        standbys = sum(role in MAY_LEAD for role in roles.values())
        yield _single(
            "medrec_site_synchronous_standbys", "Synchronous standbys of PostgreSQL.", standbys
        )
        lags = {
            name: float(member["lag"])
            for name, member in members.items()
            if isinstance(member.get("lag"), int)
        }
        yield _gauge(
            "medrec_site_replication_lag_bytes", "Bytes that a standby is behind.", "cell", lags
        )
        yield _gauge(
            "medrec_site_replication_lag_s",
            "Seconds that a standby is behind, as the primary measures them.",
            "cell",
            self._steward.sight.lags_s(),
        )


def _gauge(name: str, words: str, label: str, values: Mapping[str, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, words, labels=[label])
    for key, value in sorted(values.items()):
        family.add_metric([key], value)
    return family


def _single(name: str, words: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, words, value=value)


def _disks(host: str) -> GaugeMetricFamily:
    family = GaugeMetricFamily(
        "medrec_disk_free_ratio", "Free part of a file system, 0 to 1.", labels=["host", "mount"]
    )
    for mount, ratio in free_ratios().items():
        family.add_metric([host, mount], ratio)
    return family
